package cas

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/cas/pack"
)

func TestDedupe(t *testing.T) {
	m := newMemory(time.Now)
	create(t, m)
	v := versionOf(1000, 1, 2, 3)
	for i, wantNew := range []int64{3, 0} {
		s := open(t, m)
		tx := s.Begin(t.Context())
		for range 2 { // within a transaction too
			if err := v.putInto(tx); err != nil {
				t.Fatal(err)
			}
			for _, key := range v.keys() {
				if has, err := tx.Has(key); !has || err != nil {
					t.Errorf("Has(%s) after Put = %v, %v, want true", key.Short(), has, err)
				}
			}
		}
		added, err := tx.Commit()
		if err != nil {
			t.Fatal(err)
		}
		want := Added{Chunks: wantNew, Size: wantNew * 1000, StoredBytes: added.StoredBytes}
		if added != want || (added.StoredBytes > 0) != (wantNew > 0) {
			t.Errorf("add %d: Commit = %+v, want %+v", i, added, want)
		}
	}
	if got := len(m.names(packDir)); got != 1 {
		t.Errorf("the store has %d packs, want 1", got)
	}
}

func TestPutReportsNew(t *testing.T) {
	m := newMemory(time.Now)
	create(t, m)
	tx := open(t, m).Begin(t.Context())
	defer tx.Abort()
	data := chunkOf(1, 100)
	for _, want := range []bool{true, false} {
		if got, err := tx.Put(Sum(data), data); got != want || err != nil {
			t.Errorf("Put = %v, %v, want %v", got, err, want)
		}
	}
	data[0] ^= 1 // Put has copied it
	if _, err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	data[0] ^= 1
	if _, err := open(t, m).Get(t.Context(), Sum(data)); err != nil {
		t.Error(err)
	}
}

func TestPutLimits(t *testing.T) {
	m := newMemory(time.Now)
	create(t, m)
	tx := open(t, m).Begin(t.Context())
	defer tx.Abort()
	for _, n := range []int{0, pack.MaxFrame/2 + 1} {
		if _, err := tx.Put(Sum(make([]byte, n)), make([]byte, n)); err == nil {
			t.Errorf("Put(%d bytes) succeeded", n)
		}
	}
	if err := tx.PutRecord(Sum(nil), make([]byte, MaxRecord+1)); err == nil {
		t.Errorf("PutRecord(%d bytes) succeeded", MaxRecord+1)
	}
	// The largest chunks fit, however they fall into frames.
	var v version = versionOf(pack.MaxFrame/2, 1, 2)
	v.chunks[Sum([]byte("x"))] = []byte("x")
	if err := v.putInto(tx); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := v.read(t.Context(), open(t, m)); err != nil {
		t.Error(err)
	}
}

func TestEndedTransaction(t *testing.T) {
	m := newMemory(time.Now)
	create(t, m)
	for _, end := range []string{"Commit", "Abort"} {
		tx := open(t, m).Begin(t.Context())
		if end == "Abort" {
			tx.Abort()
		} else if _, err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Put(Sum([]byte("x")), []byte("x")); !errors.Is(err, ErrClosed) {
			t.Errorf("Put after %s = %v, want ErrClosed", end, err)
		}
		if err := tx.PutRecord(Sum(nil), nil); !errors.Is(err, ErrClosed) {
			t.Errorf("PutRecord after %s = %v, want ErrClosed", end, err)
		}
		if _, err := tx.Commit(); !errors.Is(err, ErrClosed) {
			t.Errorf("Commit after %s = %v, want ErrClosed", end, err)
		}
		tx.Abort()
	}
	if got := m.names(""); len(got) != 1 {
		t.Errorf("empty transactions left %q, want the config alone", got)
	}
}

// What is not committed does not count, and the complete packs of an aborted
// transaction are found again.
func TestAbort(t *testing.T) {
	m := newMemory(time.Now)
	create(t, m)
	small := versionOf(1000, 1)
	tx := open(t, m).Begin(t.Context())
	if err := small.putInto(tx); err != nil {
		t.Fatal(err)
	}
	tx.Abort()
	if got := m.names(""); len(got) != 1 {
		t.Errorf("a small aborted transaction left %q, want the config alone", got)
	}
	var cause = errors.New("out of patience")
	ctx, cancel := context.WithCancelCause(t.Context())
	tx = open(t, m).Begin(ctx)
	cancel(cause)
	err := small.putInto(tx)
	if err == nil {
		_, err = tx.Commit()
	}
	if !errors.Is(err, cause) {
		t.Errorf("cancelled transaction = %v, want %v", err, cause)
	}
	newCatalogue().wantSound(t, m)
}

// big is a version of several packs and many frames.
func big() version {
	var seeds []uint64
	for i := range uint64(150) {
		seeds = append(seeds, 1000+i)
	}
	return versionOf(600<<10, seeds...)
}

// The same input gives the same packs and indexes on any number of cores.
func TestDeterministic(t *testing.T) {
	v := big()
	var want []string
	for _, n := range []int{1, 4, 2} {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(n))
		m := newMemory(time.Now)
		create(t, m)
		mustAdd(t, newCatalogue(), m, "v", v)
		got := m.names("")
		if want == nil {
			want = got
		}
		if !slices.Equal(got, want) {
			t.Errorf("GOMAXPROCS %d gives\n%s\nwant\n%s", n, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if packs := len(m.names(packDir)); packs < 2 {
			t.Fatalf("the version fills %d packs, too few for this test", packs)
		}
	}
}

// An aborted transaction leaves its complete packs to the next one.
func TestAbortKeepsCompletePacks(t *testing.T) {
	m := newMemory(time.Now)
	create(t, m)
	v := big()
	written := make(chan struct{}, 100)
	p := &proxy{Backend: m, through: func(op, name string, do func() error) error {
		err := do()
		if op == "Put" && strings.HasPrefix(name, packDir) {
			written <- struct{}{}
		}
		return err
	}}
	tx := open(t, p).Begin(t.Context())
	if err := v.putInto(tx); err != nil {
		t.Fatal(err)
	}
	<-written
	tx.Abort()
	packs := m.names(packDir)
	if len(m.names(indexDir)) != 1 {
		t.Errorf("Abort left %q, want one index", m.names(indexDir))
	}
	tx = open(t, m).Begin(t.Context())
	if err := v.putInto(tx); err != nil {
		t.Fatal(err)
	}
	added, err := tx.Commit()
	if err != nil {
		t.Fatal(err)
	}
	if want := int64(len(v.chunks)); added.Chunks == 0 || added.Chunks >= want {
		t.Errorf("the second run added %d chunks, want fewer than %d", added.Chunks, want)
	}
	for _, name := range packs {
		if !slices.Contains(m.names(packDir), name) {
			t.Errorf("pack %s is gone", name)
		}
	}
	if err := v.read(t.Context(), open(t, m)); err != nil {
		t.Error(err)
	}
}
