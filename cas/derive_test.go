package cas

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"ferry/cas/backend"
	"ferry/cas/index"
	"ferry/cas/pack"
	"ferry/delta/codec"
)

// release is release n of a file that changes a little each time, in chunks.
func release(n int) (refs []Ref, v version) {
	v = version{map[Digest][]byte{}, map[Digest][]byte{}}
	for c := range 8 {
		data := bytes.Clone(chunkOf(uint64(1000+c), 6000))
		for k := range n {
			data[(k*701+c*97)%len(data)] = byte(k + 1) // what release k+1 changed
		}
		key := Sum(data)
		v.chunks[key] = data
		refs = append(refs, Ref{key, int64(len(data))})
	}
	v.records[Sum(fmt.Appendf(nil, "release %d", n))] = []byte("list")
	return refs, v
}

// addReleases adds releases 0 to n-1, each as a version of its own.
func addReleases(t *testing.T, c *catalogue, b backend.Backend, n int) {
	t.Helper()
	for i := range n {
		_, v := release(i)
		mustAdd(t, c, b, fmt.Sprint(i), v)
	}
}

func joined(refs []Ref, v version) (out []byte) {
	for _, r := range refs {
		out = append(out, v.chunks[r.Key]...)
	}
	return out
}

// deriveRelease makes release n one of release base.
func deriveRelease(o *Optimizer, base, n int) (int, error) {
	baseRefs, baseVersion := release(base)
	refs, v := release(n)
	d, ok := patches.Load([2]int{base, n})
	if !ok { // coding takes longer than all else
		plain := joined(refs, v)
		patch, kind := codec.Encode(nil, plain, joined(baseRefs, baseVersion), codec.Fast)
		d, _ = patches.LoadOrStore([2]int{base, n}, Derivation{Kind: kind, Size: int64(len(plain)), Base: baseRefs, Patch: patch})
	}
	return o.Derive(d.(Derivation), refs)
}

var patches sync.Map // of Derivation, by the numbers of the releases

// optimizeReleases derives releases 1 to n-1, each from the one whose number lacks
// its lowest bit.
func optimizeReleases(ctx context.Context, b backend.Backend, n int) error {
	s, err := Open(ctx, b)
	if err != nil {
		return err
	}
	defer s.Close()
	o, err := s.Optimize(ctx)
	if err != nil {
		return err
	}
	defer o.Abort()
	for i := 1; i < n; i++ {
		if _, err := deriveRelease(o, i&(i-1), i); err != nil {
			return err
		}
	}
	_, err = o.Commit()
	return err
}

// optimizeScenario adds releases, optimizes them and prunes.
func optimizeScenario(ctx context.Context, b backend.Backend, c *catalogue) error {
	if err := Create(ctx, b, []byte(`{}`)); err != nil && !errors.Is(err, backend.ErrExist) {
		return err
	}
	for n := range 4 {
		_, v := release(n)
		if err := c.add(ctx, b, fmt.Sprint(n), v); err != nil {
			return err
		}
	}
	if err := optimizeReleases(ctx, b, 4); err != nil {
		return err
	}
	c.remove("2") // release 3 is made of it
	_, err := c.prune(ctx, b, PruneOptions{})
	return err
}

// TestStreamOfMixedRelease reads a release some of whose chunks were derived with
// another one, by making only what makes all of it.
func TestStreamOfMixedRelease(t *testing.T) {
	clk := newClock()
	b, c := newMemory(clk.now), newCatalogue()
	create(t, b)
	base, bv := release(0)
	old, ov := release(1)
	mixed, v := release(2)
	for _, i := range []int{0, 1, 4, 7} {
		mixed[i] = old[i]
		v.chunks[old[i].Key] = ov.chunks[old[i].Key]
	}
	mustAdd(t, c, b, "base", bv)
	mustAdd(t, c, b, "old", ov)
	mustAdd(t, c, b, "mixed", v)
	s := open(t, b)
	o, err := s.Optimize(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer o.Abort()
	for _, target := range []struct {
		refs []Ref
		v    version
	}{{old, ov}, {mixed, v}} {
		plain := joined(target.refs, target.v)
		patch, kind := codec.Encode(nil, plain, joined(base, bv), codec.Fast)
		if _, err := o.Derive(Derivation{Kind: kind, Size: int64(len(plain)), Base: base, Patch: patch}, target.refs); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := o.Commit(); err != nil {
		t.Fatal(err)
	}
	s.Close()
	clk.advance(time.Hour)
	mustPrune(t, c, b, PruneOptions{Now: clk.now, MaxUnused: 1e-9})
	r := open(t, b)
	var got []byte
	keys := func(yield func(Digest) bool) {
		for _, ref := range mixed {
			if !yield(ref.Key) {
				return
			}
		}
	}
	for chunk, err := range r.Stream(t.Context(), keys) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, chunk...)
	}
	if !bytes.Equal(got, joined(mixed, v)) {
		t.Error("the release comes back as other bytes")
	}
	if n := len(r.derived.made.byID); n != 1 {
		t.Errorf("%d derivations were made to read it, want 1", n)
	}
}

// derivedChunks counts chunks by whether they are derived, and packs' bytes.
func derivedChunks(t *testing.T, b backend.Backend) (derived, plain int, stored int64) {
	t.Helper()
	s, err := Open(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	err = s.eachEntry(func(e index.Entry) error {
		if e.Codec == pack.Derived {
			derived++
		} else {
			plain++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	infos, err := listAll(t.Context(), b, packDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range infos {
		stored += info.Size
	}
	return derived, plain, stored
}

func TestOptimize(t *testing.T) {
	const n = 16
	clk := newClock()
	m, c := newMemory(clk.now), newCatalogue()
	create(t, m)
	addReleases(t, c, m, n)
	_, _, before := derivedChunks(t, m)
	if err := optimizeReleases(t.Context(), m, n); err != nil {
		t.Fatal(err)
	}
	c.wantSound(t, m)
	clk.advance(time.Hour)
	mustPrune(t, c, m, PruneOptions{Now: clk.now})
	c.wantSound(t, m)
	derived, _, after := derivedChunks(t, m)
	if derived != 8*(n-1) {
		t.Errorf("%d chunks are derived, want %d", derived, 8*(n-1))
	}
	if after > before/4 {
		t.Errorf("packs have %d bytes, and had %d", after, before)
	}
	// Doing it again changes nothing.
	if err := optimizeReleases(t.Context(), m, n); err != nil {
		t.Fatal(err)
	}
	if again, _, stored := derivedChunks(t, m); again != derived || stored != after {
		t.Errorf("again: %d derived chunks in %d bytes, want %d in %d", again, stored, derived, after)
	}
	// What others are made of outlives its version.
	for _, i := range []int{0, 1, 4, 12} {
		c.remove(fmt.Sprint(i))
	}
	clk.advance(time.Hour)
	mustPrune(t, c, m, PruneOptions{Now: clk.now, MaxUnused: 0.01})
	c.wantSound(t, m)
	// A version that comes back finds its chunks.
	_, v := release(12)
	mustAdd(t, c, m, "12", v)
	c.wantSound(t, m)
	// Once nothing needs them, all go.
	for i := range n {
		c.remove(fmt.Sprint(i))
	}
	clk.advance(time.Hour)
	mustPrune(t, c, m, PruneOptions{Now: clk.now})
	if derived, plain, _ := derivedChunks(t, m); derived+plain > 0 {
		t.Errorf("%d derived and %d other chunks are left of nothing", derived, plain)
	}
}

// A chunk that others are made of stays what it is, and none is made of itself.
func TestOptimizeMakesNoCircles(t *testing.T) {
	m, c := newMemory(time.Now), newCatalogue()
	create(t, m)
	addReleases(t, c, m, 3)
	s := open(t, m)
	o, err := s.Optimize(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer o.Abort()
	for _, pair := range [][2]int{{0, 1}, {1, 2}, {2, 0}, {1, 0}, {1, 1}, {0, 2}} {
		replaced, err := deriveRelease(o, pair[0], pair[1])
		if err != nil {
			t.Fatal(err)
		}
		if want := pair == [2]int{0, 1} || pair == [2]int{1, 2}; (replaced > 0) != want {
			t.Errorf("deriving %d from %d replaced %d chunks", pair[1], pair[0], replaced)
		}
	}
	if _, err := o.Commit(); err != nil {
		t.Fatal(err)
	}
	if again, err := s.Optimize(t.Context()); err != nil {
		t.Errorf("after Commit: %v", err)
	} else {
		again.Abort()
	}
	mustPrune(t, c, m, PruneOptions{})
	c.wantSound(t, m)
}

func TestCheckFindsLostBase(t *testing.T) {
	m, c := newMemory(time.Now), newCatalogue()
	create(t, m)
	addReleases(t, c, m, 2)
	baseRefs, _ := release(0)
	s := open(t, m)
	e, _, err := s.locate(baseRefs[0].Key)
	if err != nil {
		t.Fatal(err)
	}
	if err := optimizeReleases(t.Context(), m, 2); err != nil {
		t.Fatal(err)
	}
	if err := m.Delete(t.Context(), packName(e.Pack)); err != nil {
		t.Fatal(err)
	}
	if _, err := RepairIndex(t.Context(), m, func(Problem) {}); err != nil {
		t.Fatal(err)
	}
	found := false
	_, err = open(t, m).Check(t.Context(), false, nil, func(p Problem) { found = found || p.Kind == ProblemLostBase })
	if err != nil || !found {
		t.Errorf("check found no lost base, %v", err)
	}
}

// A derivation that needs itself, or one above it, is an error and no endless loop.
func TestDerivationOrder(t *testing.T) {
	m := newMemory(time.Now)
	create(t, m)
	s := open(t, m)
	tx := s.Begin(t.Context())
	put := func(data []byte) Digest {
		key := Sum(data)
		if _, err := tx.Put(key, data); err != nil {
			t.Fatal(err)
		}
		return key
	}
	plain := chunkOf(1, 500)
	key := Sum(plain)
	list := put(appendRefs(nil, []Ref{{key, 500}}))
	d := derivation{depth: 1, kind: codec.Stored, size: 500, baseList: list, patch: []Ref{{key, 500}}}
	dkey := put(d.encode())
	if err := tx.flush(&tx.chunks); err != nil {
		t.Fatal(err)
	}
	if err := tx.putDerived([]pack.Blob{{Kind: pack.Chunk, Key: key, Size: 500}}, derivedBody(dkey, []derivedPiece{{0, 500}})); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), key); !errors.Is(err, ErrCorrupt) {
		t.Errorf("Get of a chunk made of itself = %v, want ErrCorrupt", err)
	}
}

func FuzzDecodeDerivation(f *testing.F) {
	d := derivation{depth: 2, kind: codec.Patch, size: 300, baseList: Sum(nil), patch: []Ref{{Sum([]byte("a")), 10}}}
	f.Add(d.encode(), derivedBody(Sum(nil), []derivedPiece{{3, 4}, {100, 20}}))
	f.Fuzz(func(t *testing.T, data, body []byte) {
		if d, err := decodeDerivation(data); err == nil {
			if again, err := decodeDerivation(d.encode()); err != nil || len(again.patch) != len(d.patch) {
				t.Fatalf("encode(decode) does not decode: %v", err)
			}
		}
		if frame, err := parseDerived(body); err == nil {
			if again, err := parseDerived(derivedBody(frame.key, frame.pieces)); err != nil || len(again.pieces) != len(frame.pieces) {
				t.Fatalf("derived body does not parse again: %v", err)
			}
		}
	})
}
