package cas

import (
	"encoding/hex"
	"fmt"
	"hash"

	"github.com/zeebo/blake3"
)

// DigestSize is the length of a Digest in bytes.
const DigestSize = 32

// A Digest is the BLAKE3-256 hash of some plain bytes. The zero Digest is not
// the digest of anything that Ferry stores; see [Digest.IsZero].
type Digest [DigestSize]byte

// digestPrefix starts the text form of a Digest.
const digestPrefix = "blake3:"

// Sum returns the digest of b.
func Sum(b []byte) Digest { return Digest(blake3.Sum256(b)) }

// Hasher computes a Digest of what is written to it.
type Hasher struct{ h *blake3.Hasher }

var _ hash.Hash = (*blake3.Hasher)(nil)

// NewHasher returns an empty Hasher.
func NewHasher() *Hasher { return &Hasher{blake3.New()} }

// Write adds p to the hash. It never fails.
func (h *Hasher) Write(p []byte) (int, error) { return h.h.Write(p) }

// Digest returns the digest of all that was written since the last Reset.
func (h *Hasher) Digest() Digest {
	var d Digest
	h.h.Sum(d[:0])
	return d
}

// Reset makes the Hasher empty again.
func (h *Hasher) Reset() { h.h.Reset() }

// String returns the text form, "blake3:" and 64 lower-case hexadecimal digits.
func (d Digest) String() string { return digestPrefix + hex.EncodeToString(d[:]) }

// AppendText appends the text form. It implements encoding.TextAppender.
func (d Digest) AppendText(b []byte) ([]byte, error) {
	return hex.AppendEncode(append(b, digestPrefix...), d[:]), nil
}

// Hex returns the 64 lower-case hexadecimal digits, as used in object names.
func (d Digest) Hex() string { return hex.EncodeToString(d[:]) }

// Short returns the first 12 hexadecimal digits, for people.
func (d Digest) Short() string { return hex.EncodeToString(d[:6]) }

// IsZero reports whether d is the zero Digest.
func (d Digest) IsZero() bool { return d == Digest{} }

// MarshalText returns the text form.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText parses the text form, as ParseDigest does.
func (d *Digest) UnmarshalText(text []byte) error {
	parsed, err := parseDigest(text)
	if err == nil {
		*d = parsed
	}
	return err
}

// ParseDigest parses the text form. It accepts nothing else: no upper case, no
// other length.
func ParseDigest(s string) (Digest, error) { return parseDigest(s) }

func parseDigest[T string | []byte](s T) (Digest, error) {
	if len(s) < len(digestPrefix) || string(s[:len(digestPrefix)]) != digestPrefix {
		return Digest{}, fmt.Errorf("digest %.80q: does not start with %q", s, digestPrefix)
	}
	d, err := parseHex(s[len(digestPrefix):])
	if err != nil {
		return Digest{}, fmt.Errorf("digest %.80q: %w", s, err)
	}
	return d, nil
}

// ParseHex parses 64 lower-case hexadecimal digits, as Hex returns them.
func ParseHex(s string) (Digest, error) { return parseHex(s) }

func parseHex[T string | []byte](s T) (Digest, error) {
	var d Digest
	bad := len(s) != 2*DigestSize
	for i := 0; i < DigestSize && !bad; i++ {
		hi, lo := nibbles[s[2*i]], nibbles[s[2*i+1]]
		d[i] = hi<<4 | lo&15
		bad = hi|lo > 15
	}
	if bad {
		return Digest{}, fmt.Errorf("want %d lower-case hexadecimal digits", 2*DigestSize)
	}
	return d, nil
}

// nibbles has the value of each lower-case hexadecimal digit, and 0xff for what is none.
var nibbles = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for v, c := range []byte("0123456789abcdef") {
		t[c] = byte(v)
	}
	return t
}()
