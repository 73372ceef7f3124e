package vhdx

import (
	"errors"
	"fmt"
	"io"
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

// fault is an error that tells what is wrong and is of a kind.
type fault struct {
	kind error
	text string
}

func (f *fault) Error() string { return "vhdx: " + f.text }

func (f *fault) Unwrap() error { return f.kind }

func invalid(format string, args ...any) error {
	return &fault{ErrInvalid, fmt.Sprintf(format, args...)}
}

func unsupported(format string, args ...any) error {
	return &fault{ErrUnsupported, fmt.Sprintf(format, args...)}
}

// readFull fills p from off on.
func readFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
