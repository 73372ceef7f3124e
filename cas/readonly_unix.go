//go:build !windows

package cas

import (
	"errors"
	"syscall"
)

// isReadOnly reports whether err says that a file system is mounted read-only.
func isReadOnly(err error) bool { return errors.Is(err, syscall.EROFS) }
