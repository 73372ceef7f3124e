package manifest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"ferry/cas"
)

// Recipe says how a file's bytes come out of a store: its streams, each a list
// of chunks, and a layout that puts slices of streams together.
//
// A plain file has one stream and a layout of one slice. A container file (an
// archive, a disk image) has a stream for each member that is cut on its own.
//
// A file of exactly one chunk, and the empty file, need no recipe.
type Recipe struct {
	Digest  cas.Digest // of the file
	Size    int64      // of the file, in bytes
	Streams []Stream
	Layout  []Op // the sum of their sizes is Size
}

// Stream is a run of bytes that was cut on its own.
type Stream struct {
	Name string // of the member, for people; empty for a plain file
	Size int64  // the sum of the sizes of Runs
	Runs []Run

	ends []int64 // of the runs, in the stream; nil where it was not worked out
}

// index works out where runs end, so that slices are found at once.
func (r *Recipe) index() {
	for i := range r.Streams {
		s := &r.Streams[i]
		s.ends = make([]int64, len(s.Runs))
		end := int64(0)
		for k, run := range s.Runs {
			end += run.Size
			s.ends[k] = end
		}
	}
}

// Between reports whether a container file's stream is of what stands between its
// members.
func (s Stream) Between() bool { return s.Name == "" }

// Run is a piece of a stream: a chunk, or zeros.
type Run struct {
	Key  cas.Digest // zero for a run of zeros
	Size int64      // bytes, at least 1
}

// Zero reports whether the run is of zeros.
func (r Run) Zero() bool { return r.Key.IsZero() }

// Op is an instruction of a layout.
type Op struct {
	Kind   OpKind
	Stream int   // Slice: index into Streams
	Off    int64 // Slice: offset in the stream, in bytes
	Size   int64 // bytes of the file that it gives, at least 1

	Reconstruction []byte // Deflate: for coded.Encode
	Inner          []Op   // Deflate: gives the plain bytes
}

// OpKind says what an Op does. Readers refuse kinds that they do not know.
type OpKind uint8

// The kinds of layout instructions.
const (
	OpSlice   OpKind = 1 // bytes [Off, Off+Size) of a stream
	OpZero    OpKind = 2 // zeros
	OpDeflate OpKind = 3 // what Inner gives, deflated
)

// maxNesting bounds how deep deflated members are in one another.
const maxNesting = 16

// Plain reports whether the file's bytes stand in its streams as they are.
func (r *Recipe) Plain() bool {
	return !slices.ContainsFunc(r.Layout, func(op Op) bool { return op.Kind == OpDeflate })
}

// plainRecipe returns the recipe of a file that is one stream.
func plainRecipe(digest cas.Digest, size int64, runs []Run) *Recipe {
	return &Recipe{
		Digest: digest, Size: size,
		Streams: []Stream{{Size: size, Runs: runs}},
		Layout:  []Op{{Kind: OpSlice, Size: size}},
	}
}

// Container reports whether the file is taken apart into members.
func (r *Recipe) Container() bool { return len(r.Streams) > 1 || !r.Plain() }

// isChunk reports whether the file is one chunk, or empty: it needs no recipe.
func (r *Recipe) isChunk() bool {
	return r.Size == 0 || len(r.Streams) == 1 && len(r.Streams[0].Runs) == 1 && r.Streams[0].Runs[0].Key == r.Digest
}

const (
	recipeMagic   = "FRYR"
	recipeVersion = 1
	// maxRecipe bounds the coded recipe in bytes: one of a plain file of about 500 GB.
	maxRecipe = 512 << 20
	// maxRunSize bounds a data run; larger chunks do not exist.
	maxRunSize = 4 << 20
)

// Encode returns the coded recipe, as docs/format.md has it.
func (r *Recipe) Encode() []byte {
	n := 64
	for _, s := range r.Streams {
		n += 40*len(s.Runs) + len(s.Name) + 16
	}
	b := append(make([]byte, 0, n), recipeMagic...)
	b = append(b, recipeVersion)
	b = append(b, r.Digest[:]...)
	b = binary.AppendUvarint(b, uint64(r.Size))
	b = binary.AppendUvarint(b, uint64(len(r.Streams)))
	for _, s := range r.Streams {
		b = binary.AppendUvarint(b, uint64(len(s.Name)))
		b = append(b, s.Name...)
		b = appendRuns(b, s.Runs)
	}
	return appendLayout(b, r.Layout)
}

func appendLayout(b []byte, layout []Op) []byte {
	b = binary.AppendUvarint(b, uint64(len(layout)))
	for _, op := range layout {
		b = append(b, byte(op.Kind))
		if op.Kind == OpSlice {
			b = binary.AppendUvarint(b, uint64(op.Stream))
			b = binary.AppendUvarint(b, uint64(op.Off))
		}
		b = binary.AppendUvarint(b, uint64(op.Size))
		if op.Kind == OpDeflate {
			b = binary.AppendUvarint(b, uint64(len(op.Reconstruction)))
			b = append(b, op.Reconstruction...)
			b = appendLayout(b, op.Inner)
		}
	}
	return b
}

func appendRuns(b []byte, runs []Run) []byte {
	b = binary.AppendUvarint(b, uint64(len(runs)))
	for _, run := range runs {
		if run.Zero() {
			b = binary.AppendUvarint(b, uint64(run.Size)<<1|1)
			continue
		}
		b = binary.AppendUvarint(b, uint64(run.Size)<<1)
		b = append(b, run.Key[:]...)
	}
	return b
}

// DecodeRecipe parses a coded recipe. Errors match [ErrInvalid]; memory is
// O(len(data)).
func DecodeRecipe(data []byte) (*Recipe, error) {
	d := fieldReader{b: data, what: "recipe"}
	if !bytes.Equal(d.bytes(len(recipeMagic)), []byte(recipeMagic)) {
		d.fail("wrong magic")
	}
	if v := d.byte(); v != recipeVersion {
		d.fail(fmt.Sprintf("version %d, this program reads %d", v, recipeVersion))
	}
	r := &Recipe{Digest: cas.Digest(d.digest())}
	r.Size = d.size()
	nStreams := d.count(2)
	for range nStreams {
		r.Streams = append(r.Streams, d.stream())
	}
	var total int64
	r.Layout, total = d.layout(r.Streams, 0)
	if total != r.Size {
		d.fail(fmt.Sprintf("layout gives %d bytes of %d", total, r.Size))
	}
	if len(d.b) != 0 {
		d.fail("more bytes behind its end")
	}
	if d.err != nil {
		return nil, d.err
	}
	r.index()
	return r, nil
}

func (d *fieldReader) stream() Stream {
	name := string(d.bytes(d.count(1)))
	s := d.runs()
	s.Name = name
	return s
}

// runs reads a list of runs, as a Stream without a name.
func (d *fieldReader) runs() Stream {
	var s Stream
	nRuns := d.count(1)
	s.Runs = make([]Run, 0, min(nRuns, len(d.b)/16))
	for range nRuns {
		head := d.uvarint()
		run := Run{Size: int64(head >> 1)}
		if head&1 == 0 {
			run.Key = d.digest()
			if run.Size > maxRunSize || run.Key.IsZero() {
				d.fail("bad chunk")
			}
		}
		s.Size += run.Size
		if run.Size <= 0 || s.Size < 0 {
			d.fail("bad run length")
		}
		if d.err != nil {
			return s
		}
		s.Runs = append(s.Runs, run)
	}
	return s
}

// layout reads instructions, and returns the bytes that they give.
func (d *fieldReader) layout(streams []Stream, depth int) (ops []Op, total int64) {
	if depth > maxNesting {
		d.fail("members in members in members")
	}
	n := d.count(2)
	for range n {
		op := d.op(streams, depth)
		if total += op.Size; total < 0 || total >= 1<<62 {
			d.fail("layout is too long")
		}
		if d.err != nil {
			return nil, 0
		}
		ops = append(ops, op)
	}
	return ops, total
}

func (d *fieldReader) op(streams []Stream, depth int) Op {
	op := Op{Kind: OpKind(d.byte())}
	switch op.Kind {
	case OpSlice:
		n := d.uvarint()
		op.Off = d.size()
		op.Size = d.size()
		if n >= uint64(len(streams)) {
			d.fail("slice of a stream that is not there")
			return op
		}
		op.Stream = int(n)
		if op.Off > streams[n].Size || op.Size > streams[n].Size-op.Off {
			d.fail("slice outside its stream")
		}
	case OpZero:
		op.Size = d.size()
	case OpDeflate:
		op.Size = d.size()
		op.Reconstruction = d.bytes(d.count(1))
		op.Inner, _ = d.layout(streams, depth+1)
	default:
		d.fail(fmt.Sprintf("unknown layout instruction %d", op.Kind))
	}
	if op.Size <= 0 {
		d.fail("empty layout instruction")
	}
	return op
}

// fieldReader takes fields off the front of b. Its first error sticks, and all
// later fields are zero.
type fieldReader struct {
	b    []byte
	what string
	err  error
}

func (d *fieldReader) fail(reason string) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s: %s", ErrInvalid, d.what, reason)
	}
	d.b = nil
}

func (d *fieldReader) bytes(n int) []byte {
	if n > len(d.b) {
		d.fail("cut off")
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *fieldReader) byte() byte {
	if b := d.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *fieldReader) digest() (v cas.Digest) {
	copy(v[:], d.bytes(len(v)))
	return v
}

func (d *fieldReader) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail("bad number")
		return 0
	}
	d.b = d.b[n:]
	return v
}

// size reads a number of bytes below 2^62.
func (d *fieldReader) size() int64 {
	v := d.uvarint()
	if v >= 1<<62 {
		d.fail("number too large")
		return 0
	}
	return int64(v)
}

// count reads a number of things of which each takes at least min bytes.
func (d *fieldReader) count(min int) int {
	v := d.uvarint()
	if v > uint64(len(d.b)/min) {
		d.fail("count too large")
		return 0
	}
	return int(v)
}
