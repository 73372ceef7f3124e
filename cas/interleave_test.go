package cas

import (
	"fmt"
	"testing"
	"time"
)

// session is an add in steps, so that a prune can do something in between.
type session struct {
	c  *catalogue
	v  version
	s  *Store
	tx *Tx
}

// steps of an add, as a command takes them.
var steps = []struct {
	name string
	do   func(t *testing.T, se *session, m *memory)
}{
	{"open", func(t *testing.T, se *session, m *memory) {
		var err error
		if se.s, err = Open(t.Context(), m); err != nil {
			t.Fatalf("Open: %v", err)
		}
		se.tx = se.s.Begin(t.Context())
	}},
	{"put", func(t *testing.T, se *session, m *memory) {
		if err := se.v.putInto(se.tx); err != nil {
			t.Fatalf("Put: %v", err)
		}
	}},
	{"commit", func(t *testing.T, se *session, m *memory) {
		if _, err := se.tx.Commit(); err != nil {
			t.Fatalf("Commit: %v", err)
		}
	}},
	{"tag and close", func(t *testing.T, se *session, m *memory) {
		se.c.tag("again", se.v)
		se.s.Close()
	}},
}

// TestAddDuringPrune lets an add that wants dead chunks again take its first
// steps before operation h of two prunes, and the others before operation i: for
// h of 0 at all i, for other h at some.
func TestAddDuringPrune(t *testing.T) {
	clk := newClock()
	// Every look at the clock takes longer than all slack, which otherwise would
	// keep the protocol from being put to the test.
	base := newMemory(func() time.Time { clk.advance(time.Minute); return clk.now() })
	c := newCatalogue()
	create(t, base)
	mustAdd(t, c, base, "live", versionOf(300, 1, 2, 3))
	mustAdd(t, c, base, "dead", versionOf(300, 11, 12, 13))
	mustAdd(t, c, base, "half", versionOf(300, 21, 22, 23, 24))
	mustAdd(t, c, base, "other half", versionOf(300, 21, 22))
	c.remove("dead")
	c.remove("half")
	for k := 1; k < len(steps); k++ {
		t.Run(steps[k].name, func(t *testing.T) {
			t.Parallel()
			step := 1
			for h := 0; ; h += 5 {
				i := h
				for addDuringPrune(t, base.clone(), c.clone(), clk, k, h, i) && !t.Failed() {
					i += step
				}
				if i == h || t.Failed() {
					return
				}
				step = 4
			}
		})
	}
}

// addDuringPrune makes two prunes, with the first k steps of an add before
// operation h of them and the other steps before operation i. It reports whether
// there were as many operations.
func addDuringPrune(t *testing.T, m *memory, c *catalogue, clk *clock, k, h, i int) bool {
	t.Helper()
	// One chunk is new, so that the pack of the add is not one that stands.
	se := &session{c: c, v: versionOf(300, 11, 12, 23, 1, 99)}
	n, done := 0, 0
	take := func(until int) {
		for ; done < until; done++ {
			steps[done].do(t, se, m)
		}
	}
	p := &proxy{Backend: m, through: func(op, name string, do func() error) error {
		if n == h {
			take(k)
		}
		if n == i {
			take(len(steps))
		}
		n++
		return do()
	}}
	what := fmt.Sprintf("%d steps before operation %d, the others before %d", k, h, i)
	for range 2 {
		if _, err := c.prune(t.Context(), p, PruneOptions{Now: clk.now}); err != nil {
			t.Errorf("%s: Prune: %v", what, err)
		}
	}
	total := n
	if done > 0 {
		take(len(steps))
		c.wantReadable(t, open(t, m))
	}
	for range 2 { // and what is marked now may go
		mustPrune(t, c, m, PruneOptions{Now: clk.now})
	}
	c.wantReadable(t, open(t, m))
	if t.Failed() {
		t.Log(what)
	}
	return h < total && i < total
}
