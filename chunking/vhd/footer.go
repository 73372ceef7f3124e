package vhd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"ferry/chunking/ondisk"
)

var (
	// ErrFormat says that the file is no VHD file.
	ErrFormat = errors.New("vhd: not a VHD file")
	// ErrUnsupported says that the file may be right but asks for what this package
	// does not do.
	ErrUnsupported = errors.New("vhd: unsupported")
	// ErrInvalid says that the file is malformed.
	ErrInvalid = errors.New("vhd: malformed")
)

// ParentError says that the image is a differencing one: what it does not hold is in
// its parent. [OpenDifferencing] opens it.
type ParentError struct {
	// Paths are where the parent may be: relative to the image, absolute, its name
	// only. They are Windows paths.
	Paths []string
	ID    string // the GUID of the parent
}

func (e *ParentError) Error() string {
	return fmt.Sprintf("vhd: a differencing image, its parent is one of %q", e.Paths)
}

func invalid(format string, args ...any) error {
	return ondisk.Errorf("vhd", ErrInvalid, format, args...)
}

func unsupported(format string, args ...any) error {
	return ondisk.Errorf("vhd", ErrUnsupported, format, args...)
}

var be = binary.BigEndian

// Types of an image. "Hard Disk Footer Format", Disk Type.
const (
	typeFixed        = 2
	typeDynamic      = 3
	typeDifferencing = 4
)

const (
	sector     = 512
	footerSize = 512
	headerSize = 1024
	maxDisk    = 1 << 41 // 2 TiB: a table entry is a sector of 32 bits
	minBlock   = 64 << 10
	maxBlock   = 256 << 20
	locators   = 8         // in a header
	maxLocator = 128 << 10 // bytes of a path
)

// checksum returns the one's complement of the sum of all bytes but those of the
// checksum itself, which is at a place.
func checksum(b []byte, at int) uint32 {
	sum := uint32(0)
	for i, c := range b {
		if i < at || i >= at+4 {
			sum += uint32(c)
		}
	}
	return ^sum
}

// guidText returns a GUID, all fields of which are big-endian here.
func guidText(b []byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// footer is what a footer, or its copy, says. "Hard Disk Footer Format".
type footer struct {
	raw      []byte
	header   uint64 // where the dynamic header is
	creator  string
	diskSize int64
	kind     uint32
	id       string
}

// readFooter reads a footer. A problem says why it is not valid.
func readFooter(r io.ReaderAt, at int64) (f footer, problem string, err error) {
	b := make([]byte, footerSize)
	if err := ondisk.ReadFull(r, b, at); err != nil {
		return f, "", fmt.Errorf("vhd: footer at %d: %w", at, err)
	}
	if string(b[:8]) != "conectix" {
		return f, "no signature", nil
	}
	if be.Uint32(b[64:]) != checksum(b, 64) {
		return f, "wrong checksum", nil
	}
	return footer{
		raw:      b,
		header:   be.Uint64(b[16:]),
		creator:  strings.TrimRight(string(b[28:32]), " \x00"),
		diskSize: int64(min(be.Uint64(b[48:]), 1<<62)),
		kind:     be.Uint32(b[60:]),
		id:       guidText(b[68:84]),
	}, "", nil
}

// header is the header of a dynamic or differencing image. "Dynamic Disk Header
// Format".
type header struct {
	at        int64
	table     int64 // where the block allocation table is
	entries   int64
	blockSize int64
	parent    *ParentError
}

func readHeader(r io.ReaderAt, size int64, f footer) (h header, err error) {
	if f.header%sector != 0 || f.header < footerSize || f.header > uint64(size) || size-int64(f.header) < headerSize {
		return h, invalid("header: at %d, but the file has %d bytes", f.header, size)
	}
	h.at = int64(f.header)
	b := make([]byte, headerSize)
	if err := ondisk.ReadFull(r, b, h.at); err != nil {
		return h, fmt.Errorf("vhd: header: %w", err)
	}
	switch {
	case string(b[:8]) != "cxsparse":
		return h, invalid("header: no signature")
	case be.Uint32(b[36:]) != checksum(b, 36):
		return h, invalid("header: wrong checksum")
	case be.Uint32(b[24:])>>16 != 1:
		return h, unsupported("header version %#x", be.Uint32(b[24:]))
	}
	h.table = int64(min(be.Uint64(b[16:]), 1<<62))
	h.entries = int64(be.Uint32(b[28:]))
	h.blockSize = int64(be.Uint32(b[32:]))
	switch {
	case h.blockSize < minBlock || h.blockSize > maxBlock || h.blockSize&(h.blockSize-1) != 0:
		return h, invalid("header: block size %d", h.blockSize)
	case h.table%sector != 0 || h.table > size || 4*h.entries > size-h.table:
		return h, invalid("block allocation table: %d entries at %d, but the file has %d bytes", h.entries, h.table, size)
	case h.table < footerSize || h.table < h.at+headerSize && h.at < h.table+4*h.entries:
		return h, invalid("block allocation table: it overlaps the header")
	case h.entries < (f.diskSize+h.blockSize-1)/h.blockSize:
		return h, invalid("block allocation table: %d entries, too few for %d bytes", h.entries, f.diskSize)
	}
	if f.kind == typeDifferencing {
		h.parent, err = readParent(r, size, b)
	}
	return h, err
}

// readParent reads where the parent is: its name, and up to two locators whose
// paths are UTF-16, little-endian unlike all else.
func readParent(r io.ReaderAt, size int64, header []byte) (*ParentError, error) {
	p := &ParentError{ID: guidText(header[40:56])}
	var relative, absolute, name []string
	if s := ondisk.UTF16(header[64:576], be); s != "" {
		name = []string{s}
	}
	for i := range locators {
		b := header[576+24*i:]
		code := string(b[:4])
		if code != "W2ru" && code != "W2ku" {
			continue
		}
		n, off := int64(be.Uint32(b[8:])), int64(min(be.Uint64(b[16:]), 1<<62))
		if n > maxLocator || off > size || n > size-off {
			return nil, invalid("parent locator %d: %d bytes at %d", i+1, n, off)
		}
		path := make([]byte, n)
		if err := ondisk.ReadFull(r, path, off); err != nil {
			return nil, fmt.Errorf("vhd: parent locator %d: %w", i+1, err)
		}
		if s := ondisk.UTF16(path, binary.LittleEndian); s == "" {
			continue
		} else if code == "W2ru" {
			relative = append(relative, s)
		} else {
			absolute = append(absolute, s)
		}
	}
	p.Paths = append(append(relative, absolute...), name...)
	return p, nil
}
