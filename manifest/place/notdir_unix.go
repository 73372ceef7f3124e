//go:build !windows

package place

import (
	"errors"
	"syscall"
)

// IsNotDir reports whether a path goes through something that is no folder.
func IsNotDir(err error) bool { return errors.Is(err, syscall.ENOTDIR) }
