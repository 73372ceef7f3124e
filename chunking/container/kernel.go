package container

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"

	"ferry/chunking/lz4"
)

// Fields of the header of a Linux kernel for x86, and the version of it that has all of them.
// Linux, Documentation/arch/x86/boot.rst, "The Linux/x86 Boot Protocol".
const (
	kernelSectors    = 0x1f1 // u8: of 512 bytes each, behind the first, that are not compressed
	kernelMagic      = 0x202
	kernelVersion    = 0x206 // u16
	kernelPayload    = 0x248 // u32: where the compressed kernel is, behind the sectors
	kernelPayloadLen = 0x24c // u32
	kernelHeader     = 0x250

	kernelLeast = 0x208 // version 2.08
)

// isKernel reports whether a file begins like a Linux kernel for x86 whose compressed part can
// be found.
func isKernel(head []byte) bool {
	return len(head) >= kernelHeader && head[0x1fe] == 0x55 && head[0x1ff] == 0xaa &&
		bytes.HasPrefix(head[kernelMagic:], []byte("HdrS")) && binary.LittleEndian.Uint16(head[kernelVersion:]) >= kernelLeast
}

// kernelMembers finds the compressed part of a Linux kernel.
func kernelMembers(_ context.Context, _ *splitter, r io.ReaderAt, size int64, _ place) ([]member, error) {
	head := make([]byte, kernelHeader)
	if n, err := r.ReadAt(head, 0); n < len(head) {
		return nil, ignoreEnd(err)
	}
	sectors := int64(head[kernelSectors])
	if sectors == 0 {
		sectors = 4
	}
	at := (sectors+1)*512 + int64(binary.LittleEndian.Uint32(head[kernelPayload:]))
	n := int64(binary.LittleEndian.Uint32(head[kernelPayloadLen:]))
	if n == 0 || n > size-at {
		return nil, nil
	}
	return []member{{off: at, size: n, name: "vmlinux"}}, nil
}

// lz4Members finds the LZ4 frames, in the legacy format, that a file begins with. A kernel and
// an initial file system have other things behind one.
func lz4Members(ctx context.Context, s *splitter, r io.ReaderAt, size int64, p place) ([]member, error) {
	begin := func(at int64) (int64, bool) {
		head := make([]byte, len(lz4.Magic))
		n, _ := r.ReadAt(head, at)
		return at, string(head[:n]) == lz4.Magic
	}
	end := func(at int64) (int64, error) { return at, nil }
	return s.streams(ctx, r, size, p, decodeLZ4, begin, end)
}
