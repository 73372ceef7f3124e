package tree

import (
	"container/list"
	"context"
	"fmt"
	"io"
	"sync"
)

// Cache keeps the contents that were last read open: opening one again may mean
// unpacking it again. It is safe for concurrent use.
type Cache struct {
	ctx  context.Context // of the one call that they live for: they outlive their openers
	open func(ctx context.Context, path string) (Content, error)

	mu     sync.Mutex
	byPath map[string]*list.Element
	order  *list.List // of *openContent, last used first
}

// Bounds of the contents kept open that nobody is reading, apart for those that Spool keeps in
// memory, and those that it does not: some are kept in any case, more as long as they take
// little memory, or little room on disk.
const (
	minOpenContents = 6
	maxOpenContents = 64
	maxInMemory     = 12 << 20
	maxOnDisk       = 1 << 30
)

type openContent struct {
	path  string
	ready chan struct{}
	c     Content
	err   error
	users int
}

// NewCache returns a Cache of what open opens. Close it.
func NewCache(ctx context.Context, open func(ctx context.Context, path string) (Content, error)) *Cache {
	return &Cache{ctx: ctx, open: open, byPath: map[string]*list.Element{}, order: list.New()}
}

// With calls fn with the content at path.
func (c *Cache) With(ctx context.Context, path string, fn func(Content) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	o := c.take(path)
	defer c.give(o)
	<-o.ready
	if o.err != nil {
		return o.err
	}
	return fn(o.c)
}

func (c *Cache) take(path string) *openContent {
	c.mu.Lock()
	if el, ok := c.byPath[path]; ok {
		c.order.MoveToFront(el)
		o := el.Value.(*openContent)
		o.users++
		c.mu.Unlock()
		return o
	}
	o := &openContent{path: path, ready: make(chan struct{}), users: 1}
	c.byPath[path] = c.order.PushFront(o)
	c.mu.Unlock()
	o.c, o.err = c.open(c.ctx, path)
	close(o.ready)
	return o
}

// give hands a content back, and closes the oldest ones that nobody reads.
func (c *Cache) give(o *openContent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o.users--
	if c.order.Len() <= minOpenContents {
		return
	}
	type total struct {
		n           int
		size, limit int64
	}
	small, large := total{limit: maxInMemory}, total{limit: maxOnDisk}
	for el := c.order.Front(); el != nil; {
		next := el.Next()
		if o := el.Value.(*openContent); o.users == 0 {
			t := &small
			if o.size() > spoolInMemory {
				t = &large
			}
			t.n++
			t.size += o.size()
			if t.n > minOpenContents && (t.n > maxOpenContents || t.size > t.limit) {
				c.drop(el)
			}
		}
		el = next
	}
}

// size returns how large a content is that nobody is opening.
func (o *openContent) size() int64 {
	if o.c == nil {
		return 0
	}
	return o.c.Size()
}

func (c *Cache) drop(el *list.Element) {
	o := el.Value.(*openContent)
	c.order.Remove(el)
	delete(c.byPath, o.path)
	if o.c != nil {
		o.c.Close()
	}
}

// Close closes all contents. Nobody may be reading.
func (c *Cache) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for el := c.order.Front(); el != nil; el = c.order.Front() {
		c.drop(el)
	}
}

// Read appends the bytes [off, off+size) of the content at path to dst.
func (c *Cache) Read(ctx context.Context, dst []byte, path string, off, size int64) ([]byte, error) {
	err := c.With(ctx, path, func(content Content) error {
		n := len(dst)
		dst = append(dst, make([]byte, size)...)
		if m, err := content.ReadAt(dst[n:], off); int64(m) < size {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("%s: offset %d: %w", path, off+int64(m), err)
		}
		return nil
	})
	return dst, err
}
