package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"

	"ferry/chunking/ondisk"
)

var (
	// ErrFormat says that the file is no qcow2 image.
	ErrFormat = errors.New("qcow2: not a qcow2 image")
	// ErrUnsupported says that the file may be right but asks for what this package
	// does not do.
	ErrUnsupported = errors.New("qcow2: unsupported")
	// ErrInvalid says that the file is malformed.
	ErrInvalid = errors.New("qcow2: malformed")
)

func invalid(format string, args ...any) error {
	return ondisk.Errorf("qcow2", ErrInvalid, format, args...)
}

func unsupported(format string, args ...any) error {
	return ondisk.Errorf("qcow2", ErrUnsupported, format, args...)
}

var be = binary.BigEndian

// Magic is what an image begins with.
const Magic = "QFI\xfb"

const (
	sector      = 512
	headerSize  = 72  // of version 2
	headerMax   = 104 // of version 3, as far as it is read
	maxDisk     = 1 << 56
	maxTables   = 1 << 20 // of level 2
	maxClusters = 1 << 28 // of the file
	maxBacking  = 1023    // bytes of the backing file's name
	offsetMask  = 1<<56 - 1<<9
)

// Bits of the incompatible features. "Header".
const (
	featureDirty       = 1 << 0 // reference counts may be wrong
	featureCorrupt     = 1 << 1
	featureData        = 1 << 2 // the data are in another file
	featureCompression = 1 << 3 // compressed clusters, if any, are not of zlib
	featureExtended    = 1 << 4 // entries of level 2 have 128 bits
)

// header is what the header says.
type header struct {
	version  uint32
	cluster  int64 // bytes
	diskSize int64
	level1   int64 // where the table of level 1 is
	entries  int64 // of that
	refs     int64 // where the table of reference counts is
	refsSize int64 // bytes of that
	features uint64
}

func readHeader(r io.ReaderAt, size int64) (h header, err error) {
	b := make([]byte, headerMax)
	if size < headerSize {
		return h, ErrFormat
	}
	if err := ondisk.ReadFull(r, b[:min(size, headerMax)], 0); err != nil {
		return h, fmt.Errorf("qcow2: header: %w", err)
	}
	if string(b[:4]) != Magic {
		return h, ErrFormat
	}
	h.version = be.Uint32(b[4:])
	bits, diskSize := be.Uint32(b[20:]), be.Uint64(b[24:])
	switch {
	case h.version != 2 && h.version != 3:
		return h, unsupported("version %d", h.version)
	case h.version == 3 && (size < headerMax || be.Uint32(b[100:]) < headerMax):
		return h, invalid("header of %d bytes", be.Uint32(b[100:]))
	case bits < 9 || bits > 21:
		return h, invalid("clusters of 2^%d bytes", bits)
	case diskSize > maxDisk:
		return h, unsupported("virtual disk of %d bytes", diskSize)
	case diskSize%sector != 0:
		return h, invalid("virtual disk of %d bytes", diskSize)
	case be.Uint64(b[8:]) != 0:
		return h, unsupported("its backing file %s", backing(r, size, be.Uint64(b[8:]), be.Uint32(b[16:])))
	case be.Uint32(b[32:]) != 0:
		return h, unsupported("encryption method %d", be.Uint32(b[32:]))
	}
	if h.version == 3 {
		h.features = be.Uint64(b[72:])
	}
	if more := h.features &^ (featureDirty | featureCorrupt | featureCompression); more != 0 {
		return h, unsupported("%s", featureName(more))
	}
	h.cluster, h.diskSize = 1<<bits, int64(diskSize)
	h.entries = (h.diskSize + h.reach() - 1) / h.reach()
	level1, refs := be.Uint64(b[40:]), be.Uint64(b[48:])
	switch entries := int64(be.Uint32(b[36:])); {
	case size>>bits > maxClusters:
		return h, unsupported("a file of %d bytes in clusters of %d", size, h.cluster)
	case h.entries > maxTables:
		return h, unsupported("a disk of %d bytes in clusters of %d", h.diskSize, h.cluster)
	case entries < h.entries:
		return h, invalid("table of level 1: %d entries, want %d", entries, h.entries)
	case h.entries > 0 && !h.within(level1, 8*h.entries, size):
		return h, invalid("table of level 1: at %d, but the file has %d bytes", level1, size)
	}
	h.refsSize = int64(be.Uint32(b[56:])) << bits
	if !h.within(refs, h.refsSize, size) {
		return h, invalid("table of reference counts: at %d, but the file has %d bytes", refs, size)
	}
	h.level1, h.refs = int64(level1), int64(refs)
	return h, nil
}

// reach is how many bytes of the disk a table of level 2 tells the places of.
func (h *header) reach() int64 { return h.cluster / 8 * h.cluster }

// within reports whether n bytes at a cluster's begin are within the file, and behind the
// header.
func (h *header) within(off uint64, n, size int64) bool {
	return off >= uint64(h.cluster) && off%uint64(h.cluster) == 0 && n <= size && off <= uint64(size-n)
}

// backing returns the backing file's name, quoted.
func backing(r io.ReaderAt, size int64, off uint64, n uint32) string {
	name := make([]byte, min(n, maxBacking))
	if off > uint64(size) || ondisk.ReadFull(r, name, int64(off)) != nil {
		return "(which the header does not name)"
	}
	return strconv.Quote(string(name))
}

func featureName(features uint64) string {
	switch {
	case features&featureData != 0:
		return "data in another file"
	case features&featureExtended != 0:
		return "extended entries of level 2"
	}
	return fmt.Sprintf("incompatible features %#x", features)
}
