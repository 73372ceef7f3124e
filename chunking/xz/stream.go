package xz

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"
)

// Control bytes of LZMA2's chunks.
const (
	chunkEnd    = 0
	chunkAnew   = 1 // stored, and the dictionary begins
	chunkStored = 2
	chunkLZMA   = 0x80 // from here on; the low five bits are of its size
	chunkReset  = 0x20 // the state begins anew
	chunkProps  = 0x40 // and its properties follow
	chunkBegin  = 0x60 // and the dictionary begins

	maxChunk = 2 << 20  // plain bytes
	maxCoded = 64 << 10 // coded bytes
)

// stream reads an xz stream.
type stream struct {
	in     counted
	window window
	lzma   decoder
	check  byte
	hash   hash.Hash
	index  index

	header blockHeader
	block  int64 // where its header begins
	coded  int64 // where its coded bytes begin
	plain  int64 // of the block
	inside bool  // a block
	ready  resets
	ended  bool
}

// beginsDict reports whether the dictionary begins with a chunk.
func beginsDict(control byte) bool {
	return control == chunkAnew || control >= chunkLZMA+chunkBegin
}

// resets is what a chunk of LZMA2 must bring, since there was none before.
type resets struct{ dict, props bool }

// use reports whether a chunk brings all that it needs.
func (r *resets) use(control byte) bool {
	switch {
	case beginsDict(control):
		r.dict, r.props = false, true
	case r.dict || control > chunkStored && control < chunkLZMA:
		return false
	}
	if control >= chunkLZMA+chunkProps {
		r.props = false
	}
	return control < chunkLZMA || !r.props
}

func newStream(r io.Reader) *stream {
	return &stream{in: counted{r: bufio.NewReaderSize(r, 64<<10)}, lzma: decoder{in: new(chunkBuffer)}}
}

// piece is a piece of a stream, as it was read. Its plain bytes are those behind the
// window's pos; who reads them moves it.
type piece struct {
	header []byte // of a block, or nil; valid until the next piece
	chunk  []byte // the header of a chunk, but for the size of its coded bytes
	tokens []token
}

func badStream(reason string) error { return fmt.Errorf("%w: %s", ErrStream, reason) }

// begin reads the header of the stream.
func (s *stream) begin() error {
	b, err := s.in.take(headerSize)
	if err != nil {
		return err
	}
	if string(b[:len(magic)]) != magic || crc32.ChecksumIEEE(b[6:8]) != binary.LittleEndian.Uint32(b[8:]) {
		return badStream("its header")
	}
	if b[6] != 0 || b[7] > 15 {
		return fmt.Errorf("%w: unknown flags", ErrCostly)
	}
	s.check = b[7]
	s.hash, err = newCheck(s.check)
	return err
}

// next reads a piece. At the end, whose sums it has compared, it returns io.EOF.
func (s *stream) next() (piece, error) {
	if s.ended {
		return piece{}, io.EOF
	}
	if s.in.n == 0 {
		if err := s.begin(); err != nil {
			return piece{}, err
		}
	}
	if s.inside {
		return s.chunk()
	}
	b, err := s.in.take(1)
	if err != nil {
		return piece{}, err
	}
	if b[0] == 0 {
		s.ended = true
		if err := s.end(); err != nil {
			return piece{}, err
		}
		return piece{}, io.EOF
	}
	return s.begins(b[0])
}

// begins reads the header of a block, behind its first byte.
func (s *stream) begins(first byte) (piece, error) {
	s.block = s.in.n - 1
	b := s.in.b[:4*(int(first)+1)]
	if err := s.in.fill(b[1:]); err != nil {
		return piece{}, err
	}
	h, err := parseBlockHeader(b)
	if err != nil {
		if errors.Is(err, errHeader) {
			err = badStream(err.Error())
		}
		return piece{}, err
	}
	s.header, s.coded, s.plain, s.inside = h, s.in.n, 0, true
	s.ready = resets{true, true}
	s.window.begin(h)
	if s.hash != nil {
		s.hash.Reset()
	}
	return piece{header: b}, nil
}

// chunk reads a chunk.
func (s *stream) chunk() (p piece, err error) {
	b, err := s.in.take(1)
	if err != nil {
		return p, err
	}
	control := b[0]
	if control == chunkEnd {
		return piece{chunk: []byte{chunkEnd}}, s.blockEnd()
	}
	if !s.ready.use(control) {
		return p, badStream("a chunk's first byte")
	}
	if beginsDict(control) {
		s.window.forget()
	}
	if control < chunkLZMA {
		p, err = s.stored()
	} else {
		p, err = s.coding(control)
	}
	if err != nil {
		return p, err
	}
	plain := s.window.buf[s.window.pos:]
	s.plain += int64(len(plain))
	if s.hash != nil {
		s.hash.Write(plain)
	}
	return p, nil
}

func (s *stream) stored() (piece, error) {
	if err := s.in.fill(s.in.b[1:3]); err != nil {
		return piece{}, err
	}
	b := s.in.b[:3]
	n := int(binary.BigEndian.Uint16(b[1:])) + 1
	s.window.room(n)
	from := len(s.window.buf)
	s.window.buf = s.window.buf[:from+n]
	return piece{chunk: b}, s.in.fill(s.window.buf[from:])
}

func (s *stream) coding(control byte) (piece, error) {
	n := 5
	if control >= chunkLZMA+chunkProps {
		n = 6
	}
	b := s.in.b[:n]
	if err := s.in.fill(b[1:]); err != nil {
		return piece{}, err
	}
	plain := int(control&0x1f)<<16 + int(binary.BigEndian.Uint16(b[1:])) + 1
	coded := int(binary.BigEndian.Uint16(b[3:])) + 1
	if n == 6 && !s.lzma.setProps(b[5]) {
		return piece{}, badStream("properties of LZMA")
	}
	if control >= chunkLZMA+chunkReset {
		s.lzma.model.reset()
	}
	if err := s.in.fill(s.lzma.in[:coded]); err != nil {
		return piece{}, err
	}
	clear(s.lzma.in[coded : coded+32])
	if err := s.lzma.decode(&s.window, coded, plain, s.header.dict); err != nil {
		return piece{}, err
	}
	return piece{chunk: append(b[:3], b[5:]...), tokens: s.lzma.tokens}, nil
}

// blockEnd reads what is behind the last chunk of a block.
func (s *stream) blockEnd() error {
	coded := s.in.n - s.coded
	s.inside = false
	pad := padding(coded)
	b, err := s.in.take(pad)
	if err != nil {
		return err
	}
	if len(bytes.Trim(b, "\x00")) > 0 {
		return badStream("padding of a block")
	}
	if h := s.header; h.coded >= 0 && h.coded != coded || h.plain >= 0 && h.plain != s.plain {
		return badStream("a block of another size")
	}
	want := checkSum(s.hash)
	b, err = s.in.take(len(want))
	if err != nil {
		return err
	}
	if !bytes.Equal(b, want) {
		return badStream("a block's check")
	}
	s.index.add(s.in.n-s.block-int64(pad), s.plain)
	return nil
}

// end reads the index, behind its first byte, and the footer.
func (s *stream) end() error {
	x := &s.index
	head := x.head()
	crc := crc32.ChecksumIEEE(head[:1])
	size := int64(len(head)) + x.size
	part := func(n int) ([]byte, error) {
		b, err := s.in.take(n)
		crc = crc32.Update(crc, crc32.IEEETable, b)
		return b, err
	}
	b, err := part(len(head) - 1)
	if err != nil {
		return err
	}
	same := bytes.Equal(b, head[1:])
	sum := uint64(0)
	for left := x.size; left > 0; left -= int64(len(b)) {
		if b, err = part(int(min(left, maxHeader))); err != nil {
			return err
		}
		sum = crc64.Update(sum, crc64Table, b)
	}
	if b, err = part(padding(size)); err != nil {
		return err
	}
	same = same && sum == x.sum && len(bytes.Trim(b, "\x00")) == 0
	want := crc
	if b, err = s.in.take(4); err != nil {
		return err
	}
	same = same && binary.LittleEndian.Uint32(b) == want
	if b, err = s.in.take(headerSize); err != nil {
		return err
	}
	if !same || !bytes.Equal(b, streamFooter(s.check, size+int64(padding(size))+4)) {
		return badStream("its index or footer")
	}
	return nil
}
