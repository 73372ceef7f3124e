package place

import (
	"errors"

	"golang.org/x/sys/windows"
)

// IsNotDir reports whether a path goes through something that is no folder.
func IsNotDir(err error) bool {
	return errors.Is(err, windows.ERROR_DIRECTORY) || errors.Is(err, windows.ERROR_PATH_NOT_FOUND)
}
