package chunking

import (
	"errors"
	"fmt"
)

// ErrParams says that Params are outside their documented ranges.
var ErrParams = errors.New("invalid chunking parameters")

// Algorithm is the one cutting algorithm there is: a Rabin fingerprint over 64
// bytes, with zero runs set apart.
const Algorithm = "rabin64-zerorun"

// Polynomial is the irreducible polynomial of degree 53 that every store uses,
// so that equal bytes cut equally everywhere. It is the first one that
// chunker.DerivePolynomial takes from the BLAKE3 output stream of the text
// "ferry chunking polynomial v1" (TestPolynomial derives it again).
const Polynomial = 0x2efb6a50f4035d

// Params is a chunking policy. Two streams can share chunks only when they were
// cut under the same policy, so a store keeps one for its whole life.
type Params struct {
	// Algorithm names the method; it must be [Algorithm].
	Algorithm string `json:"algorithm"`
	// Polynomial is the fingerprint's irreducible polynomial, degree 53.
	Polynomial uint64 `json:"polynomial,string"`
	// Min is the smallest chunk in bytes, [64, Max].
	Min int `json:"min"`
	// AverageBits sets the probability of a cut at a byte past Min to
	// 2^-AverageBits, [6, 26]: chunks average about Min + 2^AverageBits bytes.
	AverageBits int `json:"average_bits"`
	// Max is the largest data chunk in bytes, [Min, 4 MiB].
	Max int `json:"max"`
	// ZeroRun is the length in bytes from which a run of zeros is a chunk of
	// its own, [64, 1 MiB].
	ZeroRun int `json:"zero_run"`
}

// maxChunk bounds Params.Max, so that no reader of chunks needs more memory.
const maxChunk = 4 << 20

// Default is the policy of new stores. The sizes were chosen by measurement:
// see docs/design.md, "Chunk and frame sizes".
func Default() Params {
	return Params{
		Algorithm:   Algorithm,
		Polynomial:  Polynomial,
		Min:         8 << 10,
		AverageBits: 14,
		Max:         128 << 10,
		ZeroRun:     16 << 10,
	}
}

// Validate returns an error wrapping [ErrParams] unless every field is in its
// documented range.
func (p Params) Validate() error {
	switch {
	case p.Algorithm != Algorithm:
		return fmt.Errorf("%w: algorithm %q, want %q", ErrParams, p.Algorithm, Algorithm)
	case p.Polynomial>>53 != 1:
		return fmt.Errorf("%w: polynomial %#x is not of degree 53", ErrParams, p.Polynomial)
	case p.Max > maxChunk || p.Min > p.Max || p.Min < 64:
		return fmt.Errorf("%w: min %d, max %d, want 64 <= min <= max <= %d", ErrParams, p.Min, p.Max, maxChunk)
	case p.AverageBits < 6 || p.AverageBits > 26:
		return fmt.Errorf("%w: average bits %d, want 6 to 26", ErrParams, p.AverageBits)
	case p.ZeroRun < 64 || p.ZeroRun > 1<<20:
		return fmt.Errorf("%w: zero run %d, want 64 to %d", ErrParams, p.ZeroRun, 1<<20)
	}
	return nil
}
