package cas

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"ferry/cas/backend"
)

// pruned is a store with a live version and one that is dead, in packs of their
// own, and a clock that stands still.
func pruned(t *testing.T) (m *memory, c *catalogue, clk *clock) {
	t.Helper()
	clk = newClock()
	m, c = newMemory(clk.now), newCatalogue()
	create(t, m)
	mustAdd(t, c, m, "live", versionOf(1000, 1, 2, 3))
	mustAdd(t, c, m, "dead", versionOf(1000, 11, 12, 13))
	c.remove("dead")
	clk.advance(time.Hour)
	return m, c, clk
}

// wantPrune prunes and compares some numbers of the report.
func wantPrune(t *testing.T, c *catalogue, b backend.Backend, opts PruneOptions, want PruneReport) {
	t.Helper()
	got := mustPrune(t, c, b, opts)
	got = PruneReport{
		Marked: got.Marked, Rescued: got.Rescued, Deleted: got.Deleted, Waiting: got.Waiting,
		Moved: got.Moved, InUseBy: got.InUseBy, DryRun: got.DryRun,
	}
	if got != want {
		t.Errorf("Prune = %+v, want %+v", got, want)
	}
}

func TestPruneDryRun(t *testing.T) {
	m, c, clk := pruned(t)
	before := m.clone()
	for range 2 {
		wantPrune(t, c, m, PruneOptions{DryRun: true, Now: clk.now}, PruneReport{Marked: 1, DryRun: true})
	}
	if got, want := m.names(""), before.names(""); !slices.Equal(got, want) {
		t.Errorf("a dry run changed %q to %q", want, got)
	}
	// And with a pack that waits, and one that would be rescued.
	mustPrune(t, c, m, PruneOptions{Grace: time.Hour, Now: clk.now})
	before = m.clone()
	wantPrune(t, c, m, PruneOptions{DryRun: true, Now: clk.now}, PruneReport{Waiting: 1, DryRun: true})
	c.tag("dead", versionOf(1000, 11, 12, 13))
	wantPrune(t, c, m, PruneOptions{DryRun: true, Now: clk.now}, PruneReport{Waiting: 1, Rescued: 1, DryRun: true})
	if got, want := m.names(""), before.names(""); !slices.Equal(got, want) {
		t.Errorf("a dry run changed %q to %q", want, got)
	}
}

func TestPruneWithoutGrace(t *testing.T) {
	m, c, clk := pruned(t)
	r := mustPrune(t, c, m, PruneOptions{Now: clk.now})
	if r.Deleted != 1 || r.Freed == 0 || r.Freed != r.Marking || r.Waiting != 0 {
		t.Errorf("Prune = %+v, want one pack deleted", r)
	}
	if packs, marks, indexes := m.names(packDir), m.names(doomedDir), m.names(indexDir); len(packs) != 1 || len(marks) != 0 || len(indexes) != 1 {
		t.Errorf("packs %q, marks %q, indexes %q, want one pack and one index", packs, marks, indexes)
	}
	c.wantSound(t, m)
	wantPrune(t, c, m, PruneOptions{Now: clk.now}, PruneReport{})
	s := open(t, m)
	for _, key := range versionOf(1000, 11, 12, 13).keys() {
		if _, err := s.Get(t.Context(), key); !errors.Is(err, ErrNotFound) {
			t.Errorf("Get(deleted chunk) = %v, want ErrNotFound", err)
		}
	}
}

func TestPruneGrace(t *testing.T) {
	m, c, clk := pruned(t)
	opts := PruneOptions{Grace: time.Hour, Now: clk.now}
	wantPrune(t, c, m, opts, PruneReport{Marked: 1, Waiting: 1})
	clk.advance(59 * time.Minute)
	wantPrune(t, c, m, opts, PruneReport{Waiting: 1})
	c.wantSound(t, m)
	clk.advance(time.Minute)
	wantPrune(t, c, m, opts, PruneReport{Deleted: 1})
	c.wantSound(t, m)
}

// A pack that is needed again loses its mark, and a later one starts anew.
func TestPruneRescues(t *testing.T) {
	m, c, clk := pruned(t)
	opts := PruneOptions{Grace: time.Hour, Now: clk.now}
	mustPrune(t, c, m, opts)
	clk.advance(2 * time.Hour)
	c.tag("dead", versionOf(1000, 11, 12, 13))
	wantPrune(t, c, m, opts, PruneReport{Rescued: 1})
	c.wantSound(t, m)
	c.remove("dead")
	wantPrune(t, c, m, opts, PruneReport{Marked: 1, Waiting: 1})
	clk.advance(2 * time.Hour)
	wantPrune(t, c, m, opts, PruneReport{Deleted: 1})
	c.wantSound(t, m)
}

// Live chunks and records of a mostly dead pack are moved, those of a mostly
// live one are left where they are.
func TestPruneMoves(t *testing.T) {
	for _, test := range []struct {
		maxUnused float64
		dead      []uint64 // of ten chunks
		moved     int64
	}{
		{0, []uint64{0, 1}, 0},
		{0, []uint64{0, 1, 2}, 7000},
		{0.1, []uint64{0, 1}, 8000},
		{0.5, []uint64{0, 1, 2, 3}, 0},
		{1, []uint64{0, 1, 2, 3, 4, 5, 6, 7, 8}, 0},
	} {
		clk := newClock()
		m, c := newMemory(clk.now), newCatalogue()
		create(t, m)
		mustAdd(t, c, m, "all", versionOf(1000, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9))
		rest := versionOf(1000)
		all := c.snapshot()["all"]
		rest.records = all.records
		recordBytes := int64(0)
		for _, body := range all.records {
			recordBytes += int64(len(body) + DigestSize)
		}
		for seed := range uint64(10) {
			if data := chunkOf(seed, 1000); !slices.Contains(test.dead, seed) {
				rest.chunks[Sum(data)] = data
			}
		}
		c.remove("all")
		c.tag("rest", rest)
		clk.advance(time.Hour)
		want := PruneReport{}
		if test.moved > 0 {
			want = PruneReport{Marked: 1, Deleted: 1, Moved: test.moved + recordBytes}
		}
		wantPrune(t, c, m, PruneOptions{MaxUnused: test.maxUnused, Now: clk.now}, want)
		c.wantSound(t, m)
		if packs := m.names(packDir); len(packs) != 1 {
			t.Errorf("packs are %q, want one", packs)
		}
		clk.advance(time.Hour)
		wantPrune(t, c, m, PruneOptions{MaxUnused: test.maxUnused, Now: clk.now}, PruneReport{})
	}
}

// Of a chunk that stands in two packs one copy is kept.
func TestPruneDuplicates(t *testing.T) {
	clk := newClock()
	m, c := newMemory(clk.now), newCatalogue()
	create(t, m)
	one, two := open(t, m), open(t, m)
	v := versionOf(1000, 1, 2, 3)
	for i, s := range []*Store{one, two} { // neither knows of the other
		tx := s.Begin(t.Context())
		if err := v.putInto(tx); err != nil {
			t.Fatal(err)
		}
		own := chunkOf(uint64(100+i), 10)
		if _, err := tx.Put(Sum(own), own); err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
	c.tag("v", v)
	if got := len(m.names(packDir)); got != 2 {
		t.Fatalf("there are %d packs, want 2", got)
	}
	clk.advance(time.Hour)
	wantPrune(t, c, m, PruneOptions{Now: clk.now}, PruneReport{Marked: 1, Deleted: 1})
	c.wantSound(t, m)
}

// A version that lacks something stops a prune before it changes anything.
func TestPruneOfDamagedStore(t *testing.T) {
	m, c, clk := pruned(t)
	c.tag("broken", versionOf(1000, 99))
	before := m.names("")
	if _, err := c.prune(t.Context(), m, PruneOptions{Now: clk.now}); !errors.Is(err, ErrNotFound) {
		t.Errorf("Prune = %v, want ErrNotFound", err)
	}
	if got := m.names(""); !slices.Equal(got, before) {
		t.Errorf("Prune changed %q to %q", before, got)
	}
	failed := errors.New("catalogue on fire")
	s := open(t, m)
	_, err := s.Prune(t.Context(), PruneOptions{Now: clk.now}, func(context.Context, func(Digest) error, func(Digest) error) error { return failed })
	if !errors.Is(err, failed) {
		t.Errorf("Prune = %v, want the error of live", err)
	}
	if got := m.names(""); !slices.Equal(got, before) {
		t.Errorf("Prune changed %q to %q", before, got)
	}
}

// Packs that no index knows, left by a crash, go.
func TestPruneClearsUnindexedPacks(t *testing.T) {
	m, c, clk := pruned(t)
	for _, name := range m.names(indexDir) {
		m.edit(t, name, missing)
	}
	c.remove("live")
	wantPrune(t, c, m, PruneOptions{Now: clk.now}, PruneReport{Marked: 2, Deleted: 2})
	if got := m.names(""); len(got) != 1 {
		t.Errorf("the store holds %q, want its config alone", got)
	}
}

// Old temporary files go, those that a running session may write stay.
func TestPruneClearsTemporaryFiles(t *testing.T) {
	dir := t.TempDir()
	b := backend.NewLocal(dir)
	defer b.Close()
	create(t, b)
	c := newCatalogue()
	mustAdd(t, c, b, "v", versionOf(100, 1))
	old, young := filepath.Join(dir, "packs", ".ferry-tmp-1"), filepath.Join(dir, "packs", ".ferry-tmp-2")
	for _, path := range []string{old, young} {
		if err := os.WriteFile(path, make([]byte, 100), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(old, time.Time{}, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	if r := mustPrune(t, c, b, PruneOptions{DryRun: true}); r.TempFreed != 0 {
		t.Errorf("a dry run freed %d bytes", r.TempFreed)
	}
	for _, want := range []int64{100, 0} {
		if r := mustPrune(t, c, b, PruneOptions{}); r.TempFreed != want {
			t.Errorf("Prune freed %d bytes of temporary files, want %d", r.TempFreed, want)
		}
	}
	if _, err := os.Stat(young); err != nil {
		t.Errorf("a young temporary file: %v", err)
	}
	c.wantSound(t, b)
}
