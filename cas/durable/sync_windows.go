package durable

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/windows"
)

// Virus scanners and indexers open new files for a moment, and a rename fails
// meanwhile: it is tried again, for about two seconds in all.
const (
	renameTries = 12
	firstPause  = time.Millisecond
)

// Rename renames from to to, replacing what stands there.
func Rename(from, to string) error {
	return moveFile(from, to, windows.MOVEFILE_REPLACE_EXISTING|windows.MOVEFILE_WRITE_THROUGH)
}

func renameNew(from, to string) error {
	return moveFile(from, to, windows.MOVEFILE_WRITE_THROUGH)
}

func moveFile(from, to string, flags uint32) error {
	fromPtr, err := windows.UTF16PtrFromString(from)
	if err != nil {
		return err
	}
	toPtr, err := windows.UTF16PtrFromString(to)
	if err != nil {
		return err
	}
	pause := firstPause
	for try := 1; ; try++ {
		err = windows.MoveFileEx(fromPtr, toPtr, flags)
		busy := errors.Is(err, windows.ERROR_ACCESS_DENIED) || errors.Is(err, windows.ERROR_SHARING_VIOLATION)
		if err == nil {
			return nil
		}
		if !busy || try == renameTries {
			return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
		}
		time.Sleep(pause)
		pause *= 2
	}
}

// SyncDir does nothing: Windows cannot sync folders, and renames are written
// through.
func SyncDir(string) error { return nil }
