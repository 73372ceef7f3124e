//go:build !windows

package bundle

import (
	"errors"
	"syscall"
)

// isNotDir reports whether a path goes through something that is no folder.
func isNotDir(err error) bool { return errors.Is(err, syscall.ENOTDIR) }
