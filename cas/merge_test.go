package cas

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"ferry/cas/index"
)

// However many commits there are, a store has few index files, and all of what
// they said.
func TestMergeKeepsTablesFew(t *testing.T) {
	m := newMemory(time.Now)
	create(t, m)
	c := newCatalogue()
	s := open(t, m)
	most := 0
	for i := range uint64(40) {
		v := versionOf(300, i, i+1, 1000+i)
		if i%2 == 0 { // by turns in a session of its own and in a long one
			mustAdd(t, c, m, fmt.Sprint(i), v)
		} else {
			tx := s.Begin(t.Context())
			if err := v.putInto(tx); err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
			c.tag(fmt.Sprint(i), v)
		}
		most = max(most, len(m.names(indexDir)))
	}
	// The long session learns of the others' tables when it merges.
	if limit := 2*maxTables + 1; most > limit {
		t.Errorf("there were up to %d index files, want at most %d", most, limit)
	}
	c.wantSound(t, m)
	// The merged tables hold no entry twice.
	fresh := open(t, m)
	_, tables := fresh.openTables()
	entries, distinct := int64(0), int64(0)
	for _, table := range tables {
		entries += table.Len()
	}
	err := index.Each(tables, func(index.Entry) error { distinct++; return nil })
	if err != nil || entries != distinct {
		t.Errorf("%d entries, %d of them different, %v", entries, distinct, err)
	}
}

// A merge gives way to a prune, and the next commit makes up for it.
func TestMergeGivesWay(t *testing.T) {
	m := newMemory(time.Now)
	create(t, m)
	c := newCatalogue()
	release, err := m.Lease(t.Context(), pruneLease)
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(maxTables + 4) {
		mustAdd(t, c, m, fmt.Sprint(i), versionOf(100, i))
	}
	if got := len(m.names(indexDir)); got != maxTables+4 {
		t.Errorf("%d index files while a prune runs, want %d", got, maxTables+4)
	}
	release()
	mustAdd(t, c, m, "last", versionOf(100, 1000))
	if got := len(m.names(indexDir)); got > maxTables {
		t.Errorf("%d index files after a merge, want at most %d", got, maxTables)
	}
	c.wantSound(t, m)
}

// Merging writes an entry a few times at most: large tables are left alone.
func TestMergeLeavesLargeTables(t *testing.T) {
	m := newMemory(time.Now)
	create(t, m)
	c := newCatalogue()
	var seeds []uint64
	for i := range uint64(500) {
		seeds = append(seeds, i)
	}
	mustAdd(t, c, m, "large", versionOf(50, seeds...))
	large := m.names(indexDir)
	for i := range uint64(2 * maxTables) {
		mustAdd(t, c, m, fmt.Sprint(i), versionOf(100, 1000+i))
	}
	if names := m.names(indexDir); !slices.Contains(names, large[0]) || len(names) > maxTables+1 {
		t.Errorf("index files are %d, %v, want %s among few", len(names), names, large[0])
	}
	c.wantSound(t, m)
}
