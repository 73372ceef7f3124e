package bundle

import (
	"errors"

	"golang.org/x/sys/windows"
)

// isNotDir reports whether a path goes through something that is no folder.
func isNotDir(err error) bool {
	return errors.Is(err, windows.ERROR_DIRECTORY) || errors.Is(err, windows.ERROR_PATH_NOT_FOUND)
}
