package manifest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"golang.org/x/sync/semaphore"

	"ferry/cas"
	"ferry/chunking"
	"ferry/chunking/container"
	"ferry/manifest/tree"
)

const (
	// smallFile is the size in bytes up to which a file is read into memory and
	// cut by whichever core is free; larger ones are cut as they are read.
	smallFile = 4 << 20
	// itemsAhead bounds how many items are read ahead of the one being stored, and
	// bytesAhead the bytes of files that they hold; largeAhead is what one counts that
	// is not read into memory, but is open.
	itemsAhead = 512
	bytesAhead = 96 << 20
	largeAhead = 1 << 20
)

// item is a node on its way into the store.
type item struct {
	node  tree.Node
	open  func() (io.ReadCloser, error)
	ready chan struct{} // closed when what follows is set
	err   error

	digest      cas.Digest
	size        int64
	known       bool // the store has the file
	sniffedExec bool // the system has no execute bits; the content says that it is a program

	data   []byte // of a small file that is not known
	cuts   []cut
	stream io.ReadCloser     // of a large file that is not known, or of a container, from its start
	layout *container.Layout // of a container that is taken apart
	// guarded is set where the layout needs the file to be read here and there.
	guarded *guarded

	consumed chan struct{} // closed when the source may go on; nil if it need not wait
	release  func()        // gives back what it holds of bytesAhead; may be called again
}

// cut is a run at an offset of a small file.
type cut struct {
	Run
	off int64
}

func (it *item) runs() []Run {
	runs := make([]Run, len(it.cuts))
	for i, c := range it.cuts {
		runs[i] = c.Run
	}
	return runs
}

func (it *item) close() {
	if it.stream != nil {
		it.stream.Close()
		it.stream = nil
	}
	it.data = nil
	it.release()
	if it.consumed != nil {
		close(it.consumed)
		it.consumed = nil
	}
}

// readers walk a source and read, hash and cut its files on all cores. Items
// come out in the order of the walk.
type readers struct {
	in     *ingest
	t      tree.Tree
	ctx    context.Context
	cancel context.CancelFunc
	items  chan *item // in order
	work   chan *item
	wg     sync.WaitGroup
	ahead  *semaphore.Weighted // of bytesAhead
	failed error               // of the walk; set before items is closed
	sniff  bool                // modes come from the file system
}

func startReaders(ctx context.Context, in *ingest, t tree.Tree) *readers {
	r := &readers{in: in, t: t, items: make(chan *item, itemsAhead), work: make(chan *item, itemsAhead), ahead: semaphore.NewWeighted(bytesAhead)}
	r.sniff = t.Format() == "directory" || t.Format() == "file"
	r.ctx, r.cancel = context.WithCancel(ctx)
	r.wg.Add(1)
	go r.walk()
	for range runtime.GOMAXPROCS(0) {
		r.wg.Add(1)
		go r.read()
	}
	return r
}

// err returns why the walk ended early. Call it after items was closed.
func (r *readers) err() error { return r.failed }

// stop ends all goroutines and closes what they have open.
func (r *readers) stop() {
	r.cancel()
	for it := range r.items {
		<-it.ready
		it.close()
	}
	r.wg.Wait()
}

func (r *readers) walk() {
	defer r.wg.Done()
	defer close(r.items)
	defer close(r.work)
	r.failed = r.t.Walk(r.ctx, func(n tree.Node, open func() (io.ReadCloser, error)) error {
		it := &item{node: n, open: open, ready: make(chan struct{})}
		if err := r.hold(it); err != nil {
			return err
		}
		var consumed chan struct{}
		if n.Kind == tree.File && r.t.Sequential() {
			if n.Size <= smallFile {
				data, err := readSmall(open)
				if err != nil {
					return fmt.Errorf("%s: %w", n.Path, err)
				}
				it.open = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
			} else {
				consumed = make(chan struct{})
				it.consumed = consumed
			}
		}
		select {
		case r.work <- it:
		case <-r.ctx.Done():
			return r.ctx.Err()
		}
		select {
		case r.items <- it:
		case <-r.ctx.Done():
			<-it.ready // nobody else will close it
			it.close()
			return r.ctx.Err()
		}
		if consumed != nil {
			<-consumed
		}
		return nil
	})
}

// hold waits until an item may be read.
func (r *readers) hold(it *item) error {
	n := it.node.Size
	if it.node.Kind != tree.File {
		n = 0
	} else if n > smallFile {
		n = largeAhead
	}
	if err := r.ahead.Acquire(r.ctx, n); err != nil {
		return err
	}
	it.release = sync.OnceFunc(func() { r.ahead.Release(n) })
	return nil
}

func readSmall(open func() (io.ReadCloser, error)) ([]byte, error) {
	f, err := open()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// read takes items off the walk and prepares them.
func (r *readers) read() {
	defer r.wg.Done()
	c, err := chunking.New(nil, r.in.params)
	for it := range r.work {
		it.err = err
		if err == nil && it.node.Kind == tree.File {
			it.err = r.prepare(it, c)
		}
		close(it.ready)
	}
}

func (r *readers) prepare(it *item, c *chunking.Chunker) error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	f, err := it.open()
	if err != nil {
		return err
	}
	if it.node.Size > smallFile {
		return r.prepareLarge(it, f, c)
	}
	defer f.Close()
	// A file may have grown since it was listed: then it is cut as it is read.
	data, err := readUpTo(f, it.node.Size, smallFile+1)
	if err != nil {
		return err
	}
	if len(data) > smallFile {
		rest, err := it.open()
		it.stream = rest
		return err
	}
	it.digest, it.size = cas.Sum(data), int64(len(data))
	it.sniffedExec = r.sniff && sniffExec(data)
	if r.in.opts.Progress != nil {
		r.in.opts.Progress.Add(it.size)
	}
	if it.known, err = r.in.hasFile(r.ctx, it.digest, it.size); err != nil || it.known {
		it.release()
		return err
	}
	if container.Recognise(data) && r.in.takesApart(r.ctx, it.digest, it.size) {
		it.layout, err = container.Split(r.ctx, bytes.NewReader(data), it.size, splitOptions)
		if err != nil {
			return err
		}
		if it.layout != nil {
			it.stream = io.NopCloser(bytes.NewReader(data))
			return it.guard(r.ctx, bytes.NewReader(data), it.size)
		}
	}
	it.data = data
	return it.cut(c)
}

// takesApart reports whether a container file is to be taken apart: not if the store
// has a recipe of it that does not, some of whose chunks are gone.
func (in *ingest) takesApart(ctx context.Context, digest cas.Digest, size int64) bool {
	if !in.opts.Members || in.archive == nil {
		return in.opts.Members
	}
	r, err := in.archive.recipe(ctx, digest, size)
	return err != nil || r.Container()
}

// splitOptions say how containers are taken apart.
var splitOptions = container.Options{
	Spool: func(r io.Reader, size int64) (container.Content, error) { return tree.Spool(r, size) },
}

// readUpTo reads at most limit bytes; size is how many are expected.
func readUpTo(r io.Reader, size int64, limit int) ([]byte, error) {
	buf := make([]byte, 0, min(size+1, int64(limit)))
	for {
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if errors.Is(err, io.EOF) || len(buf) >= limit {
			return buf, nil
		}
		if err != nil {
			return nil, err
		}
		if len(buf) == cap(buf) {
			buf = append(make([]byte, 0, min(2*cap(buf)+512, limit)), buf...)
		}
	}
}

func (it *item) cut(c *chunking.Chunker) error {
	c.Reset(bytes.NewReader(it.data))
	for {
		chunk, err := c.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		run := Run{Size: chunk.Size}
		switch {
		case chunk.Size == it.size && !chunk.Zero():
			run.Key = it.digest
		case !chunk.Zero():
			run.Key = cas.Sum(chunk.Data)
		}
		it.cuts = append(it.cuts, cut{run, chunk.Offset})
	}
}

// prepareLarge finds out whether a large file is known, which takes reading it
// twice if it is not: so it is tried only when the store has its first chunk, and
// of what may be a container, which is read twice anyway.
func (r *readers) prepareLarge(it *item, f io.ReadCloser, c *chunking.Chunker) error {
	head, err := readUpTo(f, smallFile, r.in.params.Max+r.in.params.ZeroRun)
	if err != nil {
		f.Close()
		return err
	}
	it.sniffedExec = r.sniff && sniffExec(head)
	whole := io.MultiReader(bytes.NewReader(head), f)
	it.stream = &struct {
		io.Reader
		io.Closer
	}{whole, f}
	apart := container.Recognise(head) && r.in.opts.Members
	if !apart {
		likely, err := r.likelyKnown(head, c)
		if err != nil || !likely {
			return err
		}
	}
	h := cas.NewHasher()
	whole = tree.UntilDone(r.ctx, whole)
	if r.t.Sequential() {
		spool, err := tree.Spool(io.TeeReader(whole, h), it.node.Size)
		f.Close()
		it.stream = nil
		if err != nil {
			return err
		}
		it.size = spool.Size()
		it.stream = &spoolReader{io.NewSectionReader(spool, 0, spool.Size()), spool}
	} else {
		it.size, err = io.CopyBuffer(onlyWriter{h}, onlyReader{whole}, make([]byte, 1<<20))
		f.Close()
		it.stream = nil
		if err != nil {
			return err
		}
	}
	it.digest = h.Digest()
	if it.known, err = r.in.hasFile(r.ctx, it.digest, it.size); err != nil {
		return err
	}
	if it.known {
		if r.in.opts.Progress != nil {
			r.in.opts.Progress.Add(it.size)
		}
		return nil
	}
	size := it.size
	it.size = 0 // counted anew as it is stored
	if it.stream == nil {
		if it.stream, err = it.open(); err != nil {
			return err
		}
	}
	if apart && r.in.takesApart(r.ctx, it.digest, size) {
		return r.split(it, size)
	}
	return nil
}

// split takes a large container apart, which can be read anywhere on disk, or else
// was spooled.
func (r *readers) split(it *item, size int64) error {
	at, ok := it.stream.(interface {
		io.ReaderAt
		io.Closer
	})
	if !ok {
		spool, err := tree.Spool(tree.UntilDone(r.ctx, it.stream), size)
		it.stream.Close()
		it.stream = nil
		if err != nil {
			return err
		}
		at = spool
	}
	it.stream = &spoolReader{io.NewSectionReader(at, 0, size), at}
	var err error
	if it.layout, err = container.Split(r.ctx, at, size, splitOptions); err != nil || it.layout == nil {
		return err
	}
	return it.guard(r.ctx, at, size)
}

// guard prepares reading a file here and there, if its layout needs that.
func (it *item) guard(ctx context.Context, r io.ReaderAt, size int64) error {
	if it.layout.Sequential() {
		return nil
	}
	g, digest, err := guard(ctx, r, size)
	if err == nil && digest != it.digest {
		err = ErrChanged
	}
	it.guarded = g
	return err
}

// spoolReader reads a file that is spooled, or on disk, from its start or anywhere.
type spoolReader struct {
	*io.SectionReader
	io.Closer
}

// onlyReader and onlyWriter hide other methods, so that io.CopyBuffer uses the
// buffer.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)

// likelyKnown reports whether the store has the first chunk of a file.
func (r *readers) likelyKnown(head []byte, c *chunking.Chunker) (bool, error) {
	c.Reset(bytes.NewReader(head))
	for {
		chunk, err := c.Next()
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil || !chunk.Zero() {
			if err != nil {
				return false, err
			}
			return r.in.sink.Has(cas.Sum(chunk.Data))
		}
	}
}

// hasFile reports whether the store holds a file whole: its recipe and every
// chunk of both, none of them about to be pruned.
func (in *ingest) hasFile(ctx context.Context, digest cas.Digest, size int64) (bool, error) {
	if size == 0 {
		return true, nil
	}
	if in.archive == nil {
		return false, nil
	}
	if has, err := in.sink.Has(digest); has || err != nil {
		return has, err
	}
	has, err := in.archive.store.HasRecord(digest)
	if !has || err != nil {
		return false, err
	}
	recipe, parts, err := in.archive.recipeIn(ctx, digest, size)
	if err != nil {
		return false, nil // damaged: store it anew
	}
	for key := range recipe.keys() {
		if has, err := in.sink.Has(key); !has || err != nil {
			return false, err
		}
	}
	for _, key := range parts {
		if has, err := in.sink.Has(key); !has || err != nil {
			return false, err
		}
	}
	return true, nil
}
