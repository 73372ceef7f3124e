package xz

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"

	"ferry/chunking/rangecoder"
)

// Encode writes the stream that Decode took apart: src gives its plain bytes, all
// and no more. Blocks that say how long they are, as those of encoders with several threads
// do, are made beside one another. Errors match [ErrReconstruction], or come from src or w. A
// reconstruction of other plain bytes gives another stream or an error: compare
// the result's digest. Memory is bounded.
func Encode(w io.Writer, src io.Reader, reconstruction []byte) error {
	e := &assembly{in: reconstruction, src: src, w: w, index: index{keep: true}}
	err := e.run()
	for _, j := range e.jobs {
		<-j.done
		<-slots
	}
	return err
}

// assembly is one run of Encode.
type assembly struct {
	in     []byte // what is left of the reconstruction
	src    io.Reader
	w      io.Writer
	check  byte
	blocks int64
	plain  int64
	index  index
	jobs   []*job // in order
}

// block is what a reconstruction has of a block.
type block struct {
	header          []byte
	sizes           blockHeader
	chosen, records []byte
}

// job is a block that is made beside others.
type job struct {
	done            chan struct{}
	coded           bytes.Buffer
	unpadded, plain int64
	err             error
}

const (
	// heldBlock is how many plain bytes a block may have that is made beside others.
	heldBlock = 32 << 20
	// maxJobs bounds how many are held, of all streams: each takes about 70 MiB.
	maxJobs = 2
)

var slots = make(chan struct{}, maxJobs)

func badReconstruction(reason string) error {
	return fmt.Errorf("%w: %s", ErrReconstruction, reason)
}

func (e *assembly) run() error {
	head, err := e.take(2)
	if err != nil {
		return err
	}
	if head[0] != Version {
		return badReconstruction(fmt.Sprintf("version %d, not %d", head[0], Version))
	}
	e.check = head[1]
	if _, err := newCheck(e.check); err != nil {
		return badReconstruction("unknown check")
	}
	if _, err := e.w.Write(streamHeader(e.check)); err != nil {
		return err
	}
	for {
		first, err := e.take(1)
		if err != nil {
			return err
		}
		if first[0] == noBlock {
			break
		}
		if err := e.block(first[0]); err != nil {
			return err
		}
	}
	if len(e.in) > 0 {
		return badReconstruction("more bytes behind its end")
	}
	if err := e.drain(0); err != nil {
		return err
	}
	if n, err := io.ReadFull(e.src, make([]byte, 1)); n > 0 {
		return badReconstruction("there are more plain bytes")
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	x := e.index.bytes()
	if _, err := e.w.Write(x); err != nil {
		return err
	}
	_, err = e.w.Write(streamFooter(e.check, int64(len(x))))
	return err
}

// take takes n bytes of the reconstruction.
func (e *assembly) take(n int) ([]byte, error) { return takeFrom(&e.in, n) }

func takeFrom(from *[]byte, n int) ([]byte, error) {
	if n > len(*from) {
		return nil, badReconstruction("cut off")
	}
	b := (*from)[:n]
	*from = (*from)[n:]
	return b, nil
}

// counted takes bytes, and before them their number.
func (e *assembly) counted() ([]byte, error) {
	n, m := binary.Uvarint(e.in)
	if m <= 0 || n > uint64(len(e.in)-m) {
		return nil, badReconstruction("cut off")
	}
	e.in = e.in[m:]
	return e.take(int(n))
}

// block makes a block, or begins to, whose header's first byte was taken.
func (e *assembly) block(first byte) error {
	rest, err := e.take(4*(int(first)+1) - 1)
	if err != nil {
		return err
	}
	b := block{header: append([]byte{first}, rest...)}
	if b.sizes, err = parseBlockHeader(b.header); err != nil {
		return badReconstruction(err.Error())
	}
	if b.chosen, err = e.counted(); err != nil {
		return err
	}
	if b.records, err = e.counted(); err != nil {
		return err
	}
	if tooMany(e.blocks, e.plain) {
		return badReconstruction("its blocks are small")
	}
	e.blocks++
	n := b.sizes.plain
	held := n >= 0 && n <= heldBlock
	for held && !takeSlot() { // never waiting: plain bytes may come from another stream that is made
		if held = len(e.jobs) > 0; held {
			if err := e.drain(len(e.jobs) - 1); err != nil {
				return err
			}
		}
	}
	if !held {
		if err := e.drain(0); err != nil {
			return err
		}
		unpadded, plain, err := b.encode(e.w, e.src, nil, e.check)
		e.index.add(unpadded, plain)
		e.plain += plain
		return err
	}
	j := &job{done: make(chan struct{})}
	e.jobs = append(e.jobs, j)
	plain := make([]byte, n)
	if err := readPlain(e.src, plain); err != nil {
		close(j.done)
		return err
	}
	e.plain += n
	go func() {
		defer close(j.done)
		j.unpadded, j.plain, j.err = b.encode(&j.coded, nil, plain, e.check)
		if j.err == nil && j.plain != n {
			j.err = badReconstruction("a block of another size")
		}
	}()
	return nil
}

// takeSlot takes one of the slots, if there is one.
func takeSlot() bool {
	select {
	case slots <- struct{}{}:
		return true
	default:
		return false
	}
}

// drain writes the oldest jobs' blocks out until there are few enough.
func (e *assembly) drain(jobs int) error {
	for len(e.jobs) > jobs {
		j := e.jobs[0]
		<-j.done
		<-slots
		e.jobs = e.jobs[1:]
		if j.err != nil {
			return j.err
		}
		if _, err := e.w.Write(j.coded.Bytes()); err != nil {
			return err
		}
		e.index.add(j.unpadded, j.plain)
	}
	return nil
}

// blockAssembly makes a block.
type blockAssembly struct {
	records []byte    // what is left of them
	src     io.Reader // of the plain bytes; or all of them:
	all     []byte
	w       io.Writer
	n       int64 // bytes written

	window  window
	lzma    encoder
	chosen  *rangecoder.Reader
	choices *choices
	hash    hash.Hash
	ready   resets
}

// encode makes the block of the plain bytes of src, or of those in all. It returns its size but
// for padding, and how many plain bytes it has.
func (b *block) encode(w io.Writer, src io.Reader, all []byte, check byte) (unpadded, plain int64, err error) {
	e := &blockAssembly{records: b.records, src: src, all: all, w: w, chosen: rangecoder.NewReader(b.chosen), ready: resets{true, true}}
	if e.hash, err = newCheck(check); err != nil {
		return 0, 0, badReconstruction("unknown check")
	}
	e.choices = newChoices(e.chosen)
	defer e.choices.release()
	e.window.begin(b.sizes)
	if err := e.write(b.header); err != nil {
		return 0, 0, err
	}
	for {
		n, err := e.chunk()
		if err != nil {
			return 0, 0, err
		}
		if n == 0 {
			break
		}
		plain += int64(n)
	}
	if len(e.records) > 0 || !e.chosen.Ended() {
		return 0, 0, badReconstruction("more bytes behind the end of a block, or fewer")
	}
	pad := padding(e.n - int64(len(b.header)))
	err = e.write(append(make([]byte, pad), checkSum(e.hash)...))
	return e.n - int64(pad), plain, err
}

func (e *blockAssembly) take(n int) ([]byte, error) { return takeFrom(&e.records, n) }

func (e *blockAssembly) write(b []byte) error {
	if most := len(e.all) + len(e.all)/8 + 1<<20; e.src == nil && e.n+int64(len(b)) > int64(most) {
		return badReconstruction("a block too long") // which is held in memory
	}
	n, err := e.w.Write(b)
	e.n += int64(n)
	return err
}

// chunk writes a chunk, and returns of how many plain bytes it is: 0 at the end.
func (e *blockAssembly) chunk() (int, error) {
	b, err := e.take(1)
	if err != nil {
		return 0, err
	}
	control := b[0]
	if control == chunkEnd {
		return 0, e.write(b)
	}
	if !e.ready.use(control) {
		return 0, badReconstruction("a chunk's first byte")
	}
	if beginsDict(control) {
		e.window.forget()
	}
	size, err := e.take(2)
	if err != nil {
		return 0, err
	}
	n := int(binary.BigEndian.Uint16(size)) + 1
	if control >= chunkLZMA {
		n += int(control&0x1f) << 16
	}
	if err := e.need(n); err != nil {
		return 0, err
	}
	e.choices.begin(control)
	if control < chunkLZMA {
		err = e.stored(control, size)
	} else {
		err = e.coded(control, size)
	}
	e.choices.end(&e.window)
	return n, err
}

// need reads n plain bytes.
func (e *blockAssembly) need(n int) error {
	w := &e.window
	if e.src == nil {
		if w.pos+n > len(e.all) {
			return badReconstruction("there are fewer plain bytes")
		}
		w.buf = e.all[:w.pos+n]
	} else {
		w.room(n)
		w.buf = w.buf[:w.pos+n]
		if err := readPlain(e.src, w.buf[w.pos:]); err != nil {
			return err
		}
	}
	if e.hash != nil {
		e.hash.Write(w.buf[w.pos:])
	}
	return nil
}

// readPlain reads all of b.
func readPlain(src io.Reader, b []byte) error {
	_, err := io.ReadFull(src, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return badReconstruction("there are fewer plain bytes")
	}
	return err
}

func (e *blockAssembly) stored(control byte, size []byte) error {
	w := &e.window
	plain := w.buf[w.pos:]
	w.pos = len(w.buf)
	if err := e.write([]byte{control, size[0], size[1]}); err != nil {
		return err
	}
	return e.write(plain)
}

func (e *blockAssembly) coded(control byte, size []byte) error {
	var props []byte
	if control >= chunkLZMA+chunkProps {
		var err error
		if props, err = e.take(1); err != nil {
			return err
		}
		if !e.lzma.setProps(props[0]) {
			return badReconstruction("properties of LZMA")
		}
	}
	if control >= chunkLZMA+chunkReset {
		e.lzma.model.reset()
	}
	e.lzma.Reset()
	w := &e.window
	for w.pos < len(w.buf) {
		t := e.choices.token(w, token{})
		switch n := int(t.n); {
		case n > min(maxMatch, len(w.buf)-w.pos), t.kind == kindMatch && t.dist >= uint32(w.back(w.pos)):
			return badReconstruction("a match beyond the end, or from before the begin")
		case e.lzma.Len() > maxCoded || e.chosen.Behind():
			return badReconstruction("a chunk too long, or choices cut off")
		}
		e.lzma.token(w, t)
		w.pos += int(t.n)
	}
	coded := e.lzma.Finish()
	if 1+len(coded) > maxCoded {
		return badReconstruction("a chunk too long")
	}
	head := append([]byte{control}, size...)
	head = binary.BigEndian.AppendUint16(head, uint16(len(coded))) // and the zero, less one
	head = append(append(head, props...), 0)
	if err := e.write(head); err != nil {
		return err
	}
	return e.write(coded)
}
