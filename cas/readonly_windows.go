package cas

import (
	"errors"

	"golang.org/x/sys/windows"
)

// isReadOnly reports whether err says that a medium is write-protected.
func isReadOnly(err error) bool { return errors.Is(err, windows.ERROR_WRITE_PROTECT) }
