package cas

import (
	"bytes"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ferry/cas/backend"
)

func TestRoundTrip(t *testing.T) {
	b := backend.NewLocal(t.TempDir())
	create(t, b)
	c := newCatalogue()
	large := versionOf(3<<20, 10, 11, 12)
	large.records[Sum([]byte("empty record"))] = []byte{}
	large.records[Sum([]byte("largest record"))] = chunkOf(13, MaxRecord)
	tiny := versionOf(1, 1, 2, 3)
	mustAdd(t, c, b, "large", large)
	mustAdd(t, c, b, "tiny", tiny)
	c.wantSound(t, b)
	s := open(t, b)
	for key, data := range large.chunks {
		if has, err := s.Has(key); !has || err != nil {
			t.Errorf("Has(%s) = %v, %v, want true", key.Short(), has, err)
		}
		if size, err := s.Size(key); size != int64(len(data)) || err != nil {
			t.Errorf("Size(%s) = %d, %v, want %d", key.Short(), size, err, len(data))
		}
	}
	for name := range tiny.records {
		if has, err := s.HasRecord(name); !has || err != nil {
			t.Errorf("HasRecord(%s) = %v, %v, want true", name.Short(), has, err)
		}
	}
	if got := string(s.Policy()); got != `{"cut":"anyhow"}` {
		t.Errorf("Policy() = %s", got)
	}
}

func TestAbsent(t *testing.T) {
	m := newMemory(time.Now)
	if _, err := Open(t.Context(), m); !errors.Is(err, ErrNotFound) {
		t.Errorf("Open(no store) = %v, want ErrNotFound", err)
	}
	create(t, m)
	if err := Create(t.Context(), m, nil); !errors.Is(err, backend.ErrExist) {
		t.Errorf("second Create = %v, want ErrExist", err)
	}
	mustAdd(t, newCatalogue(), m, "v", versionOf(100, 1, 2, 3))
	s := open(t, m)
	key := Sum([]byte("absent"))
	var notFound *NotFoundError
	if _, err := s.Get(t.Context(), key); !errors.As(err, &notFound) || !errors.Is(err, ErrNotFound) {
		t.Errorf("Get(absent) = %v, want NotFoundError", err)
	}
	if _, err := s.Record(t.Context(), key); !errors.As(err, &notFound) || notFound.What != "record" || notFound.Name != key.String() {
		t.Errorf("Record(absent) = %v, want NotFoundError of the record", err)
	}
	if _, err := s.Size(key); !errors.Is(err, ErrNotFound) {
		t.Errorf("Size(absent) = %v, want ErrNotFound", err)
	}
	if has, err := s.Has(key); has || err != nil {
		t.Errorf("Has(absent) = %v, %v, want false", has, err)
	}
	if has, err := s.HasRecord(key); has || err != nil {
		t.Errorf("HasRecord(absent) = %v, %v, want false", has, err)
	}
}

// Chunks and records do not mix: a chunk cannot be read as a record, nor a
// record as a chunk.
func TestRecordsAreNotChunks(t *testing.T) {
	m := newMemory(time.Now)
	create(t, m)
	v := versionOf(100, 1)
	mustAdd(t, newCatalogue(), m, "v", v)
	s := open(t, m)
	for key := range v.chunks {
		if _, err := s.Record(t.Context(), key); !errors.Is(err, ErrNotFound) {
			t.Errorf("Record(key of a chunk) = %v, want ErrNotFound", err)
		}
	}
	for name := range v.records {
		if _, err := s.Get(t.Context(), name); !errors.Is(err, ErrNotFound) {
			t.Errorf("Get(name of a record) = %v, want ErrNotFound", err)
		}
		if _, err := s.Get(t.Context(), recordKey(name)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("Get(key of a record) = %v, want ErrCorrupt: its bytes do not hash to it", err)
		}
	}
}

// TestAgainstModel adds random versions in random order, from stores opened at
// different times, and compares with a map.
func TestAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMemory(time.Now)
		if err := Create(t.Context(), m, nil); err != nil {
			t.Fatal(err)
		}
		c := newCatalogue()
		for i := range rapid.IntRange(1, 4).Draw(t, "versions") {
			seeds := rapid.SliceOfN(rapid.Uint64Range(0, 12), 1, 8).Draw(t, "seeds")
			if err := c.add(t.Context(), m, string(rune('a'+i)), versionOf(rapid.IntRange(1, 2000).Draw(t, "size"), seeds...)); err != nil {
				t.Fatal(err)
			}
		}
		s, err := Open(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		var want Stats
		seen := map[Digest]bool{}
		for _, v := range c.snapshot() {
			if err := v.read(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			for key, data := range v.chunks {
				if !seen[key] {
					want.Chunks++
					want.ChunkBytes += int64(len(data))
				}
				seen[key] = true
			}
			for name := range maps.Keys(v.records) {
				if !seen[name] {
					want.Records++
				}
				seen[name] = true
			}
		}
		got, err := s.Stats(t.Context())
		if err != nil || got.Chunks != want.Chunks || got.ChunkBytes != want.ChunkBytes || got.Records != want.Records {
			t.Fatalf("Stats = %+v, %v, want %d chunks of %d bytes, %d records", got, err, want.Chunks, want.ChunkBytes, want.Records)
		}
	})
}

// An open store sees what others add once it looks anew, and reads chunks whose
// index or pack was replaced meanwhile.
func TestOpenStoreFollowsOthers(t *testing.T) {
	m := newMemory(time.Now)
	create(t, m)
	c := newCatalogue()
	mustAdd(t, c, m, "first", versionOf(500, 1, 2, 3))
	s := open(t, m)
	for i := range uint64(2 * maxTables) { // merges the index that s has open
		mustAdd(t, c, m, string(rune('a'+i)), versionOf(500, 100+i))
	}
	if err := c.snapshot()["first"].read(t.Context(), s); err != nil {
		t.Errorf("after a merge: %v", err)
	}
	if err := s.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, v := range c.snapshot() {
		if err := v.read(t.Context(), s); err != nil {
			t.Errorf("after a refresh: version %s: %v", name, err)
		}
	}
}

// Readers share a store.
func TestConcurrentReaders(t *testing.T) {
	b := backend.NewLocal(t.TempDir())
	create(t, b)
	c := newCatalogue()
	v := versionOf(200<<10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)
	mustAdd(t, c, b, "v", v)
	s := open(t, b)
	done := make(chan error)
	for i := range 4 {
		keys := v.keys()
		r := rand.New(rand.NewPCG(uint64(i), 0))
		r.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
		go func() {
			for _, key := range slices.Concat(keys, keys) {
				if got, err := s.Get(t.Context(), key); err != nil || !bytes.Equal(got, v.chunks[key]) {
					done <- errors.Join(err, errors.New("wrong bytes of "+key.Short()))
					return
				}
			}
			done <- nil
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
