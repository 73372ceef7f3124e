package cas

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// streamed is a store with a version of several frames.
func streamed(t *testing.T) (m *memory, v version, keys []Digest) {
	t.Helper()
	m = newMemory(time.Now)
	create(t, m)
	var seeds []uint64
	for i := range uint64(40) {
		seeds = append(seeds, i)
	}
	v = versionOf(100<<10, seeds...)
	mustAdd(t, newCatalogue(), m, "v", v)
	return m, v, v.keys()
}

// collect reads a stream to its end.
func collect(stream iter.Seq2[[]byte, error]) (chunks [][]byte, err error) {
	for chunk, err := range stream {
		if err != nil {
			return chunks, err
		}
		chunks = append(chunks, chunk)
	}
	return chunks, nil
}

// wantChunks fails unless chunks are those of keys, in order.
func wantChunks(t *testing.T, chunks [][]byte, v version, keys []Digest) {
	t.Helper()
	if len(chunks) != len(keys) {
		t.Errorf("the stream gave %d chunks, want %d", len(chunks), len(keys))
		return
	}
	for i, key := range keys {
		if !bytes.Equal(chunks[i], v.chunks[key]) {
			t.Errorf("chunk %d of the stream is not %s", i, key.Short())
		}
	}
}

func TestStreamOrder(t *testing.T) {
	m, v, keys := streamed(t)
	shuffled := slices.Clone(keys)
	r := rand.New(rand.NewPCG(1, 2))
	r.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	for _, test := range []struct {
		name string
		keys []Digest
	}{
		{"none", nil},
		{"one", keys[:1]},
		{"all", keys},
		{"shuffled", shuffled},
		{"repeated", slices.Concat(keys[:3], keys[:3], keys[2:3], keys[2:3], shuffled)},
		{"one, again and again", slices.Repeat(keys[:1], 3*lookAhead+1)},
	} {
		chunks, err := collect(open(t, m).Stream(t.Context(), slices.Values(test.keys)))
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		wantChunks(t, chunks, v, test.keys)
	}
}

// An error stands where its chunk would, after all chunks before it.
func TestStreamErrorInPlace(t *testing.T) {
	m, v, keys := streamed(t)
	for _, at := range []int{0, 1, 17, len(keys)} {
		with := slices.Insert(slices.Clone(keys), at, Sum([]byte("absent")))
		chunks, err := collect(open(t, m).Stream(t.Context(), slices.Values(with)))
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("key %d absent: %v, want ErrNotFound", at, err)
		}
		wantChunks(t, chunks, v, keys[:at])
	}
	// Damage in the pack: what stands before it still comes.
	name := m.names(packDir)[0]
	m.edit(t, name, func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
	s := open(t, m)
	chunks, err := collect(s.Stream(t.Context(), slices.Values(keys)))
	var corrupt *CorruptError
	if !errors.As(err, &corrupt) || corrupt.Object != name {
		t.Fatalf("stream from a damaged pack: %v, want CorruptError of %s", err, name)
	}
	wantChunks(t, chunks, v, keys[:len(chunks)])
	if _, err := s.Get(t.Context(), keys[len(chunks)]); !errors.Is(err, ErrCorrupt) {
		t.Errorf("the stream ended at key %d, which can be read: %v", len(chunks), err)
	}
}

// An error that passes by is still an error: a stream never ends early without one.
func TestStreamPassingError(t *testing.T) {
	m, v, keys := streamed(t)
	var failing atomic.Bool
	s := open(t, &proxy{Backend: m, through: func(op, name string, do func() error) error {
		if op == "ReadAt" && failing.CompareAndSwap(true, false) {
			return errFault
		}
		return do()
	}})
	for at := range 3 {
		s.frames = newFrameCache()
		i := 0
		chunks, err := collect(s.Stream(t.Context(), func(yield func(Digest) bool) {
			for _, key := range keys {
				if i == at*10 {
					failing.Store(true)
				}
				if i++; !yield(key) {
					return
				}
			}
		}))
		met := !failing.Swap(false)
		if met != errors.Is(err, errFault) {
			t.Errorf("fault at key %d: %d chunks, %v, want the fault if it was met (%v)", at*10, len(chunks), err, met)
		}
		if err == nil {
			wantChunks(t, chunks, v, keys)
		}
		wantChunks(t, chunks, v, keys[:len(chunks)])
	}
	// A key that was absent when its turn came stays an error, although it has
	// come since: the keys after it were not looked at.
	late := chunkOf(1000, 10)
	var jobs []*frameJob
	s.plan(t.Context(), slices.Values([]Digest{keys[0], Sum(late), keys[1]}), func(job *frameJob) bool {
		jobs = append(jobs, job)
		return true
	})
	mustPut(t, s, late)
	for i, want := range []error{nil, ErrNotFound} {
		if jobs[i].run(t.Context(), s); !errors.Is(jobs[i].err, want) {
			t.Errorf("job %d = %v, want %v", i, jobs[i].err, want)
		}
	}
	if len(jobs) != 2 {
		t.Errorf("plan gave %d jobs, want 2", len(jobs))
	}
}

// mustPut commits a chunk.
func mustPut(t *testing.T, s *Store, data []byte) {
	t.Helper()
	tx := s.Begin(t.Context())
	defer tx.Abort()
	if _, err := tx.Put(Sum(data), data); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

func TestStreamEnds(t *testing.T) {
	m, v, keys := streamed(t)
	s := open(t, m)
	before := runtime.NumGoroutine()

	// The caller stops.
	n := 0
	for chunk, err := range s.Stream(t.Context(), slices.Values(keys)) {
		if err != nil || !bytes.Equal(chunk, v.chunks[keys[n]]) {
			t.Fatalf("chunk %d: %v", n, err)
		}
		if n++; n == 3 {
			break
		}
	}
	wantGoroutines(t, before)

	// The context ends, at once or on the way.
	for _, at := range []int{0, 1, 20} {
		ctx, cancel := context.WithCancel(t.Context())
		if at == 0 {
			cancel()
		}
		n, failed := 0, error(nil)
		for _, err := range s.Stream(ctx, slices.Values(keys)) {
			if failed != nil {
				t.Fatalf("cancelled at %d: the stream goes on after its error", at)
			}
			if failed = err; err != nil {
				continue
			}
			if n++; n == at {
				cancel()
			}
		}
		cancel()
		// What was decoded already may still come, but not without an error after it.
		if !errors.Is(failed, context.Canceled) {
			t.Errorf("cancelled at %d: %d chunks, %v, want context.Canceled", at, n, failed)
		}
		wantGoroutines(t, before)
	}
}

// wantGoroutines fails when there stay more goroutines than there were.
func wantGoroutines(t *testing.T, want int) {
	t.Helper()
	for range 1000 {
		if runtime.NumGoroutine() <= want {
			return
		}
		time.Sleep(time.Millisecond) // ended, and not yet gone
	}
	stacks := make([]byte, 1<<16)
	t.Errorf("%d goroutines, want %d\n%s", runtime.NumGoroutine(), want, stacks[:runtime.Stack(stacks, true)])
}

// A stream reads each frame once, however many chunks are in it, and a few
// frames ahead of its caller.
func TestStreamReadsAhead(t *testing.T) {
	m, _, keys := streamed(t)
	var reads atomic.Int32
	s := open(t, &proxy{Backend: m, through: func(op, name string, do func() error) error {
		if op == "ReadAt" && strings.HasPrefix(name, packDir) {
			reads.Add(1)
		}
		return do()
	}})
	if _, err := collect(s.Stream(t.Context(), slices.Values(keys))); err != nil {
		t.Fatal(err)
	}
	frames := map[frameID]bool{}
	for _, key := range keys {
		e, _, err := s.locate(key)
		if err != nil {
			t.Fatal(err)
		}
		frames[frameID{e.Pack, e.Frame}] = true
	}
	if got := int(reads.Load()); got != len(frames) {
		t.Errorf("%d reads for %d frames", got, len(frames))
	}
}

// A cancelled stream does no harm to another one that waits for the same frame.
func TestStreamsDoNotCancelEachOther(t *testing.T) {
	m, v, keys := streamed(t)
	inside, proceed := make(chan struct{}), make(chan struct{})
	var first atomic.Bool
	first.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	s := open(t, &proxy{Backend: m, through: func(op, name string, do func() error) error {
		if op == "ReadAt" && strings.HasPrefix(name, packDir) && first.CompareAndSwap(true, false) {
			close(inside)
			<-proceed
		}
		return do()
	}})
	cancelled := make(chan error)
	go func() {
		_, err := s.Get(ctx, keys[0])
		cancelled <- err
	}()
	<-inside
	healthy := make(chan error)
	go func() {
		got, err := s.Get(t.Context(), keys[0])
		if err == nil && !bytes.Equal(got, v.chunks[keys[0]]) {
			err = io.ErrUnexpectedEOF
		}
		healthy <- err
	}()
	letWait()
	cancel()
	close(proceed)
	if err := <-cancelled; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled Get = %v, want context.Canceled", err)
	}
	if err := <-healthy; err != nil {
		t.Errorf("Get beside a cancelled one = %v", err)
	}
}
