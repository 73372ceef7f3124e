package tree

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"hash/crc32"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// zipEntry is an entry of a zip that buildZip writes, with all the lies that a
// test wants.
type zipEntry struct {
	name       string
	data       []byte // plain
	method     uint16 // 0 stores, 8 deflates, 93 is zstd; others write data as it is
	flags      uint16
	creator    uint16 // high byte: 0 is DOS, 3 is Unix
	attrs      uint32 // external attributes
	extra      []byte // in the central directory, and in the local header
	date, time uint16
	descriptor bool // sizes and CRC come behind the data
	zip64      bool // sizes and offset are in the zip64 extra field

	lie func(h *zipSizes) // changes what the headers say
}

// zipSizes is what headers say of an entry.
type zipSizes struct {
	crc          uint32
	packed, size uint64
	offset       uint64
	name         string // in the local header
}

const unixCreator, macCreator = 3<<8 | 30, 19<<8 | 21

// buildZip writes a zip, without archive/zip (APPNOTE 4.3).
func buildZip(entries ...zipEntry) []byte {
	var out, central []byte
	for _, e := range entries {
		packed := packZip(e.method, e.data)
		h := zipSizes{crc32.ChecksumIEEE(e.data), uint64(len(packed)), uint64(len(e.data)), uint64(len(out)), e.name}
		if e.lie != nil {
			e.lie(&h)
		}
		if e.descriptor {
			e.flags |= 8
		}
		out = append(out, e.local(h)...)
		out = append(out, packed...)
		if e.descriptor {
			out = append(out, e.dataDescriptor(h)...)
		}
		central = append(central, e.central(h)...)
	}
	end := uint32(len(out))
	out = append(out, central...)
	out = le(out, uint32(0x06054b50), uint16(0), uint16(0), uint16(len(entries)), uint16(len(entries)), uint32(len(central)), end, uint16(0))
	return out
}

func packZip(method uint16, data []byte) []byte {
	switch method {
	case 8:
		var b bytes.Buffer
		w, _ := flate.NewWriter(&b, 6)
		w.Write(data)
		w.Close()
		return b.Bytes()
	case methodZstd:
		enc, _ := zstd.NewWriter(nil)
		defer enc.Close()
		return enc.EncodeAll(data, nil)
	}
	return data
}

// le appends numbers in little-endian order.
func le(b []byte, fields ...any) []byte {
	for _, f := range fields {
		b, _ = binary.Append(b, binary.LittleEndian, f)
	}
	return b
}

func (e zipEntry) local(h zipSizes) []byte {
	crc, packed, size, extra := h.crc, uint32(h.packed), uint32(h.size), e.extra
	if e.descriptor {
		crc, packed, size = 0, 0, 0
	}
	if e.zip64 {
		packed, size = 0xffffffff, 0xffffffff
		extra = append(le(slices.Clone(extra), uint16(1), uint16(16)), le(nil, h.size, h.packed)...)
	}
	b := le(nil, uint32(0x04034b50), uint16(20), e.flags, e.method, e.time, e.date, crc, packed, size, uint16(len(h.name)), uint16(len(extra)))
	return append(append(b, h.name...), extra...)
}

func (e zipEntry) dataDescriptor(h zipSizes) []byte {
	b := le(nil, uint32(0x08074b50), h.crc)
	if e.zip64 {
		return le(b, h.packed, h.size)
	}
	return le(b, uint32(h.packed), uint32(h.size))
}

func (e zipEntry) central(h zipSizes) []byte {
	packed, size, offset, extra := uint32(h.packed), uint32(h.size), uint32(h.offset), e.extra
	if e.zip64 {
		packed, size, offset = 0xffffffff, 0xffffffff, 0xffffffff
		extra = append(le(slices.Clone(extra), uint16(1), uint16(24)), le(nil, h.size, h.packed, h.offset)...)
	}
	b := le(nil, uint32(0x02014b50), e.creator, uint16(20), e.flags, e.method, e.time, e.date, h.crc, packed, size,
		uint16(len(e.name)), uint16(len(extra)), uint16(0), uint16(0), uint16(0), e.attrs, offset)
	return append(append(b, e.name...), extra...)
}

// unixAttrs returns external attributes with a Unix mode.
func unixAttrs(mode uint32) uint32 { return mode << 16 }

// unicodePathExtra is the Unicode path extra field (APPNOTE 4.6.9) for an entry
// whose header has the given name.
func unicodePathExtra(header, name string) []byte {
	b := le(nil, uint16(extraUnicodePath), uint16(5+len(name)), byte(1), crc32.ChecksumIEEE([]byte(header)))
	return append(b, name...)
}
