//go:build !windows

package delta

import (
	"errors"
	"syscall"
)

// isNotDir reports whether a path goes through something that is no folder.
func isNotDir(err error) bool { return errors.Is(err, syscall.ENOTDIR) }
