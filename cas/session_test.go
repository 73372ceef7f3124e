package cas

import (
	"testing"
	"time"
)

// A session is a lease for as long as the store is open.
func TestSession(t *testing.T) {
	m := newMemory(time.Now)
	create(t, m)
	s, err := Open(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	if held, err := m.Leases(t.Context()); len(held) != 1 || held[0].Name != s.session || err != nil {
		t.Errorf("Leases while a store is open = %v, %v, want %s", held, err, s.session)
	}
	s.Close()
	s.Close()
	wantNoLeases(t, m)
}

// While a session runs that began before the mark, the pack stays, whatever the
// grace; and so do packs that it may have written itself.
func TestPruneWaitsForSessions(t *testing.T) {
	m, c, clk := pruned(t)
	old := open(t, m)
	clk.advance(time.Hour)
	opts := PruneOptions{Now: clk.now}
	wantPrune(t, c, m, opts, PruneReport{Marked: 1, Waiting: 1, InUseBy: 1})
	clk.advance(48 * time.Hour)
	wantPrune(t, c, m, opts, PruneReport{Waiting: 1, InUseBy: 1})

	// The old session may build on what it saw, and finish.
	tx := old.Begin(t.Context())
	again := versionOf(1000, 11, 12, 21)
	if err := again.putInto(tx); err != nil {
		t.Fatal(err)
	}
	added, err := tx.Commit()
	if err != nil || added.Chunks != 1 {
		t.Errorf("Commit = %+v, %v, want one new chunk", added, err)
	}
	clk.advance(time.Hour)
	wantPrune(t, c, m, opts, PruneReport{Waiting: 1, InUseBy: 1}) // its new pack is not marked
	c.tag("again", again)
	old.Close()
	c.wantSound(t, m)
	clk.advance(time.Hour)
	wantPrune(t, c, m, opts, PruneReport{Rescued: 1, Marked: 1, Deleted: 1, Moved: 2000})
	c.wantSound(t, m)
}

// A session that began after the mark stores anew what is only in doomed packs,
// and still reads it there.
func TestDoomedPacksAreNotBuiltOn(t *testing.T) {
	m, c, clk := pruned(t)
	opts := PruneOptions{Grace: time.Hour, Now: clk.now}
	mustPrune(t, c, m, opts)
	clk.advance(time.Minute)
	s := open(t, m)
	again := versionOf(1000, 11, 12, 13, 21)
	for _, key := range versionOf(1000, 11, 12, 13).keys() {
		if has, err := s.Has(key); has || err != nil {
			t.Errorf("Has(chunk of a doomed pack) = %v, %v, want false", has, err)
		}
		if _, err := s.Get(t.Context(), key); err != nil {
			t.Errorf("Get(chunk of a doomed pack) = %v", err)
		}
	}
	tx := s.Begin(t.Context())
	if err := again.putInto(tx); err != nil {
		t.Fatal(err)
	}
	if added, err := tx.Commit(); err != nil || added.Chunks != 4 {
		t.Errorf("Commit = %+v, %v, want 4 new chunks", added, err)
	}
	clk.advance(2 * time.Hour)
	// The session is younger than the mark and does not keep the pack.
	wantPrune(t, c, m, opts, PruneReport{Deleted: 1, InUseBy: 1})
	c.tag("again", again)
	if err := again.read(t.Context(), s); err != nil {
		t.Errorf("through the open store: %v", err)
	}
	c.wantSound(t, m)
}

// A store that was open all the time reads on, whatever was moved.
func TestReadersOutliveMoves(t *testing.T) {
	clk := newClock()
	m, c := newMemory(clk.now), newCatalogue()
	create(t, m)
	mustAdd(t, c, m, "all", versionOf(1000, 1, 2, 3, 4))
	half := versionOf(1000, 1, 2)
	mustAdd(t, c, m, "half", half)
	c.remove("all")
	clk.advance(time.Hour)
	opts := PruneOptions{Grace: time.Hour, Now: clk.now}
	wantPrune(t, c, m, opts, PruneReport{Marked: 1, Waiting: 1, Moved: 2000})
	clk.advance(2 * time.Hour)
	reader := open(t, m)
	wantPrune(t, c, m, opts, PruneReport{Deleted: 1, InUseBy: 1})
	if err := half.read(t.Context(), reader); err != nil {
		t.Error(err)
	}
}
