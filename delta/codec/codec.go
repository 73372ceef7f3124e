package codec

import (
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// Kind says how bytes are coded.
type Kind uint8

// The kinds.
const (
	Stored     Kind = 0 // as they are
	Zstd       Kind = 1 // one zstd frame
	Brotli     Kind = 2 // one brotli stream
	BrotliDict Kind = 3 // one brotli stream, the base bytes its dictionary
	Patch      Kind = 4 // matches with the base, corrections, predictions, and the rest
	Grouped    Kind = 5 // a patch packed with others: see EncodeGroup
	Unpacked   Kind = 6 // of what target and base hold, unpacked: of package delta
)

func (k Kind) String() string {
	switch k {
	case Stored:
		return "stored"
	case Zstd:
		return "zstd"
	case Brotli:
		return "brotli"
	case BrotliDict:
		return "brotli against base"
	case Patch:
		return "patch of base"
	case Grouped:
		return "patch among others"
	case Unpacked:
		return "patch of base, unpacked"
	default:
		return fmt.Sprintf("kind %d", uint8(k))
	}
}

// NeedsBase reports whether decoding takes the base bytes.
func (k Kind) NeedsBase() bool { return k == BrotliDict || k == Patch || k == Unpacked }

// Effort is how much time coding may take to save bytes. Decoding takes the same.
type Effort uint8

// The efforts. The zero value is Default.
const (
	Default Effort = iota
	Fast           // one pass, zstd
	Max            // every position is searched, three passes
)

// ParseEffort reads the name of an effort.
func ParseEffort(name string) (Effort, error) {
	for e, n := range effortNames {
		if n == name {
			return Effort(e), nil
		}
	}
	return 0, fmt.Errorf("unknown effort %q: want fast, default or max", name)
}

var effortNames = [...]string{"default", "fast", "max"}

func (e Effort) String() string { return effortNames[e] }

// passes is how often an executable is aligned anew with its references
// translated.
func (e Effort) passes() int { return [...]int{1, 0, 2}[e] }

// seedStep says that every so many positions of a base of n bytes are searched:
// it bounds the memory of the index.
func (e Effort) seedStep(n int) int {
	switch {
	case n <= 16<<20 || e == Max && n <= 48<<20:
		return 1
	case n <= 48<<20 || e == Max:
		return 2
	default:
		return 4
	}
}

// ErrInvalid says that coded bytes do not decode.
var ErrInvalid = errors.New("malformed patch")

// MaxSize bounds the target bytes, and the base bytes, of one call.
const MaxSize = 96 << 20

// Encode appends the coded form of target to dst, and says how it is coded: of
// what it tries, the smallest. base may be empty. The same arguments always give
// the same bytes.
func Encode(dst, target, base []byte, effort Effort) ([]byte, Kind) {
	if len(target) > MaxSize || len(base) > MaxSize {
		panic("codec: internal error: more than MaxSize bytes")
	}
	best, kind := target, Stored
	try := func(k Kind, coded []byte) {
		if len(coded) < len(best) {
			best, kind = coded, k
		}
	}
	if len(base) > 0 && len(target) > 0 {
		if patch := encodePatch(nil, target, base, effort); len(patch) > 0 {
			try(Patch, patch)
		}
		if effort != Fast && len(target) <= maxText && len(base) <= maxText {
			try(BrotliDict, encodeBrotli(target, base))
		}
	}
	if mayWinAlone(target, len(best)) {
		if effort == Fast || len(target) > effort.maxBrotli() {
			try(Zstd, encodeZstd(target))
		} else {
			try(Brotli, encodeBrotli(target, nil))
		}
	}
	return append(dst, best...), kind
}

// EncodeMemory estimates what Encode takes for targets and bases of these sizes,
// in bytes.
func EncodeMemory(target, base int64, effort Effort) int64 {
	if base == 0 {
		return 3*target + 32<<20
	}
	index := 6 * base / int64(effort.seedStep(int(base)))
	return index + 2*base + 3*target + 32<<20
}

// maxText is the size in bytes up to which brotli with the base as dictionary is
// tried: it does better than a patch on text.
const maxText = 2 << 20

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
	return float64(len(zstdOf(target, zstd.SpeedFastest)))*slowSaves < float64(n)
}

// compressible reports whether a fast attempt at a few places saves at least 2 %:
// what does not even do that is compressed data, and a slow attempt is wasted.
func compressible(b []byte) bool {
	const sample, places = 32 << 10, 4
	if len(b) <= sample*places {
		return true
	}
	packed := 0
	for i := range places {
		off := i * (len(b) - sample) / (places - 1)
		packed += len(zstdOf(b[off:off+sample], zstd.SpeedFastest))
	}
	return packed < sample*places*98/100
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
		dst, err = decodeZstd(dst, coded, size)
	case Brotli:
		dst, err = decodeBrotli(dst, coded, nil, size)
	case BrotliDict:
		dst, err = decodeBrotli(dst, coded, base, size)
	case Patch:
		dst, err = decodePatch(dst, coded, base, size)
	default:
		return nil, fmt.Errorf("%w: unknown %v", ErrInvalid, kind)
	}
	if err != nil && !errors.Is(err, ErrInvalid) {
		err = fmt.Errorf("%w: %v: %w", ErrInvalid, kind, err)
	}
	if err != nil {
		return nil, err
	}
	if len(dst)-start != size {
		return nil, fmt.Errorf("%w: gives %d bytes, want %d", ErrInvalid, len(dst)-start, size)
	}
	return dst, nil
}
