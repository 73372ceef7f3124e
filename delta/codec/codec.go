package codec

import (
	"errors"
	"fmt"
	"math/bits"

	"github.com/klauspost/compress/zstd"
)

// Kind says how bytes are coded.
type Kind uint8

// The kinds.
const (
	Stored   Kind = 0 // as they are
	Zstd     Kind = 1 // one zstd frame
	ZstdDict Kind = 2 // one zstd frame, the base bytes its raw-content dictionary
)

func (k Kind) String() string {
	switch k {
	case Stored:
		return "stored"
	case Zstd:
		return "zstd"
	case ZstdDict:
		return "zstd against base"
	default:
		return fmt.Sprintf("kind %d", uint8(k))
	}
}

// ErrInvalid says that coded bytes do not decode.
var ErrInvalid = errors.New("malformed patch")

// MaxSize bounds the target bytes, and the base bytes, of one call.
const MaxSize = 64 << 20

// maxFrameWindow bounds the window of a frame, in bytes: it spans target and base.
const maxFrameWindow = 2 * MaxSize

// dictID is the id of the raw dictionary. It stands in no frame: a raw
// dictionary has none, and both sides know what they use.
const dictID = 0

// Encode appends the coded form of target to dst, and says how it is coded.
// base may be empty. The same arguments always give the same bytes.
func Encode(dst, target, base []byte) ([]byte, Kind) {
	if len(target) > MaxSize || len(base) > MaxSize {
		panic("codec: internal error: more than MaxSize bytes")
	}
	best, kind := target, Stored
	if len(base) > 0 {
		if coded := encodeZstd(target, base); len(coded) < len(best) {
			best, kind = coded, ZstdDict
		}
	}
	if mayWinAlone(target, len(best)) {
		if coded := encodeZstd(target, nil); len(coded) < len(best) {
			best, kind = coded, Zstd
		}
	}
	return append(dst, best...), kind
}

// Of what the fast level makes of a target, the slow one saves at most about a
// quarter (docs/design.md, "Windows of a delta").
const slowSaves = 0.72

// mayWinAlone reports whether zstd without the base may need fewer than n bytes:
// a fast attempt tells, and a slow one is not wasted on what is compressed, or on
// what resembles its base.
func mayWinAlone(target []byte, n int) bool {
	if n == len(target) {
		return compressible(target)
	}
	enc := newEncoder(zstd.WithEncoderLevel(zstd.SpeedFastest))
	defer enc.Close()
	return float64(len(enc.EncodeAll(target, nil)))*slowSaves < float64(n)
}

// compressible reports whether a fast attempt at a few places saves at least 2 %:
// what does not even do that is compressed data, and a slow attempt is wasted.
func compressible(b []byte) bool {
	const sample, places = 32 << 10, 4
	if len(b) <= sample*places {
		return true
	}
	enc := newEncoder(zstd.WithEncoderLevel(zstd.SpeedFastest))
	defer enc.Close()
	packed := 0
	for i := range places {
		off := i * (len(b) - sample) / (places - 1)
		packed += len(enc.EncodeAll(b[off:off+sample], nil))
	}
	return packed < sample*places*98/100
}

func newEncoder(opts ...zstd.EOption) *zstd.Encoder {
	opts = append([]zstd.EOption{zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false), zstd.WithZeroFrames(true)}, opts...)
	enc, err := zstd.NewWriter(nil, opts...)
	if err != nil {
		panic("codec: internal error: " + err.Error())
	}
	return enc
}

// encodeZstd compresses as hard as the library can. Its matches reach no further
// than the window, which therefore spans base and target.
func encodeZstd(target, base []byte) []byte {
	opts := []zstd.EOption{
		zstd.WithEncoderLevel(zstd.SpeedBestCompression),
		zstd.WithWindowSize(windowFor(len(target) + len(base))),
	}
	if len(base) > 0 {
		opts = append(opts, zstd.WithEncoderDictRaw(dictID, base))
	}
	enc := newEncoder(opts...)
	defer enc.Close()
	return enc.EncodeAll(target, make([]byte, 0, len(target)/4+64))
}

// windowFor returns the least power of two that spans n bytes.
func windowFor(n int) int {
	return max(zstd.MinWindowSize, 1<<bits.Len(uint(max(n, 1)-1)))
}

// Decode appends the size target bytes of coded to dst. The base bytes must be
// those that Encode had. Errors match [ErrInvalid]; memory is bounded by size
// and base, whatever coded says.
func Decode(dst, coded, base []byte, kind Kind, size int) ([]byte, error) {
	if size < 0 || size > MaxSize || len(base) > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes from %d base bytes, at most %d", ErrInvalid, size, len(base), MaxSize)
	}
	start := len(dst)
	var err error
	switch kind {
	case Stored:
		dst = append(dst, coded...)
	case Zstd:
		dst, err = decodeZstd(dst, coded, nil, size)
	case ZstdDict:
		dst, err = decodeZstd(dst, coded, base, size)
	default:
		return nil, fmt.Errorf("%w: unknown %v", ErrInvalid, kind)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if len(dst)-start != size {
		return nil, fmt.Errorf("%w: gives %d bytes, want %d", ErrInvalid, len(dst)-start, size)
	}
	return dst, nil
}

func decodeZstd(dst, coded, base []byte, size int) ([]byte, error) {
	// The frame must say how long it is, which the decoder then holds it to. One
	// of less than 256 bytes need not (RFC 8878, section 3.1.1.1.1).
	var header zstd.Header
	if err := header.Decode(coded); err != nil {
		return nil, err
	}
	if header.HasFCS && header.FrameContentSize != uint64(size) || !header.HasFCS && size >= 256 {
		return nil, fmt.Errorf("frame is not of %d bytes", size)
	}
	opts := []zstd.DOption{
		zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderMaxWindow(maxFrameWindow), zstd.WithDecoderMaxMemory(maxFrameWindow),
	}
	if len(base) > 0 {
		opts = append(opts, zstd.WithDecoderDictRaw(dictID, base))
	}
	dec, err := zstd.NewReader(nil, opts...)
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	return dec.DecodeAll(coded, dst)
}
