package vhdx

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"io"
	"strings"

	"ferry/chunking/ondisk"
)

const (
	kib = 1 << 10
	mib = 1 << 20

	// maxFile bounds the image file, in bytes: twice the largest virtual disk.
	maxFile = 2 * maxDisk

	signature  = "vhdxfile" // 2.2.1
	headerSize = 4 * kib    // 2.2.2
	tableSize  = 64 * kib   // 2.2.3
)

// Offsets of the header section's parts. 2.2.
var (
	headerOffs = [2]int64{64 * kib, 128 * kib}
	tableOffs  = [2]int64{192 * kib, 256 * kib}
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	le         = binary.LittleEndian
)

// checksum returns the CRC-32C of a structure whose own checksum, at byte 4, counts
// as zero.
func checksum(b []byte) uint32 {
	sum := crc32.Update(0, castagnoli, b[:4])
	sum = crc32.Update(sum, castagnoli, make([]byte, 4))
	return crc32.Update(sum, castagnoli, b[8:])
}

// guid is a GUID as it stands in a file: its first three fields are little-endian.
type guid [16]byte

func (g guid) String() string { return ondisk.GUID(g[:]) }

// mustGUID returns the GUID of a text in this package.
func mustGUID(text string) (g guid) {
	b, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err != nil || len(b) != len(g) {
		panic("vhdx: internal error: GUID " + text)
	}
	le.PutUint32(g[:], binary.BigEndian.Uint32(b))
	le.PutUint16(g[4:], binary.BigEndian.Uint16(b[4:]))
	le.PutUint16(g[6:], binary.BigEndian.Uint16(b[6:]))
	copy(g[8:], b[8:])
	return g
}

// readCreator reads the file identifier.
func readCreator(r io.ReaderAt, size int64) (string, error) {
	var b [8 + 512]byte
	if size < int64(len(b)) {
		return "", ErrFormat
	}
	if err := ondisk.ReadFull(r, b[:], 0); err != nil {
		return "", fmt.Errorf("vhdx: file identifier: %w", err)
	}
	if string(b[:8]) != signature {
		return "", ErrFormat
	}
	if size < mib {
		return "", invalid("the file has %d bytes, less than its header section", size)
	}
	return ondisk.UTF16(b[8:], le), nil
}

// header says where the log is, and whether there is something in it.
type header struct {
	raw             []byte
	sequence        uint64
	logID           guid
	logVersion      uint16
	version         uint16
	logOff, logSize int64 // a range of the file
}

// readHeader reads header i. A problem says why it is not valid.
func readHeader(r io.ReaderAt, i int) (h header, problem string, err error) {
	b := make([]byte, headerSize)
	if err := ondisk.ReadFull(r, b, headerOffs[i]); err != nil {
		return h, "", fmt.Errorf("vhdx: header %d: %w", i+1, err)
	}
	if string(b[:4]) != "head" {
		return h, "wrong signature", nil
	}
	if le.Uint32(b[4:]) != checksum(b) {
		return h, "wrong checksum", nil
	}
	return header{
		raw:        b,
		sequence:   le.Uint64(b[8:]),
		logID:      guid(b[48:64]),
		logVersion: le.Uint16(b[64:]),
		version:    le.Uint16(b[66:]),
		logSize:    int64(le.Uint32(b[68:])),
		logOff:     int64(min(le.Uint64(b[72:]), 1<<62)),
	}, "", nil
}

// currentHeader returns the header that counts, and that its fields are right.
func currentHeader(f *file) (header, error) {
	var current *header
	var problems []string
	for i := range headerOffs {
		h, problem, err := readHeader(f, i)
		switch {
		case err != nil:
			return h, err
		case problem != "":
			problems = append(problems, fmt.Sprintf("header %d: %s", i+1, problem))
		case current == nil || h.sequence > current.sequence:
			current = &h
		case h.sequence == current.sequence && !bytes.Equal(h.raw, current.raw):
			return h, invalid("both headers have the sequence number %d", h.sequence)
		}
	}
	if current == nil {
		return header{}, invalid("%s", strings.Join(problems, ", "))
	}
	if current.version != 1 {
		return header{}, unsupported("version %d", current.version)
	}
	if current.logSize > 0 || current.logID != (guid{}) {
		if problem := rangeProblem(f, current.logOff, current.logSize); problem != "" {
			return header{}, invalid("log: %s", problem)
		}
	}
	return *current, nil
}

// rangeProblem says why a range cannot be a region of the file; it is empty if it can.
func rangeProblem(f *file, off, size int64) string {
	switch {
	case off < mib || off%mib != 0:
		return fmt.Sprintf("at the offset %d", off)
	case size <= 0 || size%mib != 0:
		return fmt.Sprintf("%d bytes long", size)
	case off > f.size || size > f.size-off:
		return fmt.Sprintf("%d bytes at %d, but the file has %d", size, off, f.size)
	}
	return ""
}
