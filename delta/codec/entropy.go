package codec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"
	brotli "github.com/molecule-man/go-brrr"
)

// Methods of a packed stream.
const (
	packStored     = 0
	packZstd       = 1
	packBrotli     = 2
	packBrotliDict = 3 // with the base as dictionary
	packMixed      = 4 // by context mixing, of literals only
)

// maxBrotli is the size in bytes up to which brotli's slow search is worth it: it
// takes a second for a megabyte.
func (e Effort) maxBrotli() int {
	if e == Max {
		return MaxSize
	}
	return 8 << 20
}

// maxDict is the size in bytes up to which the base is tried as a dictionary: brotli
// indexes all of it.
const maxDict = 32 << 20

// appendStream appends a stream as method, plain size, packed size and packed
// bytes, packed as small as the effort allows. dict may help.
func appendStream(dst, plain, dict []byte, effort Effort) []byte {
	best, method := plain, byte(packStored)
	try := func(m byte, packed []byte) {
		if len(packed) < len(best) {
			best, method = packed, m
		}
	}
	switch {
	case len(plain) < 8:
	case effort == Fast || len(plain) > effort.maxBrotli():
		if compressible(plain) {
			try(packZstd, encodeZstd(plain))
		}
	default:
		try(packBrotli, encodeBrotli(plain, nil))
		if len(dict) > 0 && len(dict) <= maxDict {
			try(packBrotliDict, encodeBrotli(plain, dict))
		}
	}
	return appendPacked(dst, method, len(plain), best)
}

func appendPacked(dst []byte, method byte, plain int, packed []byte) []byte {
	dst = append(dst, method)
	dst = binary.AppendUvarint(dst, uint64(plain))
	if method != packStored {
		dst = binary.AppendUvarint(dst, uint64(len(packed)))
	}
	return append(dst, packed...)
}

// appendText appends a stream as appendStream does, or by context mixing where that
// takes less.
func appendText(dst, plain []byte, effort Effort) []byte {
	if len(plain) < leastMixed || len(plain) > maxMixed || !IsText(plain) {
		return appendStream(dst, plain, nil, effort)
	}
	mixed := appendPacked(nil, packMixed, len(plain), encodeMixed(plain))
	if len(plain) >= surelyMixed && len(mixed) < len(plain)/2 {
		return append(dst, mixed...)
	}
	if out := appendStream(dst, plain, nil, effort); len(out)-len(dst) <= len(mixed) {
		return out
	}
	return append(dst, mixed...)
}

// stream takes a packed stream of at most limit plain bytes.
func (r *reader) stream(limit int) []byte {
	s, size := r.streamReader(limit, nil)
	if r.err != nil {
		return nil
	}
	// Memory grows with what is decoded, not with what is claimed.
	var buf bytes.Buffer
	if n, err := io.Copy(&buf, s); err != nil || n != int64(size) {
		r.fail(fmt.Sprintf("stream gives %d bytes, want %d: %v", n, size, err))
		return nil
	}
	return buf.Bytes()
}

// streamReader takes a packed stream of at most limit plain bytes, to be unpacked
// while it is read.
func (r *reader) streamReader(limit int, dict []byte) (io.Reader, int) {
	method := r.byte()
	size := r.upTo(uint64(max(limit, 0)))
	n := size
	if method != packStored {
		n = r.upTo(uint64(len(r.b)))
	}
	coded := r.bytes(n)
	packed := bytes.NewReader(coded)
	var dec io.Reader
	var err error
	switch {
	case method == packStored:
		return packed, size
	case method == packZstd:
		dec, err = zstd.NewReader(packed, decoderOptions(size)...)
	case method == packBrotli:
		dec, err = newBrotliReader(packed, nil)
	case method == packBrotliDict && len(dict) > 0:
		dec, err = newBrotliReader(packed, dict)
	case method == packMixed && size <= maxMixed:
		var plain []byte
		if plain, err = decodeMixed(coded, size); err == nil {
			return bytes.NewReader(plain), size
		}
	default:
		err = fmt.Errorf("unknown method %d of a stream", method)
	}
	if err != nil {
		r.fail(err.Error())
		return nil, 0
	}
	return io.LimitReader(dec, int64(size)+1), size
}

// encodeBrotli compresses as hard as the format allows (RFC 7932). The dictionary
// stands before the bytes, as in "Shared Brotli Compressed Data Format" (RFC 9841).
func encodeBrotli(plain, dict []byte) []byte {
	opts := brotli.WriterOptions{LGWin: min(max(bits.Len(uint(len(plain)))+1, 10), 24), SizeHint: uint(len(plain))}
	var buf bytes.Buffer
	var err error
	if len(dict) > 0 {
		var d *brotli.PreparedDictionary
		if d, err = brotli.PrepareDictionary(dict); err == nil {
			opts.Dictionaries = []*brotli.PreparedDictionary{d}
		}
	}
	if err == nil {
		var w *brotli.Writer
		if w, err = brotli.NewWriterOptions(&buf, 11, opts); err == nil {
			if _, err = w.Write(plain); err == nil {
				err = w.Close()
			}
		}
	}
	if err != nil {
		panic("codec: internal error: " + err.Error())
	}
	return buf.Bytes()
}

func newBrotliReader(r io.Reader, dict []byte) (io.Reader, error) {
	var opts brotli.ReaderOptions
	if len(dict) > 0 {
		opts.Dictionaries = [][]byte{dict}
	}
	return brotli.NewReaderOptions(r, opts)
}

func decodeBrotli(dst, packed, dict []byte, size int) ([]byte, error) {
	start := len(dst)
	dst = slices.Grow(dst, size)[:start+size]
	r, err := newBrotliReader(bytes.NewReader(packed), dict)
	if err != nil {
		return nil, err
	}
	if n, err := io.ReadFull(r, dst[start:]); err != nil {
		return nil, fmt.Errorf("offset %d: %w", n, err)
	}
	if n, err := r.Read(make([]byte, 1)); n > 0 || err != io.EOF {
		return nil, errors.New("gives more than it should")
	}
	return dst, nil
}

// encoders are zstd encoders to be used again: making one costs more than coding a
// few kilobytes.
var encoders sync.Map // of *sync.Pool by encoderKind

type encoderKind struct {
	level  zstd.EncoderLevel
	window int
}

// zstdOf returns what zstd makes of plain.
func zstdOf(plain []byte, level zstd.EncoderLevel) []byte {
	kind := encoderKind{level, windowFor(len(plain))}
	pool, _ := encoders.LoadOrStore(kind, &sync.Pool{New: func() any {
		enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(kind.level), zstd.WithWindowSize(kind.window),
			zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false), zstd.WithZeroFrames(true), zstd.WithLowerEncoderMem(true))
		if err != nil {
			panic("codec: internal error: " + err.Error())
		}
		return enc
	}})
	enc := pool.(*sync.Pool).Get().(*zstd.Encoder)
	defer pool.(*sync.Pool).Put(enc)
	return enc.EncodeAll(plain, make([]byte, 0, len(plain)/4+64))
}

// encodeZstd compresses as hard as the library can.
func encodeZstd(plain []byte) []byte { return zstdOf(plain, zstd.SpeedBestCompression) }

// maxFrameWindow bounds the window of a zstd frame, in bytes.
const maxFrameWindow = 16 << 20

// windowFor returns the least power of two that spans n bytes, within bounds.
func windowFor(n int) int {
	return min(max(zstd.MinWindowSize, 1<<bits.Len(uint(max(n, 1)-1))), maxFrameWindow)
}

func decoderOptions(size int) []zstd.DOption {
	return []zstd.DOption{
		zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(maxFrameWindow), zstd.WithDecoderMaxMemory(uint64(max(size, 1<<10))),
	}
}

func decodeZstd(dst, coded []byte, size int) ([]byte, error) {
	// The frame must say how long it is, which the decoder then holds it to. One
	// of less than 256 bytes need not (RFC 8878, section 3.1.1.1.1).
	var header zstd.Header
	if err := header.Decode(coded); err != nil {
		return nil, err
	}
	if header.HasFCS && header.FrameContentSize != uint64(size) || !header.HasFCS && size >= 256 {
		return nil, fmt.Errorf("frame is not of %d bytes", size)
	}
	dec, err := zstd.NewReader(nil, decoderOptions(size)...)
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	return dec.DecodeAll(coded, dst)
}
