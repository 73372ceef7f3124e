package manifest

import (
	"context"
	"fmt"
	"hash/maphash"
	"io"

	"ferry/cas"
)

// guardBlock is how many bytes of a file are hashed together by guard: 8 bytes of
// memory are kept for each such block.
const guardBlock = 64 << 10

// guarded reads a file anywhere, and makes sure that it reads what guard read: the
// digest of the whole was taken then. It is for one goroutine.
type guarded struct {
	r    io.ReaderAt
	size int64
	seed maphash.Seed
	sums []uint64

	block []byte // the one that was read last
	at    int64  // its number; -1 for none
}

// guard reads all of r, and returns its digest and what reads it again.
func guard(ctx context.Context, r io.ReaderAt, size int64) (*guarded, cas.Digest, error) {
	g := &guarded{r: r, size: size, seed: maphash.MakeSeed(), at: -1}
	g.sums = make([]uint64, 0, (size+guardBlock-1)/guardBlock)
	h := cas.NewHasher()
	buf := make([]byte, 16*guardBlock)
	for off := int64(0); off < size; off += int64(len(buf)) {
		if err := ctx.Err(); err != nil {
			return nil, cas.Digest{}, err
		}
		part := buf[:min(int64(len(buf)), size-off)]
		if n, err := r.ReadAt(part, off); n < len(part) {
			return nil, cas.Digest{}, shortRead(off+int64(n), err)
		}
		h.Write(part)
		for len(part) > 0 {
			n := min(len(part), guardBlock)
			g.sums = append(g.sums, maphash.Bytes(g.seed, part[:n]))
			part = part[n:]
		}
	}
	return g, h.Digest(), nil
}

func shortRead(off int64, err error) error {
	if err == nil || err == io.EOF {
		return ErrChanged
	}
	return fmt.Errorf("offset %d: %w", off, err)
}

// ReadAt implements io.ReaderAt. The error is [ErrChanged] when the file is not what
// it was.
func (g *guarded) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) && off < g.size {
		if err := g.load(off / guardBlock); err != nil {
			return n, err
		}
		k := copy(p[n:], g.block[off%guardBlock:])
		n += k
		off += int64(k)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// load reads a block, unless it is there.
func (g *guarded) load(block int64) error {
	if g.at == block {
		return nil
	}
	g.at = -1
	off := block * guardBlock
	n := min(guardBlock, g.size-off)
	if int64(cap(g.block)) < n {
		g.block = make([]byte, guardBlock)
	}
	g.block = g.block[:n]
	if m, err := g.r.ReadAt(g.block, off); m < len(g.block) {
		return shortRead(off+int64(m), err)
	}
	if maphash.Bytes(g.seed, g.block) != g.sums[block] {
		return ErrChanged
	}
	g.at = block
	return nil
}
