package ext4

import (
	"errors"
	"fmt"
)

var (
	// ErrFormat says that the bytes are no ext file system: there is no magic.
	ErrFormat = errors.New("not an ext file system")
	// ErrUnsupported says that the file system has a feature that is not read.
	ErrUnsupported = errors.New("unsupported file system")
	// ErrInvalid says that the file system is malformed, or larger than a limit.
	ErrInvalid = errors.New("malformed file system")
)

// invalidError is an ErrInvalid with its place.
type invalidError struct {
	what string
	off  int64 // in the partition
}

func (e *invalidError) Error() string {
	return fmt.Sprintf("ext4: %s at %d: %v", e.what, e.off, ErrInvalid)
}

func (e *invalidError) Unwrap() error { return ErrInvalid }

func invalid(off int64, format string, args ...any) error {
	return &invalidError{fmt.Sprintf(format, args...), off}
}

func unsupported(format string, args ...any) error {
	return fmt.Errorf("ext4: %s: %w", fmt.Sprintf(format, args...), ErrUnsupported)
}
