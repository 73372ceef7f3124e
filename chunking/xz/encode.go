package xz

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"

	"ferry/chunking/rangecoder"
)

// Encode writes the stream that Decode took apart: src gives its plain bytes, all
// and no more. Errors match [ErrReconstruction], or come from src or w. A
// reconstruction of other plain bytes gives another stream or an error: compare
// the result's digest. Memory is bounded.
func Encode(w io.Writer, src io.Reader, reconstruction []byte) error {
	e := &assembly{records: reconstruction, src: src, w: w, index: index{keep: true}}
	err := e.run()
	if e.choices != nil {
		e.choices.release()
	}
	return err
}

// assembly is one run of Encode.
type assembly struct {
	records []byte // what is left of them
	src     io.Reader
	w       io.Writer
	n       int64 // bytes written

	window  window
	lzma    encoder
	chosen  *rangecoder.Reader
	choices *choices
	hash    hash.Hash
	index   index
	ready   resets
}

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
	check := head[1]
	if e.hash, err = newCheck(check); err != nil {
		return badReconstruction("unknown check")
	}
	n, m := binary.Uvarint(e.records)
	if m <= 0 || n > uint64(len(e.records)-m) {
		return badReconstruction("cut off")
	}
	e.chosen = rangecoder.NewReader(e.records[m : m+int(n)])
	e.choices = newChoices(e.chosen)
	e.records = e.records[m+int(n):]
	if err := e.write(streamHeader(check)); err != nil {
		return err
	}
	for {
		first, err := e.take(1)
		if err != nil {
			return err
		}
		if first[0] == 0 {
			break
		}
		if err := e.block(int(first[0])); err != nil {
			return err
		}
	}
	if len(e.records) > 0 || !e.chosen.Ended() {
		return badReconstruction("more bytes behind its end, or fewer")
	}
	if n, err := io.ReadFull(e.src, make([]byte, 1)); n > 0 {
		return badReconstruction("there are more plain bytes")
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	x := e.index.bytes()
	if err := e.write(x); err != nil {
		return err
	}
	return e.write(streamFooter(check, int64(len(x))))
}

// take takes n bytes of the records.
func (e *assembly) take(n int) ([]byte, error) {
	if n > len(e.records) {
		return nil, badReconstruction("cut off")
	}
	b := e.records[:n]
	e.records = e.records[n:]
	return b, nil
}

func (e *assembly) write(b []byte) error {
	n, err := e.w.Write(b)
	e.n += int64(n)
	return err
}

// block writes a block, whose header's first byte was taken.
func (e *assembly) block(first int) error {
	rest, err := e.take(4*(first+1) - 1)
	if err != nil {
		return err
	}
	header := append([]byte{byte(first)}, rest...)
	h, err := parseBlockHeader(header)
	if err != nil {
		return badReconstruction(err.Error())
	}
	begin := e.n
	if err := e.write(header); err != nil {
		return err
	}
	e.window.keep = int(min(h.dict, maxDict))
	e.ready = resets{true, true}
	if e.hash != nil {
		e.hash.Reset()
	}
	coded, plain := e.n, int64(0)
	for {
		n, err := e.chunk()
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		plain += int64(n)
	}
	pad := padding(e.n - coded)
	if err := e.write(append(make([]byte, pad), checkSum(e.hash)...)); err != nil {
		return err
	}
	e.index.add(e.n-begin-int64(pad), plain)
	return nil
}

// chunk writes a chunk, and returns of how many plain bytes it is: 0 at the end.
func (e *assembly) chunk() (int, error) {
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
func (e *assembly) need(n int) error {
	w := &e.window
	w.room(n)
	w.buf = w.buf[:w.pos+n]
	m, err := io.ReadFull(e.src, w.buf[w.pos:])
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return badReconstruction("there are fewer plain bytes")
	}
	if e.hash != nil {
		e.hash.Write(w.buf[w.pos:][:m])
	}
	return err
}

func (e *assembly) stored(control byte, size []byte) error {
	w := &e.window
	plain := w.buf[w.pos:]
	w.pos = len(w.buf)
	if err := e.write([]byte{control, size[0], size[1]}); err != nil {
		return err
	}
	return e.write(plain)
}

func (e *assembly) coded(control byte, size []byte) error {
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
	e.lzma.rangeEncoder.reset()
	w := &e.window
	for w.pos < len(w.buf) {
		t := e.choices.token(w, token{})
		switch n := int(t.n); {
		case n > min(maxMatch, len(w.buf)-w.pos), t.kind == kindMatch && t.dist >= uint32(w.back(w.pos)):
			return badReconstruction("a match beyond the end, or from before the begin")
		case e.lzma.len() > maxCoded || e.chosen.Behind():
			return badReconstruction("a chunk too long, or choices cut off")
		}
		e.lzma.token(w, t)
		w.pos += int(t.n)
	}
	coded := e.lzma.finish()
	if len(coded) > maxCoded {
		return badReconstruction("a chunk too long")
	}
	head := append([]byte{control}, size...)
	head = append(binary.BigEndian.AppendUint16(head, uint16(len(coded)-1)), props...)
	if err := e.write(head); err != nil {
		return err
	}
	return e.write(coded)
}
