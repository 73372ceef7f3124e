package delta

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"ferry/chunking/lz4"
	"ferry/delta/codec"
)

// A Linux kernel is packed, so that nothing of it resembles an older one. Where it is packed
// by LZ4, both are unpacked, the patch is of what they hold, and the kernel is packed again.

// unpacking is where the packed part of a kernel is, and how it is packed.
type unpacking struct {
	at     int // of the LZ4 frame
	packed int // bytes of the frame
	plain  int // bytes that it unpacks to
	how    []byte
}

// Fields of the header of a Linux kernel for x86. Linux, Documentation/arch/x86/boot.rst, "The
// Linux/x86 Boot Protocol".
const (
	kernelSectors    = 0x1f1 // u8: of 512 bytes each, behind the first, that are not packed
	kernelFlag       = 0x1fe // 55 aa
	kernelMagic      = 0x202 // "HdrS"
	kernelVersion    = 0x206 // u16
	kernelPayload    = 0x248 // u32: where the packed part is, behind the sectors
	kernelPayloadLen = 0x24c // u32
	kernelHeader     = 0x250

	kernelLeast = 0x208 // version 2.08 has the payload
)

// isPacked reports whether something that begins with head may be unpacked. Coding and
// decoding it takes packedMemory times the memory that its size tells.
func isPacked(head []byte) bool {
	return len(head) >= kernelHeader && head[kernelFlag] == 0x55 && head[kernelFlag+1] == 0xaa &&
		string(head[kernelMagic:kernelMagic+4]) == "HdrS" && binary.LittleEndian.Uint16(head[kernelVersion:]) >= kernelLeast
}

// packedMemory is how many times the bytes of a packed target and base it takes to code them.
const packedMemory = 7

// packedPart returns where the packed part of a kernel is.
func packedPart(b []byte) (at, end int, ok bool) {
	if !isPacked(b) {
		return 0, 0, false
	}
	sectors := int64(b[kernelSectors])
	if sectors == 0 {
		sectors = 4
	}
	from := (sectors+1)*512 + int64(binary.LittleEndian.Uint32(b[kernelPayload:]))
	to := from + int64(binary.LittleEndian.Uint32(b[kernelPayloadLen:]))
	if from > to || to > int64(len(b)) || !bytes.HasPrefix(b[from:to], []byte(lz4.Magic)) {
		return 0, 0, false
	}
	return int(from), int(to), true
}

// unpackedSizes reports whether so many bytes are within bounds: plain ones of both sides,
// unpacked, and packed ones.
func unpackedSizes(old, plain, base, size int) bool {
	return old <= codec.MaxSize && plain <= codec.MaxSize && old+plain <= 4*(base+size)
}

// encodeWindow codes a window: by what target and base hold, unpacked, where that is to be had,
// which takes time to pack again; else as it is.
func encodeWindow(target, base []byte, effort codec.Effort) ([]byte, codec.Kind) {
	if coded := encodeUnpacked(nil, target, base, effort); len(coded) > 0 && len(coded) < len(target)/2 {
		return coded, codec.Unpacked
	}
	return codec.Encode(nil, target, base, effort)
}

// decodeWindow decodes what encodeWindow gave.
func decodeWindow(coded, base []byte, kind codec.Kind, size int) ([]byte, error) {
	if kind == codec.Unpacked {
		return decodeUnpacked(nil, coded, base, size)
	}
	return codec.Decode(nil, coded, base, kind, size)
}

// encodeUnpacked appends the coded form of target as a patch of what it and base hold,
// unpacked; nothing where that is not to be had.
func encodeUnpacked(dst, target, base []byte, effort codec.Effort) []byte {
	at, end, ok := packedPart(base)
	first, last, both := packedPart(target)
	if !ok || !both {
		return dst
	}
	unpacked := &limitedBuffer{left: codec.MaxSize}
	res, err := lz4.Unpack(unpacked, bytes.NewReader(base[at:end]))
	if err != nil {
		return dst
	}
	from := unpacking{at: at, packed: int(res.Coded), plain: int(res.Plain)}
	old := from.join(unpacked.b, base)
	unpacked = &limitedBuffer{left: codec.MaxSize}
	if res, err = lz4.Decode(unpacked, bytes.NewReader(target[first:last]), io.Discard); err != nil {
		return dst
	}
	to := unpacking{first, int(res.Coded), int(res.Plain), res.Reconstruction}
	plain := to.join(unpacked.b, target)
	if !unpackedSizes(len(old), len(plain), len(base), len(target)) {
		return dst
	}
	inner, kind := codec.Encode(nil, plain, old, effort)
	for _, n := range []int{from.at, from.packed, from.plain, to.at, to.packed, to.plain, len(to.how)} {
		dst = binary.AppendUvarint(dst, uint64(n))
	}
	dst = append(append(dst, to.how...), byte(kind))
	return append(dst, inner...)
}

// join appends what is around the packed part of b to what that holds: in this order, a
// program is seen to be one.
func (u unpacking) join(plain, b []byte) []byte {
	return append(append(plain, b[:u.at]...), b[u.at+u.packed:]...)
}

// decodeUnpacked appends the size bytes that encodeUnpacked had. Errors match ErrInvalid.
func decodeUnpacked(dst, coded, base []byte, size int) ([]byte, error) {
	r := &planReader{b: coded, what: "a patch of what is unpacked"}
	from := r.unpacking(len(base))
	to := r.unpacking(size)
	to.how = r.bytes(int(r.upTo(maxHow)))
	kind := codec.Kind(r.byte())
	oldSize, plainSize := len(base)-from.packed+from.plain, size-to.packed+to.plain
	if r.err == nil && (kind == codec.Unpacked || !unpackedSizes(oldSize, plainSize, len(base), size)) {
		r.fail("unpacked parts too large, or in one another")
	}
	if r.err != nil {
		return nil, r.err
	}
	unpacked := &limitedBuffer{b: make([]byte, 0, oldSize), left: from.plain}
	res, err := lz4.Unpack(unpacked, bytes.NewReader(base[from.at:from.at+from.packed]))
	if err != nil || res.Coded != int64(from.packed) || res.Plain != int64(from.plain) {
		return nil, fmt.Errorf("%w: the base is not packed as it should be: %v", ErrInvalid, err)
	}
	plain, err := codec.Decode(nil, r.b, from.join(unpacked.b, base), kind, plainSize)
	if err != nil {
		return nil, err
	}
	around := plain[to.plain:]
	dst = append(slices.Grow(dst, size), around[:to.at]...)
	again := &limitedBuffer{b: dst, left: to.packed}
	if err := lz4.Encode(again, bytes.NewBuffer(plain[:to.plain]), to.how); err != nil || again.left > 0 {
		return nil, fmt.Errorf("%w: packed otherwise: %v", ErrInvalid, err)
	}
	return append(again.b, around[to.at:]...), nil
}

// maxHow bounds what says how something is packed, in bytes.
const maxHow = 16

// unpacking reads where the packed part of size bytes is.
func (d *planReader) unpacking(size int) unpacking {
	u := unpacking{at: int(d.upTo(uint64(size)))}
	u.packed = int(d.upTo(uint64(size - u.at)))
	u.plain = int(d.upTo(codec.MaxSize))
	return u
}

// limitedBuffer takes no more than left bytes.
type limitedBuffer struct {
	b    []byte
	left int
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if len(p) > b.left {
		return 0, errors.New("more bytes than there should be")
	}
	b.left -= len(p)
	b.b = append(b.b, p...)
	return len(p), nil
}
