package delta

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"ferry/cas"
	"ferry/manifest"
)

// The file that an inventory is sent in: docs/format.md, "Inventory".
const (
	inventoryMagic   = "FRYI"
	inventoryVersion = 1
	inventoryWindow  = 8 << 20
	inventoryWhat    = "inventory"
	// MaxInventory is the usual limit for [ReadInventory], in bytes.
	MaxInventory = 512 << 20
	// maxPieces bounds the runs, streams and instructions of all recipes: those of about
	// 200 GB of files. It bounds the memory of reading to about 700 MiB.
	maxPieces = 8 << 20 // names count, too: one piece for each 16 bytes
	// maxChunk bounds a chunk in bytes, as chunking does.
	maxChunk = 4 << 20
	// maxName bounds the name of a member in bytes.
	maxName = 64 << 10
)

// How a file's recipe is coded.
const (
	codedChunk     = 0 // the file is one chunk
	codedPlain     = 1 // it is one stream
	codedContainer = 2
)

// WriteTo writes the inventory's file. It implements [io.WriterTo]. The same inventory
// always gives the same bytes.
func (v *Inventory) WriteTo(w io.Writer) (int64, error) {
	data, err := v.Encode()
	if err != nil {
		return 0, err
	}
	n, err := w.Write(data)
	return int64(n), err
}

// Encode returns the bytes of the inventory's file.
func (v *Inventory) Encode() ([]byte, error) {
	body, err := v.body()
	if err != nil {
		return nil, err
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedBetterCompression),
		zstd.WithEncoderCRC(false), zstd.WithWindowSize(inventoryWindow), zstd.WithZeroFrames(true))
	if err != nil {
		return nil, err
	}
	defer enc.Close()
	b := append([]byte(inventoryMagic), inventoryVersion)
	b = binary.AppendUvarint(b, uint64(len(body)))
	b = enc.EncodeAll(body, b)
	sum := cas.Sum(b)
	return append(b, sum[:]...), nil
}

// body returns what is packed in the file.
func (v *Inventory) body() ([]byte, error) {
	policy, err := json.Marshal(v.Params)
	if err != nil {
		return nil, err
	}
	files, err := distinctFiles(v.Manifest)
	if err != nil {
		return nil, err
	}
	w := inventoryWriter{index: map[cas.Digest]int{}}
	for i, e := range files {
		w.index[e.Digest] = i
	}
	for _, e := range files {
		r := v.recipes[e.Digest]
		if r == nil {
			return nil, fmt.Errorf("%s: %w", e.Path, ErrNoContent)
		}
		w.recipe(r)
	}
	b := appendString(nil, v.Label)
	b = appendString(b, v.Number)
	b = appendString(b, string(policy))
	b = appendString(b, string(v.Manifest.Encode()))
	b = binary.AppendUvarint(b, uint64(len(w.keys)))
	for _, run := range w.keys {
		b = append(b, run.Key[:]...)
	}
	for _, run := range w.keys {
		b = binary.AppendUvarint(b, uint64(run.Size))
	}
	return append(b, w.b...), nil
}

// oneStream reports whether a file is one stream as it is.
func oneStream(r *manifest.Recipe) bool {
	return len(r.Streams) == 1 && r.Streams[0].Between() && len(r.Layout) == 1 && r.Layout[0].Kind == manifest.OpSlice &&
		r.Layout[0].Off == 0 && r.Layout[0].Size == r.Size && r.Streams[0].Size == r.Size
}

// inventoryWriter codes recipes. Chunks are numbered: first the files' digests, then
// other keys as they come.
type inventoryWriter struct {
	b     []byte
	index map[cas.Digest]int
	keys  []manifest.Run // those that are no file's digest
	next  int            // the number of the chunk most likely to come
	name  string         // of the stream before
}

func (w *inventoryWriter) recipe(r *manifest.Recipe) {
	switch {
	case !oneStream(r):
		w.b = append(w.b, codedContainer)
		w.b = binary.AppendUvarint(w.b, uint64(len(r.Streams)))
		for _, s := range r.Streams {
			n := commonFront(w.name, s.Name)
			w.b = appendString(binary.AppendUvarint(w.b, uint64(n)), s.Name[n:])
			w.name = s.Name
			w.runs(s.Runs)
		}
		w.layout(r.Layout, &sliceGuess{ends: make([]int64, len(r.Streams))})
	case len(r.Streams[0].Runs) == 1 && r.Streams[0].Runs[0].Key == r.Digest:
		w.b = append(w.b, codedChunk)
	default:
		w.b = append(w.b, codedPlain)
		w.runs(r.Streams[0].Runs)
	}
}

func (w *inventoryWriter) runs(runs []manifest.Run) {
	w.b = binary.AppendUvarint(w.b, uint64(len(runs)))
	for _, run := range runs {
		if run.Zero() {
			w.b = binary.AppendUvarint(w.b, uint64(run.Size)<<1|1)
			continue
		}
		i, ok := w.index[run.Key]
		if !ok {
			i = len(w.index)
			w.index[run.Key] = i
			w.keys = append(w.keys, run)
		}
		step := int64(i - w.next)
		w.b = binary.AppendUvarint(w.b, uint64(step<<1^step>>63)<<1)
		w.next = i + 1
	}
}

// sliceGuess tells which slice most likely comes next.
type sliceGuess struct {
	stream int     // of the slice before
	ends   []int64 // by stream: the end of its slice before
}

func (w *inventoryWriter) layout(layout []manifest.Op, g *sliceGuess) {
	w.b = binary.AppendUvarint(w.b, uint64(len(layout)))
	for _, o := range layout {
		w.b = append(w.b, byte(o.Kind))
		w.b = binary.AppendUvarint(w.b, uint64(o.Size))
		switch o.Kind {
		case manifest.OpSlice:
			w.b = binary.AppendVarint(w.b, int64(o.Stream-g.stream))
			w.b = binary.AppendVarint(w.b, o.Off-g.ends[o.Stream])
			g.stream, g.ends[o.Stream] = o.Stream, o.Off+o.Size
		case manifest.OpDeflate:
			w.b = appendString(w.b, string(o.Reconstruction))
			w.layout(o.Inner, g)
		}
	}
}

// ReadInventory reads the file of an inventory. Neither it nor what is packed in it
// may be larger than limit bytes; 0 is [MaxInventory]. Errors match ErrInvalid when it
// is malformed. It has no library yet.
func ReadInventory(r io.Reader, limit int64) (*Inventory, error) {
	if limit <= 0 {
		limit = MaxInventory
	}
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	body, err := unpackInventory(data, limit)
	if err != nil {
		return nil, err
	}
	return decodeInventory(body)
}

// unpackInventory checks the file as a whole, and returns what is packed in it.
func unpackInventory(data []byte, limit int64) ([]byte, error) {
	d := planReader{b: data, what: inventoryWhat}
	d.header(inventoryMagic, inventoryVersion)
	size := d.upTo(uint64(limit))
	switch {
	case d.err != nil:
	case int64(len(data)) > limit:
		d.fail("too large")
	case len(d.b) < cas.DigestSize:
		d.fail("cut off")
	case cas.Sum(data[:len(data)-cas.DigestSize]) != cas.Digest(data[len(data)-cas.DigestSize:]):
		d.fail("damaged: its bytes do not have the digest at its end")
	}
	if d.err != nil {
		return nil, d.err
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(inventoryWindow), zstd.WithDecoderMaxMemory(max(size, 1<<10)))
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	body, err := dec.DecodeAll(d.b[:len(d.b)-cas.DigestSize], nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, inventoryWhat, err)
	}
	if uint64(len(body)) != size {
		return nil, fmt.Errorf("%w: %s: %d bytes are packed in it, not %d", ErrInvalid, inventoryWhat, len(body), size)
	}
	return body, nil
}

// inventoryReader is the inverse of inventoryWriter.
type inventoryReader struct {
	planReader
	keys []manifest.Run
	next int
	name string
	left int // pieces that may come
}

// decodeInventory parses what is packed in the file. Every reference in the result is
// within bounds.
func decodeInventory(body []byte) (*Inventory, error) {
	d := &inventoryReader{planReader: planReader{b: body, what: inventoryWhat}, left: maxPieces}
	v := &Inventory{Label: d.string(maxLabel), Number: d.string(maxLabel), recipes: map[cas.Digest]*manifest.Recipe{}}
	policy, coded := d.string(maxLabel), d.bytes(d.count(1))
	if d.err != nil {
		return nil, d.err
	}
	if err := v.setParams([]byte(policy)); err != nil {
		return nil, fmt.Errorf("%w: %s: policy: %w", ErrInvalid, inventoryWhat, err)
	}
	var err error
	if v.Manifest, err = manifest.Decode(coded); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, inventoryWhat, err)
	}
	files, err := distinctFiles(v.Manifest)
	if err != nil {
		return nil, err
	}
	d.readKeys(files)
	for _, e := range files {
		r := d.recipe(e)
		if d.err != nil {
			return nil, d.err
		}
		v.recipes[e.Digest] = r
	}
	if d.err == nil && len(d.b) > 0 {
		d.fail("more bytes behind its end")
	}
	if d.err != nil {
		return nil, d.err
	}
	return v, nil
}

// setParams takes a policy in the one form that is written.
func (v *Inventory) setParams(policy []byte) error {
	if err := json.Unmarshal(policy, &v.Params); err != nil {
		return err
	}
	if err := v.Params.Validate(); err != nil {
		return err
	}
	if again, err := json.Marshal(v.Params); err != nil || string(again) != string(policy) {
		return fmt.Errorf("%.200q is not as it would be written (%v)", policy, err)
	}
	return nil
}

// readKeys reads the keys of chunks behind the files' digests.
func (d *inventoryReader) readKeys(files []manifest.Entry) {
	n := d.count(cas.DigestSize + 1)
	d.keys = make([]manifest.Run, len(files), len(files)+n)
	seen := make(map[cas.Digest]bool, len(files)+n)
	for i, e := range files {
		d.keys[i] = manifest.Run{Key: e.Digest, Size: e.Size}
		seen[e.Digest] = true
	}
	for range n {
		d.keys = append(d.keys, manifest.Run{Key: d.digest()})
	}
	for i := len(files); i < len(d.keys) && d.err == nil; i++ {
		k := &d.keys[i]
		k.Size = int64(d.upTo(maxChunk))
		if k.Size == 0 || k.Key.IsZero() || seen[k.Key] {
			d.fail("bad chunk")
		}
		seen[k.Key] = true
	}
}

// pieces reads a number of things, and counts them.
func (d *inventoryReader) pieces(each int) int {
	n := d.count(each)
	if d.left -= n; d.left < 0 {
		d.fail("too many pieces")
		return 0
	}
	return n
}

func (d *inventoryReader) recipe(e manifest.Entry) *manifest.Recipe {
	r := &manifest.Recipe{Digest: e.Digest, Size: e.Size}
	switch kind := d.byte(); kind {
	case codedChunk:
		if e.Size > maxChunk {
			d.fail("bad chunk")
		}
		r.Streams = []manifest.Stream{{Size: e.Size, Runs: []manifest.Run{{Key: e.Digest, Size: e.Size}}}}
		r.Layout = []manifest.Op{{Kind: manifest.OpSlice, Size: e.Size}}
	case codedPlain:
		r.Streams = []manifest.Stream{d.runs()}
		r.Layout = []manifest.Op{{Kind: manifest.OpSlice, Size: r.Streams[0].Size}}
	case codedContainer:
		for range d.pieces(3) {
			shared := int(d.upTo(uint64(len(d.name))))
			d.name = d.name[:shared] + d.string(maxName)
			if d.left -= len(d.name) / 16; len(d.name) > maxName || d.left < 0 {
				d.fail("names too long")
			}
			s := d.runs()
			s.Name = d.name
			if d.err != nil {
				return nil
			}
			r.Streams = append(r.Streams, s)
		}
		r.Layout = d.layout(r.Streams, &sliceGuess{ends: make([]int64, len(r.Streams))}, 0)
		if d.err == nil && oneStream(r) {
			d.fail("a plain file in another form")
		}
	default:
		d.fail(fmt.Sprintf("unknown form %d of a recipe", kind))
	}
	if d.err == nil && manifest.LayoutSize(r.Layout) != e.Size {
		d.fail("a recipe does not give its file's size")
	}
	return r
}

// runs reads a list of runs, as a stream without a name.
func (d *inventoryReader) runs() (s manifest.Stream) {
	n := d.pieces(1)
	s.Runs = make([]manifest.Run, 0, n)
	for range n {
		v := d.uvarint()
		run := manifest.Run{Size: int64(v >> 1)}
		if v&1 == 0 {
			run = d.chunk(v >> 1)
		}
		if s.Size += run.Size; run.Size <= 0 || s.Size < 0 || s.Size >= 1<<62 {
			d.fail("bad run length")
		}
		if d.err != nil {
			return s
		}
		s.Runs = append(s.Runs, run)
	}
	return s
}

// chunk returns the chunk that is a zigzag number of steps from the likely one.
func (d *inventoryReader) chunk(step uint64) manifest.Run {
	i := int64(d.next) + (int64(step>>1) ^ -int64(step&1))
	if i < 0 || i >= int64(len(d.keys)) || d.keys[i].Size > maxChunk {
		d.fail("no such chunk")
		return manifest.Run{}
	}
	d.next = int(i) + 1
	return d.keys[i]
}

func (d *inventoryReader) layout(streams []manifest.Stream, g *sliceGuess, depth int) (ops []manifest.Op) {
	if depth > maxNesting {
		d.fail("members in members in members")
	}
	total := int64(0)
	for range d.pieces(2) {
		o := manifest.Op{Kind: manifest.OpKind(d.byte()), Size: d.size()}
		switch o.Kind {
		case manifest.OpSlice:
			d.slice(&o, streams, g)
		case manifest.OpZero:
		case manifest.OpDeflate:
			o.Reconstruction = d.bytes(d.count(1))
			o.Inner = d.layout(streams, g, depth+1)
		default:
			d.fail(fmt.Sprintf("unknown layout instruction %d", o.Kind))
		}
		if total += o.Size; o.Size <= 0 || total < 0 || total >= 1<<62 {
			d.fail("bad layout")
		}
		if d.err != nil {
			return nil
		}
		ops = append(ops, o)
	}
	return ops
}

// slice reads which slice of a stream it is.
func (d *inventoryReader) slice(o *manifest.Op, streams []manifest.Stream, g *sliceGuess) {
	stream := int64(g.stream) + d.varint()
	if d.err != nil || stream < 0 || stream >= int64(len(streams)) {
		d.fail("slice of no stream")
		return
	}
	o.Stream = int(stream)
	o.Off = g.ends[stream] + d.varint()
	if size := streams[stream].Size; o.Off < 0 || o.Off > size || o.Size > size-o.Off {
		d.fail("slice outside its stream")
		return
	}
	g.stream, g.ends[stream] = o.Stream, o.Off+o.Size
}
