package pack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/zeebo/blake3"
)

const (
	magic      = "FERRYPK1"
	endMagic   = "FPKE"
	footerSize = 48

	// MaxFrame bounds the plain bytes of a frame: what a reader must be ready to hold.
	MaxFrame = 8 << 20
	// MaxPack bounds a pack, so that frame offsets fit in 32 bits.
	MaxPack = 1 << 30
	// minEntry is the least that a blob takes in the directory.
	minEntry = 1 + 32 + 1
)

// ErrInvalid says that bytes are not a well-formed pack.
var ErrInvalid = errors.New("malformed pack")

// Kind says what a blob is.
type Kind uint8

// The kinds of blobs.
const (
	Chunk  Kind = 1 // key is the BLAKE3-256 of the bytes
	Record Kind = 2 // key is derived from a name; the bytes end in a checksum
)

// Codec says how a frame is compressed.
type Codec uint8

// The codecs of frames.
const (
	Stored Codec = 0
	Zstd   Codec = 1
	// Derived frames hold none of their plain bytes: the store makes them of other
	// chunks.
	Derived Codec = 2
)

// Blob is an entry of the directory.
type Blob struct {
	Kind Kind
	Key  [32]byte
	Off  int // offset in the decoded frame, in bytes
	Size int // plain bytes
}

// Frame is a run of compressed blobs.
type Frame struct {
	Codec  Codec
	Off    int64 // offset in the pack, in bytes
	Stored int   // bytes in the pack
	Plain  int   // bytes when decoded: the sum of the sizes of Blobs
	Blobs  []Blob
}

// Builder assembles a pack in memory. The zero Builder is ready for use.
type Builder struct {
	buf    bytes.Buffer
	frames []Frame
}

// Size returns the bytes gathered so far, without the directory.
func (b *Builder) Size() int { return b.buf.Len() }

// Add appends a frame. The offsets of f and of its blobs are set here; body is
// copied.
func (b *Builder) Add(f Frame, body []byte) {
	if b.buf.Len() == 0 {
		b.buf.WriteString(magic)
	}
	f.Off, f.Stored = int64(b.buf.Len()), len(body)
	layOut(&f)
	b.frames = append(b.frames, f)
	b.buf.Write(body)
}

// layOut sets what follows from the sizes of the blobs.
func layOut(f *Frame) {
	f.Plain = 0
	for i := range f.Blobs {
		f.Blobs[i].Off = f.Plain
		f.Plain += f.Blobs[i].Size
	}
}

// Finish returns the pack, its id, and its frames. The Builder is empty again
// afterwards. It panics when no frame was added.
func (b *Builder) Finish() (data []byte, id [32]byte, frames []Frame) {
	if len(b.frames) == 0 {
		panic("pack: internal error: empty pack")
	}
	dirOff := b.buf.Len()
	b.buf.Write(encodeDirectory(b.frames))
	n := b.buf.Len() - dirOff
	sum := blake3.Sum256(b.buf.Bytes()[dirOff:])
	b.buf.Write(sum[:])
	var tail [16]byte
	binary.LittleEndian.PutUint64(tail[0:], uint64(dirOff))
	binary.LittleEndian.PutUint32(tail[8:], uint32(n))
	copy(tail[12:], endMagic)
	b.buf.Write(tail[:])
	data, frames = b.buf.Bytes(), b.frames
	*b = Builder{}
	b.buf.Grow(len(data)) // the next pack will be about as long
	return data, blake3.Sum256(data), frames
}

// Vary returns a pack of the same blobs under another id, one for each variant:
// it has a frame more, without blobs.
func Vary(data []byte, frames []Frame, variant byte) ([]byte, [32]byte, []Frame) {
	var b Builder
	for _, f := range frames {
		if len(f.Blobs) > 0 {
			b.Add(f, data[f.Off:f.Off+int64(f.Stored)])
		}
	}
	b.Add(Frame{Codec: Stored}, []byte{variant})
	return b.Finish()
}

func encodeDirectory(frames []Frame) []byte {
	dir := binary.AppendUvarint(nil, uint64(len(frames)))
	for _, f := range frames {
		dir = append(dir, byte(f.Codec))
		dir = binary.AppendUvarint(dir, uint64(f.Stored))
		dir = binary.AppendUvarint(dir, uint64(len(f.Blobs)))
		for _, blob := range f.Blobs {
			dir = append(dir, byte(blob.Kind))
			dir = append(dir, blob.Key[:]...)
			dir = binary.AppendUvarint(dir, uint64(blob.Size))
		}
	}
	return dir
}

// ReadFrames reads the directory of a pack of the given size through readAt,
// which must fill its argument or fail. Errors of readAt are returned as they
// are; malformed bytes give an error matching ErrInvalid.
func ReadFrames(size int64, readAt func(p []byte, off int64) error) ([]Frame, error) {
	if size < int64(len(magic)+footerSize) || size > MaxPack {
		return nil, fmt.Errorf("%w: %d bytes long", ErrInvalid, size)
	}
	var head [len(magic)]byte
	if err := readAt(head[:], 0); err != nil {
		return nil, err
	}
	if string(head[:]) != magic {
		return nil, fmt.Errorf("%w: magic %q, want %q", ErrInvalid, head[:], magic)
	}
	var foot [footerSize]byte
	if err := readAt(foot[:], size-footerSize); err != nil {
		return nil, err
	}
	dirOff := binary.LittleEndian.Uint64(foot[32:])
	n := binary.LittleEndian.Uint32(foot[40:])
	if string(foot[44:]) != endMagic {
		return nil, fmt.Errorf("%w: end %q, want %q", ErrInvalid, foot[44:], endMagic)
	}
	if dirOff < uint64(len(magic)) || dirOff > uint64(size) || dirOff+uint64(n)+footerSize != uint64(size) {
		return nil, fmt.Errorf("%w: directory of %d bytes at %d in %d bytes", ErrInvalid, n, dirOff, size)
	}
	dir := make([]byte, n)
	if err := readAt(dir, int64(dirOff)); err != nil {
		return nil, err
	}
	if blake3.Sum256(dir) != [32]byte(foot[:32]) {
		return nil, fmt.Errorf("%w: directory does not match its checksum", ErrInvalid)
	}
	return decodeDirectory(dir, int64(dirOff))
}

// decodeDirectory decodes a directory whose frames fill [8, dirOff).
func decodeDirectory(dir []byte, dirOff int64) ([]Frame, error) {
	d := decoder{b: dir}
	off := int64(len(magic))
	nFrames := d.count(3)
	frames := make([]Frame, 0, nFrames)
	for range nFrames {
		f := Frame{Codec: Codec(d.byte()), Off: off, Stored: d.size(MaxFrame + MaxFrame/128 + 1024)}
		nBlobs := d.count(minEntry)
		f.Blobs = make([]Blob, 0, nBlobs)
		for range nBlobs {
			f.Blobs = append(f.Blobs, Blob{Kind: Kind(d.byte()), Key: d.key(), Size: d.size(MaxFrame)})
		}
		layOut(&f)
		off += int64(f.Stored)
		if d.err == nil && f.Plain > MaxFrame {
			d.err = fmt.Errorf("%w: frame of %d plain bytes", ErrInvalid, f.Plain)
		}
		if d.err != nil {
			return nil, d.err
		}
		frames = append(frames, f)
	}
	if d.err == nil && (len(d.b) != 0 || off != dirOff) {
		d.err = fmt.Errorf("%w: %d bytes behind the directory's end, frames end at %d, not %d", ErrInvalid, len(d.b), off, dirOff)
	}
	if d.err != nil {
		return nil, d.err
	}
	return frames, nil
}

// decoder takes fields off the front of b; its first error sticks.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s with %d bytes left", ErrInvalid, what, len(d.b))
	}
	d.b = nil
}

func (d *decoder) byte() byte {
	if len(d.b) < 1 {
		d.fail("missing byte")
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) key() (k [32]byte) {
	if len(d.b) < len(k) {
		d.fail("missing key")
		return k
	}
	copy(k[:], d.b)
	d.b = d.b[len(k):]
	return k
}

func (d *decoder) size(limit int) int {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || n > 1 && d.b[n-1] == 0 || v > uint64(limit) { // the shortest form only
		d.fail("bad length")
		return 0
	}
	d.b = d.b[n:]
	return int(v)
}

// count reads a number of things that take at least each bytes.
func (d *decoder) count(each int) int {
	n := d.size(1 << 30)
	if n > len(d.b)/each {
		d.fail("bad count")
		return 0
	}
	return n
}
