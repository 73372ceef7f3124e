package vhdx

import (
	"errors"
	"fmt"

	"ferry/chunking/ondisk"
)

var (
	// ErrFormat says that the file is no VHDX file.
	ErrFormat = errors.New("vhdx: not a VHDX file")
	// ErrUnsupported says that the file may be right but asks for what this package
	// does not do.
	ErrUnsupported = errors.New("vhdx: unsupported")
	// ErrInvalid says that the file is malformed.
	ErrInvalid = errors.New("vhdx: malformed")
)

// ParentError says that the image is a differencing one: what it does not hold is in
// its parent. [OpenDifferencing] opens it.
type ParentError struct {
	// Paths are where the parent may be, in the order in which they should be tried
	// (2.6.2.6.3): relative to the image, by volume, absolute. They are Windows paths.
	Paths []string
	ID    string // the GUID that the parent's contents had (DataWriteGuid)
}

func (e *ParentError) Error() string {
	return fmt.Sprintf("vhdx: a differencing image, its parent is one of %q", e.Paths)
}

func invalid(format string, args ...any) error {
	return ondisk.Errorf("vhdx", ErrInvalid, format, args...)
}

func unsupported(format string, args ...any) error {
	return ondisk.Errorf("vhdx", ErrUnsupported, format, args...)
}
