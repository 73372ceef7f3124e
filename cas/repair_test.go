package cas

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/cas/backend"
)

// A flipped bit anywhere in a pack or an index is found by a check, or keeps the
// store from opening, and never gives wrong bytes.
func TestEveryFlippedBitIsFound(t *testing.T) {
	sound := newDamaged(t)
	for _, name := range []string{sound.packA, sound.packB, sound.indexA} {
		for at := 0; at < len(sound.objects[name].data); at += 5 {
			d := *sound
			d.memory = sound.clone()
			d.edit(t, name, func(b []byte) []byte { b[at] ^= 1 << (at % 8); return b })
			if s, err := Open(t.Context(), d); err == nil {
				found := 0
				_, err = s.Check(t.Context(), true, nil, func(p Problem) {
					if !p.Hint {
						found++
					}
				})
				if err != nil || found == 0 {
					t.Errorf("bit flipped at %d of %s: Check found %d problems, %v", at, name, found, err)
				}
				wantRightOrNothing(t, s, d.c, fmt.Sprintf("bit flipped at %d of %s", at, name))
				s.Close()
			} else if !errors.Is(err, ErrCorrupt) {
				t.Errorf("bit flipped at %d of %s: Open = %v, want ErrCorrupt", at, name, err)
			}
		}
	}
}

// wantRightOrNothing reads all versions: what comes must be right.
func wantRightOrNothing(t *testing.T, s *Store, c *catalogue, what string) {
	t.Helper()
	for _, v := range c.snapshot() {
		for key, want := range v.chunks {
			got, err := s.Get(t.Context(), key)
			if err == nil && !bytes.Equal(got, want) || err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNotFound) {
				t.Errorf("%s: Get = %d bytes, %v, want the right ones or that they are damaged or lost", what, len(got), err)
			}
		}
		for name, want := range v.records {
			got, err := s.Record(t.Context(), name)
			if err == nil && !bytes.Equal(got, want) || err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNotFound) {
				t.Errorf("%s: Record = %q, %v, want the right bytes or that they are damaged or lost", what, got, err)
			}
		}
	}
}

// repair runs RepairIndex and returns the kinds and objects that it reports.
func repair(t *testing.T, b backend.Backend) (blobs int64, found []string) {
	t.Helper()
	blobs, err := RepairIndex(t.Context(), b, func(p Problem) { found = append(found, p.Kind+" "+p.Object) })
	if err != nil {
		t.Fatalf("RepairIndex: %v", err)
	}
	return blobs, found
}

// Repairing a sound store changes nothing once its index is one file.
func TestRepairSoundIndex(t *testing.T) {
	m := newMemory(time.Now)
	create(t, m)
	c := newCatalogue()
	for i := range uint64(3) {
		mustAdd(t, c, m, fmt.Sprint(i), versionOf(100, i, i+1))
	}
	var want []string
	for range 3 {
		blobs, found := repair(t, m)
		if blobs != 4+3 || len(found) != 0 {
			t.Errorf("RepairIndex = %d blobs, %q, want 7 and nothing", blobs, found)
		}
		names := m.names(indexDir)
		if want == nil {
			want = names
		}
		if len(names) != 1 || !slices.Equal(names, want) {
			t.Errorf("index files are %q, want %q", names, want)
		}
		c.wantSound(t, m)
	}
}

// All index files at once may be gone or damaged, the new one among them.
func TestRepairWithoutIndex(t *testing.T) {
	m := newMemory(time.Now)
	create(t, m)
	c := newCatalogue()
	mustAdd(t, c, m, "v", versionOf(100, 1, 2, 3))
	for _, damage := range []func([]byte) []byte{missing, emptied, truncated, foreign, flip(30), flip(-1)} {
		for _, name := range m.names(indexDir) {
			m.edit(t, name, damage)
		}
		if blobs, found := repair(t, m); blobs != 4 || len(found) != 0 {
			t.Errorf("RepairIndex = %d blobs, %q, want 4 and nothing", blobs, found)
		}
		c.wantSound(t, m)
	}
}

// Packs whose directory is damaged are reported and left out; the rest is found.
func TestRepairLeavesOutDamagedPacks(t *testing.T) {
	for _, damage := range []func([]byte) []byte{emptied, truncated, foreign, flipDirectory} {
		d := newDamaged(t)
		d.edit(t, d.packA, damage)
		blobs, found := repair(t, d)
		if want := []string{ProblemDamagedPack + " " + d.packA}; blobs != 8 || !slices.Equal(found, want) {
			t.Errorf("RepairIndex = %d blobs, %q, want 8 and %q", blobs, found, want)
		}
		s := open(t, d)
		versions := d.c.snapshot()
		if err := versions["b"].read(t.Context(), s); err != nil {
			t.Error(err)
		}
		for _, key := range versions["a"].keys() {
			if _, err := s.Get(t.Context(), key); !errors.Is(err, ErrNotFound) {
				t.Errorf("Get(chunk of a pack left out) = %v, want ErrNotFound", err)
			}
		}
	}
}

// A repair and a prune exclude each other, and an add goes on beside them.
func TestRepairIsAlone(t *testing.T) {
	m := newMemory(time.Now)
	create(t, m)
	c := newCatalogue()
	release, err := m.Lease(t.Context(), pruneLease)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := RepairIndex(t.Context(), m, nil); !errors.Is(err, ErrLocked) {
		t.Errorf("RepairIndex beside a prune = %v, want ErrLocked", err)
	}
	if _, err := c.prune(t.Context(), m, PruneOptions{}); !errors.Is(err, ErrLocked) {
		t.Errorf("Prune beside another = %v, want ErrLocked", err)
	}
	mustAdd(t, c, m, "v", versionOf(100, 1))
	release()
	wantNoLeases(t, m)
	c.wantSound(t, m)
}

// What is added while the index is repaired stays indexed, whenever it comes.
func TestAddDuringRepair(t *testing.T) {
	for at := 0; ; at++ {
		m := newMemory(time.Now)
		create(t, m)
		c := newCatalogue()
		mustAdd(t, c, m, "before", versionOf(100, 1, 2))
		n := 0
		p := &proxy{Backend: m, through: func(op, name string, do func() error) error {
			if n++; n == at+1 {
				mustAdd(t, c, m, "meanwhile", versionOf(100, 2, 3))
			}
			return do()
		}}
		repair(t, p)
		c.wantSound(t, m)
		s := open(t, m)
		s.Check(t.Context(), false, nil, func(p Problem) { t.Errorf("added before operation %d: %s: %s", at, p.Kind, p.Object) })
		if n <= at {
			return
		}
	}
}

func TestStats(t *testing.T) {
	d := newDamaged(t)
	got, err := open(t, d).Stats(t.Context())
	want := Stats{Packs: 3, Indexes: 3, Chunks: 4 + 3 + 3, ChunkBytes: 4*500 + 3*500 + 3*600, Records: 3, DoomedPacks: 1}
	for _, v := range []version{d.c.snapshot()["a"], d.c.snapshot()["b"], versionOf(600, 21, 22, 23)} {
		for _, body := range v.records {
			want.RecordBytes += int64(len(body) + DigestSize)
		}
	}
	for name, o := range d.objects {
		switch {
		case strings.HasPrefix(name, packDir):
			want.PackBytes += int64(len(o.data))
		case strings.HasPrefix(name, indexDir):
			want.IndexBytes += int64(len(o.data))
		}
	}
	if got != want || err != nil {
		t.Errorf("Stats = %+v, %v, want %+v", got, err, want)
	}
}
