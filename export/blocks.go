package export

import (
	"context"
	"encoding/binary"
	"hash"
	"hash/crc32"
	"io"
	"runtime"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
)

// Large streams are cut into blocks of fixed size that are compressed on all
// cores and written in order. The sizes are part of what makes exports the same
// everywhere.
const (
	deflateBlock = 1 << 20
	zstdBlock    = 8 << 20
	// deflateWindow is how far back a deflate match may reach (RFC 1951): each
	// block has the end of the one before it as its dictionary.
	deflateWindow = 32 << 10
	deflateLevel  = 6
)

// coder compresses one block, given the bytes before it. last says that no block
// follows. It is used by one goroutine at a time.
type coder interface {
	code(block, before []byte, last bool) ([]byte, error)
}

// blockWriter compresses what is written to it, in blocks. Memory is about three
// blocks a core.
type blockWriter struct {
	ctx    context.Context // of the one export that it lives for
	w      io.Writer
	size   int
	coders *sync.Pool
	buf    []byte
	before []byte
	queue  chan *block // in order
	done   chan struct{}
	slots  chan struct{}
	mu     sync.Mutex
	err    error // of the writing side
	n      int64 // bytes written to w
}

type block struct {
	ready chan struct{}
	coded []byte
	err   error
}

func newBlockWriter(ctx context.Context, w io.Writer, size int, coders *sync.Pool) *blockWriter {
	n := runtime.GOMAXPROCS(0)
	b := &blockWriter{
		ctx: ctx, w: w, size: size, coders: coders,
		queue: make(chan *block, n), done: make(chan struct{}), slots: make(chan struct{}, n),
	}
	go b.drain()
	return b
}

// drain writes the coded blocks in order.
func (b *blockWriter) drain() {
	defer close(b.done)
	for blk := range b.queue {
		<-blk.ready
		err := blk.err
		if err == nil && b.failed() == nil {
			var n int
			n, err = b.w.Write(blk.coded)
			b.n += int64(n)
		}
		if err != nil {
			b.mu.Lock()
			if b.err == nil {
				b.err = err
			}
			b.mu.Unlock()
		}
	}
}

func (b *blockWriter) failed() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

func (b *blockWriter) Write(p []byte) (int, error) {
	if err := b.failed(); err != nil {
		return 0, err
	}
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	n := len(p)
	for len(p) > 0 {
		if len(b.buf) == b.size { // full, and more follows
			b.flush(false)
		}
		if b.buf == nil {
			b.buf = make([]byte, 0, b.size)
		}
		m := min(len(p), b.size-len(b.buf))
		b.buf = append(b.buf, p[:m]...)
		p = p[m:]
	}
	return n, nil
}

// flush has the gathered block coded.
func (b *blockWriter) flush(last bool) {
	data, before := b.buf, b.before
	b.before, b.buf = data[max(0, len(data)-deflateWindow):], nil
	blk := &block{ready: make(chan struct{})}
	b.slots <- struct{}{}
	b.queue <- blk
	go func() {
		defer func() { <-b.slots }()
		c := b.coders.Get().(coder)
		blk.coded, blk.err = c.code(data, before, last)
		b.coders.Put(c)
		close(blk.ready)
	}()
}

// Close writes out what is left, and waits. It does not close the writer beneath.
func (b *blockWriter) Close() error {
	b.flush(true)
	return b.stop()
}

// stop ends the goroutines; what was not flushed is lost.
func (b *blockWriter) stop() error {
	close(b.queue)
	<-b.done
	return b.failed()
}

// deflateCoder writes deflate blocks that end on a byte.
type deflateCoder struct{}

// sliceBuffer is an io.Writer to a slice.
type sliceBuffer struct{ b []byte }

func (s *sliceBuffer) Write(p []byte) (int, error) {
	s.b = append(s.b, p...)
	return len(p), nil
}

var deflateCoders = &sync.Pool{New: func() any { return &deflateCoder{} }}

func (c *deflateCoder) code(data, before []byte, last bool) ([]byte, error) {
	out := &sliceBuffer{b: make([]byte, 0, len(data)/2+64)}
	w, err := flate.NewWriterDict(out, deflateLevel, before)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	if last {
		err = w.Close()
	} else {
		err = w.Flush()
	}
	return out.b, err
}

// zstdCoder writes whole zstd frames: many frames, one after the other, are a
// zstd stream (RFC 8878, section 3).
type zstdCoder struct{ enc *zstd.Encoder }

var zstdCoders = &sync.Pool{New: func() any {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault),
		zstd.WithWindowSize(zstdBlock), zstd.WithZeroFrames(true))
	if err != nil {
		panic("export: internal error: " + err.Error())
	}
	return &zstdCoder{enc}
}}

func (c *zstdCoder) code(data, _ []byte, _ bool) ([]byte, error) {
	return c.enc.EncodeAll(data, nil), nil
}

// gzipWriter is a gzip file (RFC 1952) around parallel deflate.
type gzipWriter struct {
	w      io.Writer
	blocks *blockWriter
	crc    hash.Hash32
	size   uint32
}

// gzipHeader: deflate, no flags, no time, no extra flags, unknown system.
var gzipHeader = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}

func newGzip(ctx context.Context, w io.Writer) io.WriteCloser {
	return &gzipWriter{w: w, blocks: newBlockWriter(ctx, &prefixWriter{w: w, prefix: gzipHeader}, deflateBlock, deflateCoders), crc: crc32.NewIEEE()}
}

func (g *gzipWriter) Write(p []byte) (int, error) {
	g.crc.Write(p)
	g.size += uint32(len(p))
	return g.blocks.Write(p)
}

func (g *gzipWriter) Close() error {
	if err := g.blocks.Close(); err != nil {
		return err
	}
	tail := binary.LittleEndian.AppendUint32(nil, g.crc.Sum32())
	_, err := g.w.Write(binary.LittleEndian.AppendUint32(tail, g.size))
	return err
}

// prefixWriter writes prefix before the first bytes.
type prefixWriter struct {
	w      io.Writer
	prefix []byte
}

func (p *prefixWriter) Write(b []byte) (int, error) {
	if p.prefix != nil {
		if _, err := p.w.Write(p.prefix); err != nil {
			return 0, err
		}
		p.prefix = nil
	}
	return p.w.Write(b)
}

func newZstd(ctx context.Context, w io.Writer) io.WriteCloser {
	return newBlockWriter(ctx, w, zstdBlock, zstdCoders)
}
