package container

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"strconv"
)

// isCpio reports whether a file begins like a cpio archive as the kernel reads them: "newc",
// or with checksums. Linux, Documentation/driver-api/early-userspace/buffer-format.rst.
func isCpio(head []byte) bool {
	return bytes.HasPrefix(head, []byte("070701")) || bytes.HasPrefix(head, []byte("070702"))
}

// Fields of a cpio header: eight hexadecimal digits each, from byte 6 on.
const (
	cpioHeader = 6 + 13*8
	cpioMode   = 1
	cpioSize   = 6
	cpioName   = 11

	cpioTrailer = "TRAILER!!!"
)

// cpioMembers finds the members of a cpio archive, and what stands behind it: in an initial
// file system of Linux, more archives, of which the last is compressed.
func cpioMembers(ctx context.Context, _ *splitter, r io.ReaderAt, size int64, _ place) ([]member, error) {
	var members []member
	var head [cpioHeader]byte
	at := int64(0)
	for len(members) < maxMembers {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if n, err := r.ReadAt(head[:], at); n < len(head) {
			return members, ignoreEnd(err)
		}
		mode, ok1 := cpioField(head[:], cpioMode)
		n, ok2 := cpioField(head[:], cpioSize)
		long, ok3 := cpioField(head[:], cpioName)
		if !isCpio(head[:]) || !ok1 || !ok2 || !ok3 || long == 0 || long > maxName {
			return members, nil
		}
		name := make([]byte, long)
		if k, err := r.ReadAt(name, at+cpioHeader); k < len(name) {
			return members, ignoreEnd(err)
		}
		name = bytes.TrimRight(name, "\x00")
		at = (at + cpioHeader + long + 3) &^ 3
		if string(name) == cpioTrailer {
			break
		}
		if n > size-at {
			return members, nil
		}
		if mode&0o170000 == 0o100000 && n > 0 {
			members = append(members, member{off: at, size: n, name: string(bytes.TrimPrefix(name, []byte("./")))})
		}
		at = (at + n + 3) &^ 3
	}
	at, err := skipZeros(ctx, r, at, size)
	if err == nil && at < size {
		members = append(members, member{off: at, size: size - at, name: "next"})
	}
	return members, err
}

// skipZeros returns where the zeros from at on end, at most size.
func skipZeros(ctx context.Context, r io.ReaderAt, at, size int64) (int64, error) {
	var b [4096]byte
	for at < size {
		n, err := r.ReadAt(b[:min(int64(len(b)), size-at)], at)
		k := len(bytes.TrimLeft(b[:n], "\x00"))
		if at += int64(n - k); k > 0 {
			break
		}
		if n == 0 || ctx.Err() != nil {
			return at, cmp.Or(ctx.Err(), ignoreEnd(err))
		}
	}
	return at, nil
}

// ignoreEnd returns an error of reading, but for the end of a file.
func ignoreEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func cpioField(head []byte, i int) (int64, bool) {
	v, err := strconv.ParseUint(string(head[6+8*i:14+8*i]), 16, 32)
	return int64(v), err == nil
}
