// Package ondisk is what the readers of on-disk formats share: reads that are whole or
// fail, zeros, errors of a kind, and the text of names and identifiers.
package ondisk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"unicode/utf16"
)

// ReadFull fills p from off on. It returns [io.ErrUnexpectedEOF] if there is less, and
// else the error of r.
func ReadFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

var zeros [64 << 10]byte

// IsZero reports whether b is all zeros.
func IsZero(b []byte) bool {
	for len(b) > 0 {
		n := min(len(b), len(zeros))
		if !bytes.Equal(b[:n], zeros[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}

// fault is an error that tells what is wrong and is of a kind.
type fault struct {
	kind error
	text string
}

func (f *fault) Error() string { return f.text }

func (f *fault) Unwrap() error { return f.kind }

// Errorf returns an error that wraps kind and tells what is wrong in a format, by its
// name, instead of what kind says.
func Errorf(name string, kind error, format string, args ...any) error {
	return &fault{kind, name + ": " + fmt.Sprintf(format, args...)}
}

// GUID returns the text of a GUID of 16 bytes, the first three fields of which are
// little-endian. UEFI 2.10, appendix A.
func GUID(b []byte) string {
	le := binary.LittleEndian
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(b), le.Uint16(b[4:]), le.Uint16(b[6:]), b[8:10], b[10:16])
}

// UTF16 returns a UTF-16 string, up to its first NUL.
func UTF16(b []byte, order binary.ByteOrder) string {
	var units []uint16
	for ; len(b) >= 2; b = b[2:] {
		u := order.Uint16(b)
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}
