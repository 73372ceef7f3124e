package codec

import (
	"encoding/binary"
	"fmt"
)

// reader takes fields off the front of b. Its first error sticks, and all later
// fields are zero.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(reason string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrInvalid, reason)
	}
	r.b = nil
}

func (r *reader) bytes(n int) []byte {
	if n > len(r.b) {
		r.fail("cut off")
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) byte() byte {
	if v := r.bytes(1); v != nil {
		return v[0]
	}
	return 0
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail("bad number")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v := r.uvarint()
	return int64(v>>1) ^ -int64(v&1)
}

// upTo takes a number of at most limit.
func (r *reader) upTo(limit uint64) int {
	v := r.uvarint()
	if v > limit {
		r.fail("number too large")
		return 0
	}
	return int(v)
}
