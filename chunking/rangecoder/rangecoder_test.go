package rangecoder

import (
	"math/rand/v2"
	"testing"
)

// TestRoundTrip reads what was written, and adapts the same way.
func TestRoundTrip(t *testing.T) {
	type coded struct {
		prob int
		v    uint32
		raw  int
	}
	rng := rand.New(rand.NewPCG(1, 2))
	var list []coded
	for range 100_000 {
		c := coded{prob: rng.IntN(8)}
		if rng.IntN(20) == 0 {
			c.raw = 1 + rng.IntN(30)
			c.v = rng.Uint32() >> (32 - c.raw)
		} else if rng.IntN(1<<c.prob) == 0 {
			c.v = 1
		}
		list = append(list, c)
	}
	// A reader is given nothing.
	run := func(bits Coder, given uint32) (probs [8]Prob) {
		for i := range probs {
			probs[i] = Even
		}
		for i, c := range list {
			var got uint32
			if c.raw > 0 {
				got = bits.Raw(c.v&given, c.raw)
			} else if bits.Code(&probs[c.prob], c.v&given == 1) {
				got = 1
			}
			if got != c.v {
				t.Fatalf("number %d is %d, want %d", i, got, c.v)
			}
		}
		return probs
	}
	w := NewWriter()
	want := run(w, 1<<32-1)
	out := w.Finish()
	r := NewReader(out)
	if got := run(r, 0); got != want || !r.Ended() || r.Behind() {
		t.Errorf("read to other probabilities or another end: %v, want %v", got, want)
	}
	r = NewReader(out[:2])
	for range 100 {
		r.Raw(0, 8)
	}
	if !r.Behind() || r.Ended() {
		t.Error("reading behind the end goes unseen")
	}
}
