package cas

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"ferry/cas/backend"
)

// doomedStore is a store whose pack of version "dead" is marked, and the time
// that has passed since is longer than any grace.
func doomedStore(t *testing.T) (m *memory, c *catalogue, clk *clock, dead version) {
	t.Helper()
	clk = newClock()
	m, c = newMemory(clk.now), newCatalogue()
	create(t, m)
	dead = versionOf(1000, 11, 12, 13)
	mustAdd(t, c, m, "live", versionOf(1000, 1, 2, 3))
	mustAdd(t, c, m, "dead", dead)
	c.remove("dead")
	clk.advance(time.Hour)
	mustPrune(t, c, m, PruneOptions{Grace: time.Hour, Now: clk.now})
	clk.advance(24 * time.Hour)
	return m, c, clk, dead
}

// A version whose very pack is doomed is added again, by a session from after
// the mark, while a prune deletes the pack. Packs depend on their blobs alone, so
// the new one would have the name of the doomed one.
func TestDoomedPackIsNotTakenForNew(t *testing.T) {
	m, c, clk, dead := doomedStore(t)
	s := open(t, m)
	tx := s.Begin(t.Context())
	if err := dead.putInto(tx); err != nil {
		t.Fatal(err)
	}
	if added, err := tx.Commit(); err != nil || added.Chunks != 3 {
		t.Fatalf("Commit = %+v, %v, want 3 chunks", added, err)
	}
	clk.advance(time.Hour)
	mustPrune(t, c, m, PruneOptions{Grace: time.Hour, Now: clk.now}) // the session runs on
	c.tag("again", dead)
	s.Close()
	c.wantSound(t, m)
}

// A prune was cut off between the deletion of a pack and that of its mark. The
// mark must not condemn a new pack of the same bytes.
func TestMarkOutlivesItsPack(t *testing.T) {
	m, c, clk, dead := doomedStore(t)
	p := &proxy{Backend: m, through: func(op, name string, do func() error) error {
		if op == "Delete" && !strings.HasPrefix(name, indexDir) && !strings.HasPrefix(name, packDir) {
			return errFault
		}
		return do()
	}}
	if _, err := c.prune(t.Context(), p, PruneOptions{Grace: time.Hour, Now: clk.now}); !errors.Is(err, errFault) {
		t.Fatalf("Prune = %v, want the fault", err)
	}
	if len(m.names(doomedDir)) != 1 || len(m.names(packDir)) != 1 {
		t.Fatalf("the store holds %q, want a mark without its pack", m.names(""))
	}
	clk.advance(time.Hour)
	s := open(t, m)
	tx := s.Begin(t.Context())
	if err := dead.putInto(tx); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	clk.advance(time.Hour)
	mustPrune(t, c, m, PruneOptions{Grace: time.Hour, Now: clk.now})
	c.tag("again", dead)
	s.Close()
	c.wantSound(t, m)
	if got := m.names(doomedDir); len(got) != 0 {
		t.Errorf("marks are %q, want none", got)
	}
}

// slowMark is a backend on which the Put of a mark takes long: its time is when
// it began, and it is seen when it ends, as files are.
type slowMark struct {
	*memory
	meanwhile func()
}

func (b slowMark) Put(ctx context.Context, name string, r io.Reader, size int64) error {
	if !strings.HasPrefix(name, doomedDir) {
		return b.memory.Put(ctx, name, r, size)
	}
	begun := b.now()
	b.meanwhile()
	if err := b.memory.Put(ctx, name, r, size); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	o := b.objects[name]
	o.created = begun
	b.objects[name] = o
	return nil
}

// A session that began while a mark was written has not seen it, and builds on
// the pack.
func TestSlowMark(t *testing.T) {
	m, c, clk := pruned(t)
	var s *Store
	again := versionOf(1000, 11, 12, 13)
	b := slowMark{m, func() {
		clk.advance(time.Minute) // the disk is busy
		s = open(t, m)
		tx := s.Begin(t.Context())
		if err := again.putInto(tx); err != nil {
			t.Fatal(err)
		}
		if added, err := tx.Commit(); err != nil || added.Chunks != 0 {
			t.Fatalf("Commit = %+v, %v, want no new chunk", added, err)
		}
		clk.advance(time.Minute)
	}}
	mustPrune(t, c, b, PruneOptions{Now: clk.now})
	clk.advance(time.Hour)
	mustPrune(t, c, m, PruneOptions{Now: clk.now})
	c.tag("again", again)
	s.Close()
	c.wantSound(t, m)
}

// What was lost with a damaged pack can be stored anew, although the new pack
// would have its name.
func TestAddHealsAfterRepair(t *testing.T) {
	for _, damage := range []func([]byte) []byte{missing, emptied, truncated, foreign, flipDirectory} {
		d := newDamaged(t)
		a := d.c.snapshot()["a"]
		d.edit(t, d.packA, damage)
		repair(t, d)
		mustAdd(t, d.c, d, "a", a)
		s := open(t, d)
		d.c.wantReadable(t, s)
	}
}

// listedSlowly is a backend in which something happens within each listing.
type listedSlowly struct {
	*memory
	within func(prefix string)
}

func (b listedSlowly) List(ctx context.Context, prefix string, fn func(backend.Info) error) error {
	names := b.names(prefix)
	b.within(prefix)
	for _, name := range names {
		info, err := b.Stat(ctx, name)
		if err != nil {
			continue
		}
		if err := fn(info); err != nil {
			return err
		}
	}
	return nil
}

// A merge deletes the tables that were listed, and its own was not listed yet.
func TestOpenDuringMerge(t *testing.T) {
	m := newMemory(time.Now)
	create(t, m)
	c := newCatalogue()
	for i := range uint64(maxTables) {
		mustAdd(t, c, m, string(rune('a'+i)), versionOf(100, i))
	}
	once := false
	s := open(t, listedSlowly{m, func(prefix string) {
		if prefix == indexDir && !once {
			once = true
			mustAdd(t, newCatalogue(), m, "merging", versionOf(100, 1000))
		}
	}})
	c.wantReadable(t, s)
}

// A damaged record is not moved to a sound pack, where no check would find it.
func TestPruneDoesNotHideDamage(t *testing.T) {
	clk := newClock()
	m, c := newMemory(clk.now), newCatalogue()
	create(t, m)
	all := versionOf(1000, 1, 2, 3, 4)
	mustAdd(t, c, m, "all", all)
	rest := versionOf(1000)
	rest.records = all.records
	c.remove("all")
	c.tag("rest", rest)
	name := m.names(packDir)[0]
	m.edit(t, name, func(b []byte) []byte {
		b[bytes.Index(b, []byte("chunks of seeds "))] ^= 1
		return b
	})
	clk.advance(time.Hour)
	mustPrune(t, c, m, PruneOptions{Now: clk.now})
	s := open(t, m)
	for name := range rest.records {
		if _, err := s.Record(t.Context(), name); !errors.Is(err, ErrCorrupt) {
			t.Errorf("Record = %v, want ErrCorrupt", err)
		}
	}
	found := 0
	if _, err := s.Check(t.Context(), true, nil, func(Problem) { found++ }); found == 0 || err != nil {
		t.Errorf("Check found %d problems, %v, want the damaged pack", found, err)
	}
}
