package delta

import (
	"container/list"
	"context"
	"fmt"
	"io"
	"sync"

	"ferry/manifest/tree"
)

// contents keeps the files last read from open: opening one again may mean
// unpacking it again. It is safe for concurrent use.
type contents struct {
	ctx  context.Context // of the one call that they live for: contents outlive their openers
	open func(ctx context.Context, path string) (tree.Content, error)

	mu     sync.Mutex
	byPath map[string]*list.Element
	order  *list.List // of *openContent, last used first
}

// maxOpenContents bounds the files kept open that nobody is reading.
const maxOpenContents = 12

type openContent struct {
	path  string
	ready chan struct{}
	c     tree.Content
	err   error
	users int
}

func newContents(ctx context.Context, open func(ctx context.Context, path string) (tree.Content, error)) *contents {
	return &contents{ctx: ctx, open: open, byPath: map[string]*list.Element{}, order: list.New()}
}

// with calls fn with the content at path.
func (c *contents) with(ctx context.Context, path string, fn func(tree.Content) error) error {
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

func (c *contents) take(path string) *openContent {
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
func (c *contents) give(o *openContent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o.users--
	for el := c.order.Back(); el != nil && c.order.Len() > maxOpenContents; {
		prev := el.Prev()
		if el.Value.(*openContent).users == 0 {
			c.drop(el)
		}
		el = prev
	}
}

func (c *contents) drop(el *list.Element) {
	o := el.Value.(*openContent)
	c.order.Remove(el)
	delete(c.byPath, o.path)
	if o.c != nil {
		o.c.Close()
	}
}

// close closes all contents. Nobody may be reading.
func (c *contents) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for el := c.order.Front(); el != nil; el = c.order.Front() {
		c.drop(el)
	}
}

// read appends the bytes [off, off+size) of the content at path to dst.
func (c *contents) read(ctx context.Context, dst []byte, path string, off, size int64) ([]byte, error) {
	err := c.with(ctx, path, func(content tree.Content) error {
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
