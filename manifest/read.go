package manifest

import (
	"context"
	"fmt"
	"io"
	"iter"
	"sort"

	"ferry/cas"
	"ferry/manifest/tree"
)

// WriteFile writes the content of a file to w. The digest is compared at the
// end: on any error, what was written is to be thrown away.
func (a *Archive) WriteFile(ctx context.Context, w io.Writer, e Entry) error {
	r, err := a.recipe(ctx, e.Digest, e.Size)
	if err != nil {
		return fmt.Errorf("%s: %w", e.Path, err)
	}
	if err := a.write(ctx, w, r); err != nil {
		return fmt.Errorf("%s: %w", e.Path, err)
	}
	return nil
}

// Open returns the content of a file from front to back. Its last Read fails
// when the digest is not the entry's. Close it.
func (a *Archive) Open(ctx context.Context, e Entry) (io.ReadCloser, error) {
	if _, err := a.recipe(ctx, e.Digest, e.Size); err != nil {
		return nil, fmt.Errorf("%s: %w", e.Path, err)
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(a.WriteFile(ctx, w, e)) }()
	return r, nil
}

// write puts a file together.
func (a *Archive) write(ctx context.Context, w io.Writer, r *Recipe) error {
	h := cas.NewHasher()
	out := io.MultiWriter(w, h)
	single := len(r.Streams) == 1 && len(r.Streams[0].Runs) == 1 && r.Streams[0].Runs[0].Key == r.Digest
	if single {
		out = w // the one chunk is verified under the same digest
	}
	next, stop := iter.Pull2(a.store.Stream(ctx, r.keys()))
	defer stop()
	for p := range r.pieces() {
		if p.Key.IsZero() {
			if err := writeZeros(ctx, out, p.size); err != nil {
				return err
			}
			continue
		}
		chunk, err, ok := next()
		if !ok {
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		if int64(len(chunk)) != p.Size {
			return fmt.Errorf("chunk %s: %w: %d bytes, recipe says %d", p.Key.Short(), cas.ErrCorrupt, len(chunk), p.Size)
		}
		if _, err := out.Write(chunk[p.off : p.off+p.size]); err != nil {
			return err
		}
	}
	if !single && h.Digest() != r.Digest {
		return fmt.Errorf("file %s: %w: its chunks give another digest", r.Digest.Short(), cas.ErrCorrupt)
	}
	return nil
}

var zeros [1 << 16]byte

func writeZeros(ctx context.Context, w io.Writer, n int64) error {
	for n > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		m, err := w.Write(zeros[:min(n, int64(len(zeros)))])
		if err != nil {
			return err
		}
		n -= int64(m)
	}
	return nil
}

// piece is a part of a run, in the order of the file.
type piece struct {
	Run
	off, size int64 // the part [off, off+size) of the run
}

// pieces yields the parts of runs that make up the file.
func (r *Recipe) pieces() iter.Seq[piece] {
	return func(yield func(piece) bool) {
		for _, op := range r.Layout {
			if op.Kind == OpZero {
				if !yield(piece{Run{Size: op.Size}, 0, op.Size}) {
					return
				}
				continue
			}
			if !slicePieces(r.Streams[op.Stream].Runs, op.Off, op.Size, yield) {
				return
			}
		}
	}
}

// slicePieces yields the parts of runs that cover [off, off+size).
func slicePieces(runs []Run, off, size int64, yield func(piece) bool) bool {
	for _, run := range runs {
		if size == 0 {
			break
		}
		if off >= run.Size {
			off -= run.Size
			continue
		}
		n := min(run.Size-off, size)
		if !yield(piece{run, off, n}) {
			return false
		}
		off, size = 0, size-n
	}
	return true
}

// keys yields the keys of the chunks that pieces needs, in that order.
func (r *Recipe) keys() iter.Seq[cas.Digest] {
	return func(yield func(cas.Digest) bool) {
		for p := range r.pieces() {
			if !p.Key.IsZero() && !yield(p.Key) {
				return
			}
		}
	}
}

// OpenAt returns the content of a file for reading anywhere. Chunks are
// verified, the file as a whole is not.
func (a *Archive) OpenAt(ctx context.Context, e Entry) (tree.Content, error) {
	r, err := a.recipe(ctx, e.Digest, e.Size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.Path, err)
	}
	c := &storedContent{ctx: ctx, a: a, size: r.Size}
	for p := range r.pieces() {
		c.pieces = append(c.pieces, p)
		c.ends = append(c.ends, c.end()+p.size)
	}
	return c, nil
}

// storedContent reads a file of an archive at random.
type storedContent struct {
	ctx    context.Context // of OpenAt: io.ReaderAt has no room for one
	a      *Archive
	size   int64
	pieces []piece
	ends   []int64 // offset in the file behind each piece
}

func (c *storedContent) end() int64 {
	if len(c.ends) == 0 {
		return 0
	}
	return c.ends[len(c.ends)-1]
}

func (c *storedContent) Size() int64  { return c.size }
func (c *storedContent) Close() error { return nil }

func (c *storedContent) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read at offset %d", off)
	}
	i := sort.Search(len(c.ends), func(i int) bool { return c.ends[i] > off })
	n := 0
	for n < len(b) && i < len(c.pieces) {
		p := c.pieces[i]
		skip := off + int64(n) - (c.ends[i] - p.size)
		part := b[n:min(int64(len(b)), int64(n)+p.size-skip)]
		if p.Key.IsZero() {
			clear(part)
		} else {
			chunk, err := c.a.store.Get(c.ctx, p.Key)
			if err != nil {
				return n, err
			}
			if int64(len(chunk)) != p.Size {
				return n, fmt.Errorf("chunk %s: %w: %d bytes, recipe says %d", p.Key.Short(), cas.ErrCorrupt, len(chunk), p.Size)
			}
			copy(part, chunk[p.off+skip:])
		}
		n += len(part)
		i++
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// Chunk is a piece of a file at an offset; see [Archive.Chunks].
type Chunk struct {
	Off  int64
	Size int64
	Key  cas.Digest // zero for zeros
}

// Chunks returns how a file is cut, in the order of its bytes. Chunks of a
// container file that are used in part are left out.
func (a *Archive) Chunks(ctx context.Context, e Entry) ([]Chunk, error) {
	r, err := a.recipe(ctx, e.Digest, e.Size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.Path, err)
	}
	var chunks []Chunk
	off := int64(0)
	for p := range r.pieces() {
		if p.size == p.Size {
			chunks = append(chunks, Chunk{Off: off, Size: p.size, Key: p.Key})
		}
		off += p.size
	}
	return chunks, nil
}
