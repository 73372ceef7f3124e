package manifest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sort"

	"ferry/cas"
	"ferry/chunking/coded"
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
	single := r.isChunk()
	if single {
		out = w // the one chunk is verified under the same digest
	}
	if err := a.writeLayout(ctx, out, r); err != nil {
		return err
	}
	if !single && h.Digest() != r.Digest {
		return fmt.Errorf("file %s: %w: its chunks give another digest", r.Digest.Short(), cas.ErrCorrupt)
	}
	return nil
}

// writeLayout writes what the layout gives.
func (a *Archive) writeLayout(ctx context.Context, w io.Writer, r *Recipe) error {
	next, stop := iter.Pull2(a.store.Stream(ctx, r.keys()))
	defer stop()
	return (&builder{r, next}).write(ctx, w, r.Layout)
}

// builder puts a file together from its chunks, which come in the order in which
// the layout needs them.
type builder struct {
	recipe *Recipe
	next   func() ([]byte, error, bool)
}

func (b *builder) write(ctx context.Context, w io.Writer, layout []Op) (err error) {
	p := coded.NewPipeline(w)
	defer func() {
		err = cmp.Or(p.Close(), err)
		if errors.Is(err, coded.ErrReconstruction) && !errors.Is(err, cas.ErrCorrupt) {
			err = fmt.Errorf("%w: %w", cas.ErrCorrupt, err)
		}
	}()
	for _, op := range layout {
		switch op.Kind {
		case OpZero:
			err = writeZeros(ctx, p, op.Size)
		case OpSlice:
			err = b.slice(ctx, p, op)
		case OpDeflate:
			err = p.Encode(op.Size, LayoutSize(op.Inner), op.Reconstruction, func(w io.Writer) error { return b.write(ctx, w, op.Inner) })
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// LayoutSize returns how many bytes a layout gives.
func LayoutSize(layout []Op) (n int64) {
	for _, op := range layout {
		n += op.Size
	}
	return n
}

func (b *builder) slice(ctx context.Context, w io.Writer, op Op) error {
	for p := range b.recipe.Streams[op.Stream].pieces(op.Off, op.Size) {
		if p.Key.IsZero() {
			if err := writeZeros(ctx, w, p.size); err != nil {
				return err
			}
			continue
		}
		chunk, err, ok := b.next()
		if !ok {
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		if int64(len(chunk)) != p.Size {
			return fmt.Errorf("chunk %s: %w: %d bytes, recipe says %d", p.Key.Short(), cas.ErrCorrupt, len(chunk), p.Size)
		}
		if _, err := w.Write(chunk[p.off : p.off+p.size]); err != nil {
			return err
		}
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

// pieces yields the parts of runs that make up the file, members decoded.
func (r *Recipe) pieces() iter.Seq[piece] {
	return func(yield func(piece) bool) { r.layoutPieces(r.Layout, yield) }
}

func (r *Recipe) layoutPieces(layout []Op, yield func(piece) bool) bool {
	for _, op := range layout {
		more := true
		switch op.Kind {
		case OpZero:
			more = yield(piece{Run{Size: op.Size}, 0, op.Size})
		case OpDeflate:
			more = r.layoutPieces(op.Inner, yield)
		default:
			for p := range r.Streams[op.Stream].pieces(op.Off, op.Size) {
				if more = yield(p); !more {
					break
				}
			}
		}
		if !more {
			return false
		}
	}
	return true
}

// pieces yields the parts of the stream's runs that cover [off, off+size).
func (s Stream) pieces(off, size int64) iter.Seq[piece] {
	return func(yield func(piece) bool) {
		runs := s.Runs
		if len(s.ends) == len(runs) {
			first := sort.Search(len(runs), func(i int) bool { return s.ends[i] > off })
			if first > 0 {
				off -= s.ends[first-1]
			}
			runs = runs[first:]
		}
		for _, run := range runs {
			if size == 0 {
				return
			}
			if off >= run.Size {
				off -= run.Size
				continue
			}
			n := min(run.Size-off, size)
			if !yield(piece{run, off, n}) {
				return
			}
			off, size = 0, size-n
		}
	}
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

// Recipe returns how a file is made of chunks.
func (a *Archive) Recipe(ctx context.Context, e Entry) (*Recipe, error) {
	r, err := a.recipe(ctx, e.Digest, e.Size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.Path, err)
	}
	return r, nil
}

// OpenAt returns the content of a file for reading anywhere. Chunks are
// verified, the file as a whole is not.
func (a *Archive) OpenAt(ctx context.Context, e Entry) (tree.Content, error) {
	r, err := a.Recipe(ctx, e)
	if err != nil {
		return nil, err
	}
	if !r.Plain() {
		return a.openLayout(ctx, r), nil
	}
	return a.openPieces(ctx, r.Size, r.pieces()), nil
}

// OpenStream returns stream i of the recipe of file e for reading anywhere. Chunks
// are verified.
func (a *Archive) OpenStream(ctx context.Context, _ Entry, r *Recipe, i int, _ Location) (tree.Content, error) {
	return a.OpenRuns(ctx, r.Streams[i].Runs), nil
}

// OpenRuns returns the bytes of runs, one after the other, for reading anywhere.
// Chunks are verified.
func (a *Archive) OpenRuns(ctx context.Context, runs []Run) tree.Content {
	size := int64(0)
	for _, run := range runs {
		size += run.Size
	}
	return a.openPieces(ctx, size, Stream{Runs: runs}.pieces(0, size))
}

func (a *Archive) openPieces(ctx context.Context, size int64, pieces iter.Seq[piece]) tree.Content {
	c := &storedContent{ctx: ctx, a: a, size: size}
	for p := range pieces {
		c.pieces = append(c.pieces, p)
		c.ends = append(c.ends, c.end()+p.size)
	}
	return c
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

// Chunks returns how a file is cut, in the order of its bytes, which chunks may
// leave out: those of a container file that are used in part, and all of a
// deflated member.
func (a *Archive) Chunks(ctx context.Context, e Entry) ([]Chunk, error) {
	r, err := a.Recipe(ctx, e)
	if err != nil {
		return nil, err
	}
	return r.Chunks(), nil
}

// Chunks is like [Archive.Chunks].
func (r *Recipe) Chunks() []Chunk {
	var chunks []Chunk
	off := int64(0)
	for _, op := range r.Layout {
		switch op.Kind {
		case OpZero:
			chunks = append(chunks, Chunk{Off: off, Size: op.Size})
		case OpSlice:
			at := off
			for p := range r.Streams[op.Stream].pieces(op.Off, op.Size) {
				if p.size == p.Size {
					chunks = append(chunks, Chunk{Off: at, Size: p.size, Key: p.Key})
				}
				at += p.size
			}
		}
		off += op.Size
	}
	return chunks
}
