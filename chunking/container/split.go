package container

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"ferry/chunking/coded"
	"ferry/chunking/deflate"
	"ferry/chunking/disk"
	"ferry/chunking/lz4"
	"ferry/chunking/xz"
)

// Options say how to take files apart.
type Options struct {
	// Spool copies what r gives so that it can be read anywhere; size is how long
	// that may be. It is asked for containers within deflated members.
	Spool func(r io.Reader, size int64) (Content, error)
}

// Content is a file that can be read anywhere.
type Content interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// Bounds of what is taken apart; what is beyond them stays as it is.
const (
	maxDepth           = 6       // containers in one another
	maxMembers         = 1 << 20 // of a file, those within members counted too
	maxName            = 4096    // bytes
	maxNames           = 32 << 20
	maxReconstructions = 128 << 20

	// minMember is how many bytes a member must have to be a stream of its own.
	minMember = 512
	// Plain bytes in all may be so many times a file's size, and some more.
	maxExpansion  = 100
	freeExpansion = 64 << 20
)

// Head is how many bytes of a file tell whether it may be a container.
const Head = 2048

// Recognise reports whether a file that begins with head may be a container.
func Recognise(head []byte) bool { return recogniserOf(head) != nil }

// recogniserOf returns what finds the members of a file that begins with head.
func recogniserOf(head []byte) recogniser {
	switch {
	case bytes.HasPrefix(head, []byte("PK\x03\x04")):
		return zipMembers
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b, 8}):
		return gzipMembers
	case bytes.HasPrefix(head, []byte(xz.Magic)):
		return xzMembers
	case bytes.HasPrefix(head, []byte(lz4.Magic)):
		return lz4Members
	case bytes.HasPrefix(head, []byte(arMagic)):
		return arMembers
	case isTar(head):
		return tarMembers
	case isCpio(head):
		return cpioMembers
	case disk.Recognise(head):
		return diskMembers
	}
	return nil
}

// recogniser finds members of the container r, in order. It stops where it does
// not understand more. Only errors of ctx and of reading end it with an error.
type recogniser func(ctx context.Context, s *splitter, r io.ReaderAt, size int64, at place) ([]member, error)

// place is where a container stands: its name, in how many others, and how many
// plain bytes may be decoded of it. Each member may take its share of them, so that
// what is decoded does not depend on what else is.
type place struct {
	name   string
	depth  int
	budget int64
}

// member is a run of a container's bytes.
type member struct {
	off, size int64
	name      string
	deflated  bool // its bytes are a deflate stream
	opaque    bool // it is encrypted, or compressed in a way that is not taken apart

	done bool // what follows is set
	node node
}

// scattered is a stream that stands in several places.
type scattered struct {
	name string
	size int64
}

// node is what became of a run of bytes.
type node struct {
	size    int64
	name    string
	between bool // it stands between members
	zero    bool // it is zeros

	scattered *scattered // the stream that it is a slice of, and where in that
	off       int64

	reconstruction []byte
	inner          []node // of a deflated one, or else what it consists of; nil: it is a stream
}

// Split takes the file r apart. It returns nil where there is nothing to take
// apart. Every deflated member was encoded again and compared. Errors come from r,
// from spooling, and from ctx; a malformed container is none.
func Split(ctx context.Context, r io.ReaderAt, size int64, opts Options) (*Layout, error) {
	s := &splitter{opts: opts}
	n, err := s.space(ctx, s.watch(r), size, place{budget: min(size, 1<<40)*maxExpansion + freeExpansion})
	if failed := s.failed.Load(); failed != nil {
		err = *failed
	}
	if err != nil || n.inner == nil {
		return nil, err
	}
	l := &Layout{spool: opts.Spool}
	c := counts{scattered: map[*scattered]int{}}
	l.Parts = l.number(n.inner, &collector{}, &c)
	if len(l.Streams) > maxMembers || c.reconstructions > maxReconstructions {
		return nil, nil
	}
	return l, nil
}

// splitter is one run of Split.
type splitter struct {
	opts   Options
	failed atomic.Pointer[error] // the first error of reading
}

// watch keeps errors of reading apart from what is wrong with a container.
func (s *splitter) watch(r io.ReaderAt) io.ReaderAt { return &watched{s, r} }

var errNegative = errors.New("negative offset")

type watched struct {
	s *splitter
	r io.ReaderAt
}

func (w *watched) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 { // it was read in a malformed directory
		return 0, errNegative
	}
	n, err := w.r.ReadAt(p, off)
	if n == len(p) {
		return n, nil
	}
	if err != nil && !errors.Is(err, io.EOF) {
		w.s.failed.CompareAndSwap(nil, &err)
	}
	return n, err
}

// space takes a run of bytes apart that may be a container.
func (s *splitter) space(ctx context.Context, r io.ReaderAt, size int64, at place) (node, error) {
	whole := node{size: size, name: at.name}
	if at.depth >= maxDepth || size < minMember {
		return whole, nil
	}
	head := make([]byte, min(size, Head))
	if _, err := r.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return whole, err
	}
	find := recogniserOf(head)
	if find == nil {
		return whole, nil
	}
	members, err := find(ctx, s, r, size, at)
	if err != nil || len(members) == 0 {
		return whole, err
	}
	if err := s.resolve(ctx, r, size, members, at); err != nil {
		return whole, err
	}
	end, apart := int64(0), false
	for _, m := range members {
		if m.off > end {
			whole.inner = append(whole.inner, node{size: m.off - end, between: true})
		}
		apart = apart || !m.node.between && !m.node.zero
		if m.node.inner != nil && m.node.reconstruction == nil {
			whole.inner = append(whole.inner, m.node.inner...) // a container that is stored as it is
		} else {
			whole.inner = append(whole.inner, m.node)
		}
		end = m.off + m.node.size
	}
	if end < size {
		whole.inner = append(whole.inner, node{size: size - end, between: true})
	}
	if !apart {
		whole.inner = nil
	}
	return whole, nil
}

// helpers are the goroutines that may decode members beside those that called Split.
var helpers = make(chan struct{}, max(runtime.GOMAXPROCS(0)-1, 1))

// resolve sets the nodes of members of a container of size bytes, with as many
// helpers as are free.
func (s *splitter) resolve(ctx context.Context, r io.ReaderAt, size int64, members []member, at place) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	work := func() {
		for {
			i := int(next.Add(1)) - 1
			if i >= len(members) || ctx.Err() != nil {
				return
			}
			if m := &members[i]; !m.done {
				if err := s.member(ctx, r, m, at.inside(m.name).share(m.size, size)); err != nil {
					cancel(err)
				}
			}
		}
	}
	var wg sync.WaitGroup
	for free := len(members) > 1; free; {
		select {
		case helpers <- struct{}{}:
			wg.Go(func() {
				defer func() { <-helpers }()
				work()
			})
		default:
			free = false
		}
	}
	work()
	wg.Wait()
	return context.Cause(ctx)
}

// inside returns the place of a member of a container.
func (p place) inside(name string) place {
	if p.name != "" && name != "" {
		name = "!" + name
	}
	name = strings.ToValidUTF8(p.name+name, "\uFFFD")
	return place{strings.ToValidUTF8(name[:min(len(name), maxName)], ""), p.depth + 1, p.budget}
}

// share returns the place of a member of size bytes of a container of whole.
func (p place) share(size, whole int64) place {
	p.budget = int64(float64(p.budget) * (float64(size) / float64(whole)))
	return p
}

// member sets the node of a member.
func (s *splitter) member(ctx context.Context, r io.ReaderAt, m *member, at place) (err error) {
	m.done = true
	section := io.NewSectionReader(r, m.off, m.size)
	m.node = node{size: m.size, name: at.name}
	switch {
	case m.size < minMember:
		m.node = node{size: m.size, between: true}
	case m.opaque:
	case m.deflated:
		m.node, err = s.coded(ctx, section, at, decodeDeflate)
	default:
		m.node, err = s.space(ctx, section, m.size, at)
	}
	return err
}

// errTooLarge says that the budget is spent.
var errTooLarge = errors.New("too many plain bytes")

// decoder is deflate.Decode, or the like of it.
type decoder func(w io.Writer, r io.Reader, again io.Writer) (deflate.Result, error)

func decodeLZ4(w io.Writer, r io.Reader, again io.Writer) (deflate.Result, error) {
	result, err := lz4.Decode(w, r, again)
	return deflate.Result{Coded: result.Coded, Plain: result.Plain, Reconstruction: result.Reconstruction, Again: err == nil}, err
}

func decodeDeflate(w io.Writer, r io.Reader, again io.Writer) (deflate.Result, error) {
	b := bufio.NewReader(r)
	if head, _ := b.Peek(coded.Head); coded.OtherCoder(head) {
		return deflate.Result{}, deflate.ErrStream
	}
	return deflate.Decode(w, b, again)
}

func decodeXZ(w io.Writer, r io.Reader, _ io.Writer) (deflate.Result, error) {
	result, err := xz.Decode(w, r)
	return deflate.Result{Coded: result.Coded, Plain: result.Plain, Reconstruction: result.Reconstruction}, err
}

// coded takes a coded stream at the front of r apart. It is as it is where that cannot
// be done.
func (s *splitter) coded(ctx context.Context, r *io.SectionReader, at place, decode decoder) (node, error) {
	asIs := node{size: r.Size(), name: at.name}
	source := &contextReader{ctx: ctx, r: io.NewSectionReader(r, 0, r.Size())}
	plain := &sniffer{s: s, left: at.budget}
	beside := &contextReader{ctx: ctx, r: io.NewSectionReader(r, 0, r.Size())}
	same := &comparer{r: beside}
	result, err := decode(plain, source, same)
	content, spoolErr := plain.close()
	if content != nil {
		defer content.Close()
	}
	switch {
	case source.err != nil || beside.err != nil: // reading failed, or ctx ended
		return asIs, cmp.Or(source.err, beside.err)
	case spoolErr != nil:
		return asIs, spoolErr
	case err != nil || result.Plain < minMember:
		return asIs, nil
	}
	if !result.Again {
		var again io.Reader
		if content != nil {
			again = io.NewSectionReader(s.watch(content), 0, content.Size())
		} else {
			again = coded.NewReader(io.NewSectionReader(r, 0, result.Coded))
		}
		if err := coded.Encode(same, again, result.Reconstruction); err != nil {
			return asIs, ctx.Err()
		}
	}
	if same.n != result.Coded {
		return asIs, nil
	}
	n := node{size: result.Coded, name: at.name, reconstruction: result.Reconstruction}
	inner := node{size: result.Plain, name: at.name}
	if content != nil {
		at = at.share(result.Coded, r.Size()) // others of the same container have theirs
		at.budget -= result.Plain
		if inner, err = s.space(ctx, s.watch(content), result.Plain, at); err != nil {
			return asIs, err
		}
	}
	if n.inner = inner.inner; n.inner == nil {
		n.inner = []node{inner}
	}
	return n, nil
}

// contextReader ends with its context, and keeps the error that ended it.
type contextReader struct {
	ctx context.Context
	r   io.Reader
	err error
}

func (r *contextReader) Read(p []byte) (int, error) {
	if r.err = r.ctx.Err(); r.err != nil {
		return 0, r.err
	}
	n, err := r.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

// sniffer spools plain bytes that may be a container, and drops others.
type sniffer struct {
	s       *splitter
	left    int64 // bytes that there may be
	head    []byte
	decided bool
	w       *io.PipeWriter // to the spool, if there is one
	spooled chan spoolResult
}

type spoolResult struct {
	content Content
	err     error
}

func (w *sniffer) Write(p []byte) (int, error) {
	if w.left -= int64(len(p)); w.left < 0 {
		return 0, errTooLarge
	}
	out := p
	if !w.decided {
		w.head = append(w.head, p...)
		if len(w.head) < Head {
			return len(p), nil
		}
		w.decide()
		out, w.head = w.head, nil
	}
	if w.w != nil {
		if _, err := w.w.Write(out); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

func (w *sniffer) decide() {
	w.decided = true
	if w.s.opts.Spool == nil || !Recognise(w.head) {
		return
	}
	var r *io.PipeReader
	r, w.w = io.Pipe()
	w.spooled = make(chan spoolResult, 1)
	go func() {
		content, err := w.s.opts.Spool(r, 0)
		r.CloseWithError(err)
		w.spooled <- spoolResult{content, err}
	}()
}

// close returns the spooled bytes, if they were.
func (w *sniffer) close() (Content, error) {
	if w.w == nil {
		return nil, nil
	}
	w.w.Close()
	result := <-w.spooled
	return result.content, result.err
}

// comparer takes bytes that must be those of r.
type comparer struct {
	r   io.Reader
	n   int64 // how many were the same
	buf [16 << 10]byte
}

var errDiffers = errors.New("differs")

func (c *comparer) Write(p []byte) (int, error) {
	for at := 0; at < len(p); {
		n := min(len(p)-at, len(c.buf))
		if _, err := io.ReadFull(c.r, c.buf[:n]); err != nil {
			return at, err
		}
		if !bytes.Equal(c.buf[:n], p[at:at+n]) {
			return at, errDiffers
		}
		at += n
		c.n += int64(n)
	}
	return len(p), nil
}

// collector gathers what stands between members into streams.
type collector struct {
	stream int
	open   bool
}

// counts are of a layout.
type counts struct {
	names, reconstructions int
	scattered              map[*scattered]int // their numbers
}

// number gives streams their numbers, in the order in which they begin.
func (l *Layout) number(nodes []node, between *collector, c *counts) []Part {
	var parts []Part
	for _, n := range nodes {
		switch {
		case n.reconstruction != nil:
			// What is between members within is of another kind than what is here.
			parts = append(parts, Part{Size: n.size, Reconstruction: n.reconstruction, Inner: l.number(n.inner, &collector{}, c)})
			c.reconstructions += len(n.reconstruction)
		case n.zero:
			parts = append(parts, Part{Size: n.size, Zero: true})
		case n.scattered != nil:
			i, ok := c.scattered[n.scattered]
			if !ok {
				i = len(l.Streams)
				c.scattered[n.scattered] = i
				name := n.scattered.name
				if c.names += len(name); c.names > maxNames {
					name = fmt.Sprintf("member %d", i)
				}
				l.Streams = append(l.Streams, Stream{Name: name, Size: n.scattered.size})
			}
			parts = append(parts, Part{Size: n.size, Stream: i, Off: n.off})
		case n.between && n.size <= structureSize:
			if !between.open || l.Streams[between.stream].Size+n.size > structureSize {
				*between = collector{len(l.Streams), true}
				l.Streams = append(l.Streams, Stream{})
			}
			s := &l.Streams[between.stream]
			if k := len(parts) - 1; k >= 0 && !parts[k].Deflated() && !parts[k].Zero && parts[k].Stream == between.stream {
				parts[k].Size += n.size
				s.Size += n.size
				continue
			}
			parts = append(parts, Part{Size: n.size, Stream: between.stream, Off: s.Size})
			s.Size += n.size
		default:
			if n.name == "" {
				n.name = "content" // what has no name is between members
			}
			if n.between {
				n.name = fmt.Sprintf("between members, at %d", len(l.Streams))
			}
			if c.names += len(n.name); c.names > maxNames {
				n.name = fmt.Sprintf("member %d", len(l.Streams))
			}
			parts = append(parts, Part{Size: n.size, Stream: len(l.Streams)})
			l.Streams = append(l.Streams, Stream{Name: n.name, Size: n.size})
		}
	}
	return parts
}
