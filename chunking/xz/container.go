package xz

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"
)

// The container (The .xz File Format 1.2.1): a header, blocks, an index of their sizes,
// a footer.

const (
	magic       = "\xfd7zXZ\x00"
	footerMagic = "YZ"
	headerSize  = 12 // of the stream; its footer has as many bytes
	maxHeader   = 1024
	filterLZMA2 = 0x21
	// maxDict bounds the plain bytes that are kept. What says that it needs more is taken
	// all the same if it does not.
	maxDict = 64 << 20
)

// Flags of a block's header.
const (
	flagFilters  = 0x03 // their number, less one
	flagReserved = 0x3c
	flagCoded    = 0x40 // the size of its coded bytes follows
	flagPlain    = 0x80 // the size of its plain bytes follows
)

// Checks of a block's plain bytes.
const (
	checkNone   = 0
	checkCRC32  = 1
	checkCRC64  = 4
	checkSHA256 = 10
)

var crc64Table = crc64.MakeTable(crc64.ECMA)

// newCheck returns the hash of a check, nil for none.
func newCheck(id byte) (hash.Hash, error) {
	switch id {
	case checkNone:
		return nil, nil
	case checkCRC32:
		return crc32.NewIEEE(), nil
	case checkCRC64:
		return crc64.New(crc64Table), nil
	case checkSHA256:
		return sha256.New(), nil
	}
	return nil, fmt.Errorf("%w: check %d", ErrCostly, id)
}

// checkSum returns the sum as it stands behind a block.
func checkSum(h hash.Hash) []byte {
	if h == nil {
		return nil
	}
	sum := h.Sum(nil)
	if len(sum) <= 8 { // Go's CRCs are big-endian
		for i := range len(sum) / 2 {
			sum[i], sum[len(sum)-1-i] = sum[len(sum)-1-i], sum[i]
		}
	}
	return sum
}

// sealed appends the CRC-32 of what is behind the first n bytes.
func sealed(b []byte, n int) []byte {
	return binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b[n:]))
}

// streamHeader returns the header of a stream.
func streamHeader(check byte) []byte {
	return sealed([]byte{magic[0], magic[1], magic[2], magic[3], magic[4], magic[5], 0, check}, len(magic))
}

// streamFooter returns the footer of a stream whose index has so many bytes.
func streamFooter(check byte, index int64) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(index/4-1))
	b = append(b, 0, check)
	return append(binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(b)), append(b, footerMagic...)...)
}

// blockHeader is what the header of a block says.
type blockHeader struct {
	dict  int64 // bytes of the dictionary
	coded int64 // bytes, -1 if unknown
	plain int64 // likewise
}

var errHeader = errors.New("a block's header")

// parseBlockHeader reads a header of the size that its first byte says.
func parseBlockHeader(b []byte) (h blockHeader, err error) {
	body := b[:len(b)-4]
	if crc32.ChecksumIEEE(body) != binary.LittleEndian.Uint32(b[len(b)-4:]) {
		return h, errHeader
	}
	flags := body[1]
	body = body[2:]
	if flags&flagReserved != 0 || flags&flagFilters != 0 {
		return h, fmt.Errorf("%w: filters besides LZMA2", ErrCostly)
	}
	number := func() int64 {
		v, n := binary.Uvarint(body)
		if n <= 0 || v > 1<<63-1 {
			err = errHeader
			return 0
		}
		body = body[n:]
		return int64(v)
	}
	h.coded, h.plain = -1, -1
	if flags&flagCoded != 0 {
		h.coded = number()
	}
	if flags&flagPlain != 0 {
		h.plain = number()
	}
	filter, size := number(), number()
	switch {
	case err != nil:
		return h, err
	case filter != filterLZMA2:
		return h, fmt.Errorf("%w: filters besides LZMA2", ErrCostly)
	case size != 1 || len(body) < 1 || body[0] > 40:
		return h, errHeader
	}
	h.dict = dictSize(body[0])
	if len(bytes.Trim(body[1:], "\x00")) > 0 {
		return h, errHeader
	}
	return h, nil
}

// dictSize returns the size that a byte of LZMA2's properties says.
func dictSize(b byte) int64 {
	if b == 40 {
		return 1<<32 - 1
	}
	return int64(2|b&1) << (b/2 + 11)
}

// index gathers the sizes of blocks. To compare, it needs only their hash.
type index struct {
	blocks  uint64
	size    int64 // bytes of records
	sum     uint64
	records []byte // if they are kept
	keep    bool
}

// add notes a block of so many bytes: with its header and check but without padding; and
// of so many plain bytes.
func (x *index) add(unpadded, plain int64) {
	b := binary.AppendUvarint(binary.AppendUvarint(nil, uint64(unpadded)), uint64(plain))
	x.blocks++
	x.size += int64(len(b))
	x.sum = crc64.Update(x.sum, crc64Table, b)
	if x.keep {
		x.records = append(x.records, b...)
	}
}

// head returns what is before the records.
func (x *index) head() []byte { return binary.AppendUvarint([]byte{0}, x.blocks) }

// padding returns how many zeros follow size bytes, up to a multiple of four.
func padding(size int64) int { return int(-size & 3) }

// bytes returns the index of records that were kept.
func (x *index) bytes() []byte {
	b := append(x.head(), x.records...)
	return sealed(append(b, make([]byte, padding(int64(len(b))))...), 0)
}

// counted counts the bytes that were read.
type counted struct {
	r io.Reader
	n int64
	b [maxHeader]byte
}

// take returns the next n ≤ maxHeader bytes, valid until the next call.
func (c *counted) take(n int) ([]byte, error) {
	return c.b[:n], c.fill(c.b[:n])
}

// fill reads all of b.
func (c *counted) fill(b []byte) error {
	n, err := io.ReadFull(c.r, b)
	c.n += int64(n)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %w", ErrStream, io.ErrUnexpectedEOF)
	}
	return err
}
