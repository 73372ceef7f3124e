package place

import (
	"io/fs"

	"golang.org/x/sys/windows"
)

// ownedByOther is not asked here: folders inherit their rights from above.
func ownedByOther(fs.FileInfo) bool { return false }

// freeBytes returns how many bytes this user may still write to dir's disk.
func freeBytes(dir string) (int64, error) {
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, err
	}
	var free uint64
	if err := windows.GetDiskFreeSpaceEx(name, &free, nil, nil); err != nil {
		return 0, err
	}
	return int64(free), nil
}
