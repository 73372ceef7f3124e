package manifest

import (
	"context"
	"fmt"
	"io"
	"sort"
	"strconv"
	"sync"

	"ferry/cas"
	"ferry/manifest/tree"
)

// layoutContent reads a container file of an archive at random. Deflated members are
// encoded anew when a byte of them is wanted, and those that were read last are kept.
type layoutContent struct {
	ctx     context.Context // of OpenAt: io.ReaderAt has no room for one
	a       *Archive
	recipe  *Recipe
	ends    []int64 // offset in the file behind each instruction
	members *tree.Cache

	mu      sync.Mutex
	streams map[int]tree.Content
}

func (a *Archive) openLayout(ctx context.Context, r *Recipe) tree.Content {
	c := &layoutContent{ctx: ctx, a: a, recipe: r, streams: map[int]tree.Content{}}
	end := int64(0)
	for _, op := range r.Layout {
		end += op.Size
		c.ends = append(c.ends, end)
	}
	c.members = tree.NewCache(ctx, func(ctx context.Context, key string) (tree.Content, error) {
		i, err := strconv.Atoi(key)
		if err != nil {
			return nil, err
		}
		return c.member(ctx, c.recipe.Layout[i])
	})
	return c
}

func (c *layoutContent) Size() int64 { return c.recipe.Size }

func (c *layoutContent) Close() error {
	c.members.Close()
	return nil
}

// member encodes a deflated member.
func (c *layoutContent) member(ctx context.Context, op Op) (tree.Content, error) {
	part := &Recipe{Digest: c.recipe.Digest, Size: op.Size, Streams: c.recipe.Streams, Layout: []Op{op}}
	r, w := io.Pipe()
	go func() { w.CloseWithError(c.a.writeLayout(ctx, w, part)) }()
	defer r.Close()
	return tree.Spool(r, op.Size)
}

// stream opens a stream, once.
func (c *layoutContent) stream(i int) tree.Content {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.streams[i]
	if !ok {
		s = c.a.OpenRuns(c.ctx, c.recipe.Streams[i].Runs)
		c.streams[i] = s
	}
	return s
}

// ReadAt implements io.ReaderAt.
func (c *layoutContent) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read at offset %d", off)
	}
	n := 0
	for i := sort.Search(len(c.ends), func(i int) bool { return c.ends[i] > off }); n < len(p) && i < len(c.ends); i++ {
		op := c.recipe.Layout[i]
		skip := off + int64(n) - (c.ends[i] - op.Size)
		part := p[n:min(int64(len(p)), int64(n)+op.Size-skip)]
		m, err := c.read(i, op, part, skip)
		if n += m; m < len(part) {
			if err == nil || err == io.EOF {
				err = fmt.Errorf("%w: a member is too short", cas.ErrCorrupt)
			}
			return n, err
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// read reads what instruction i gives, from skip on.
func (c *layoutContent) read(i int, op Op, p []byte, skip int64) (n int, err error) {
	switch op.Kind {
	case OpZero:
		clear(p)
		return len(p), nil
	case OpSlice:
		return c.stream(op.Stream).ReadAt(p, op.Off+skip)
	}
	err = c.members.With(c.ctx, strconv.Itoa(i), func(member tree.Content) error {
		n, err = member.ReadAt(p, skip)
		return err
	})
	return n, err
}
