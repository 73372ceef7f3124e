package cas

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"ferry/cas/backend"
)

// chunkOf returns seeded bytes that compress to about half.
func chunkOf(seed uint64, n int) []byte {
	var from [32]byte
	binary.LittleEndian.PutUint64(from[:], seed)
	src := rand.NewChaCha8(from)
	b := make([]byte, n)
	src.Read(b[:(n+1)/2])
	copy(b[(n+1)/2:], bytes.Repeat([]byte("ferry "), n/12+1))
	return b
}

// version is what a caller adds in one transaction.
type version struct {
	chunks  map[Digest][]byte
	records map[Digest][]byte
}

// versionOf has one chunk for each seed, and a record that lists them.
func versionOf(size int, seeds ...uint64) version {
	v := version{map[Digest][]byte{}, map[Digest][]byte{}}
	var list []byte
	for _, seed := range seeds {
		data := chunkOf(seed, size)
		v.chunks[Sum(data)] = data
		list = binary.BigEndian.AppendUint64(list, seed)
	}
	v.records[Sum(append([]byte("name of "), list...))] = append([]byte("chunks of seeds "), list...)
	return v
}

// keys lists the chunks in a fixed order.
func (v version) keys() []Digest {
	return slices.SortedFunc(maps.Keys(v.chunks), func(a, b Digest) int { return bytes.Compare(a[:], b[:]) })
}

// putInto adds the version to a transaction.
func (v version) putInto(tx *Tx) error {
	for _, key := range v.keys() {
		if _, err := tx.Put(key, v.chunks[key]); err != nil {
			return err
		}
	}
	for name, body := range v.records {
		if err := tx.PutRecord(name, body); err != nil {
			return err
		}
	}
	return nil
}

// read compares what the store has of a version with what was put.
func (v version) read(ctx context.Context, s *Store) error {
	var failed error
	for _, key := range v.keys() {
		if got, err := s.Get(ctx, key); err != nil || !bytes.Equal(got, v.chunks[key]) {
			failed = errors.Join(failed, fmt.Errorf("Get(%s) = %d bytes, %v, want %d bytes", key.Short(), len(got), err, len(v.chunks[key])))
		}
	}
	for name, body := range v.records {
		if got, err := s.Record(ctx, name); err != nil || !bytes.Equal(got, body) {
			failed = errors.Join(failed, fmt.Errorf("Record(%s) = %q, %v, want %q", name.Short(), got, err, body))
		}
	}
	return failed
}

// catalogue is the versions that a caller counts on, by name.
type catalogue struct {
	mu       sync.Mutex
	versions map[string]version
}

func newCatalogue() *catalogue { return &catalogue{versions: map[string]version{}} }

func (c *catalogue) clone() *catalogue { return &catalogue{versions: c.snapshot()} }

func (c *catalogue) tag(name string, v version) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.versions[name] = v
}

func (c *catalogue) remove(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.versions, name)
}

func (c *catalogue) snapshot() map[string]version {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.versions)
}

// live is a Live: what the versions of this moment need.
func (c *catalogue) live(_ context.Context, chunk, record func(Digest) error) error {
	for _, v := range c.snapshot() {
		for key := range v.chunks {
			if err := chunk(key); err != nil {
				return err
			}
		}
		for name := range v.records {
			if err := record(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// add takes a version in, in a session of its own, as a command does.
func (c *catalogue) add(ctx context.Context, b backend.Backend, name string, v version) error {
	s, err := Open(ctx, b)
	if err != nil {
		return err
	}
	defer s.Close()
	tx := s.Begin(ctx)
	defer tx.Abort()
	if err := v.putInto(tx); err != nil {
		return err
	}
	if _, err := tx.Commit(); err != nil {
		return err
	}
	c.tag(name, v)
	return nil
}

// prune prunes in a session of its own.
func (c *catalogue) prune(ctx context.Context, b backend.Backend, opts PruneOptions) (PruneReport, error) {
	s, err := Open(ctx, b)
	if err != nil {
		return PruneReport{}, err
	}
	defer s.Close()
	return s.Prune(ctx, opts, c.live)
}

// create makes a store.
func create(t testing.TB, b backend.Backend) {
	t.Helper()
	if err := Create(t.Context(), b, []byte(`{"cut":"anyhow"}`)); err != nil {
		t.Fatal(err)
	}
}

// open opens a store until the test ends.
func open(t testing.TB, b backend.Backend) *Store {
	t.Helper()
	s, err := Open(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func mustAdd(t testing.TB, c *catalogue, b backend.Backend, name string, v version) {
	t.Helper()
	if err := c.add(t.Context(), b, name, v); err != nil {
		t.Fatalf("add of %s: %v", name, err)
	}
}

func mustPrune(t testing.TB, c *catalogue, b backend.Backend, opts PruneOptions) PruneReport {
	t.Helper()
	r, err := c.prune(t.Context(), b, opts)
	if err != nil {
		t.Fatalf("Prune: %v", err)
	}
	return r
}

// wantReadable fails unless all versions can be read.
func (c *catalogue) wantReadable(t testing.TB, s *Store) {
	t.Helper()
	for name, v := range c.snapshot() {
		if err := v.read(t.Context(), s); err != nil {
			t.Errorf("version %s: %v", name, err)
		}
	}
}

// wantSound fails unless all versions can be read and a check finds nothing but
// hints.
func (c *catalogue) wantSound(t testing.TB, b backend.Backend) {
	t.Helper()
	s, err := Open(t.Context(), b)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	defer s.Close()
	c.wantReadable(t, s)
	_, err = s.Check(t.Context(), true, nil, func(p Problem) {
		if !p.Hint {
			t.Errorf("Check found %s: %s: %s", p.Kind, p.Object, p.Detail)
		}
	})
	if err != nil {
		t.Errorf("Check: %v", err)
	}
}
