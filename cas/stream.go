package cas

import (
	"context"
	"iter"
	"runtime"
	"sync"

	"ferry/cas/index"
	"ferry/cas/pack"
)

// Stream yields the chunks of keys, in order and verified, decoding frames ahead
// of the caller on all cores. It stops after the first error, which it yields.
// Memory is a frame for each core and two more.
func (s *Store) Stream(ctx context.Context, keys iter.Seq[Digest]) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		ahead := make(chan *frameJob, runtime.GOMAXPROCS(0))
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer close(ahead)
			s.plan(ctx, keys, func(job *frameJob) bool {
				select {
				case ahead <- job:
				case <-ctx.Done():
					return false
				}
				wg.Add(1)
				go func() {
					defer wg.Done()
					job.run(ctx, s)
				}()
				return true
			})
		}()
		for job := range ahead {
			select {
			case <-job.done:
			case <-ctx.Done():
				yield(nil, ctx.Err())
				return
			}
			for _, chunk := range job.chunks {
				if err := ctx.Err(); err != nil { // what was read ahead is not given any more
					yield(nil, err)
					return
				}
				if !yield(chunk, nil) {
					return
				}
			}
			if job.err != nil {
				yield(nil, job.err)
				return
			}
		}
		if err := ctx.Err(); err != nil {
			yield(nil, err)
		}
	}
}

// frameJob reads neighbouring keys that stand in the same frame.
type frameJob struct {
	keys   []ahead
	done   chan struct{}
	chunks [][]byte
	err    error
}

// ahead is a key that is going to be read.
type ahead struct {
	key   Digest
	e     index.Entry
	guess guess
}

// guess says what derivation may make a chunk, too, besides the one that the index
// names: one that is made for its neighbours anyway.
type guess struct {
	by   Digest // zero for none
	offs [2]int // where the chunk may stand in what it makes; -1 for nowhere
}

func (j *frameJob) run(ctx context.Context, s *Store) {
	defer close(j.done)
	if j.err != nil {
		return
	}
	for _, k := range j.keys {
		chunk, err := s.guessed(ctx, k), error(nil)
		if chunk == nil {
			chunk, err = s.Get(ctx, k.key)
		}
		if err != nil {
			j.err = err
			return
		}
		j.chunks = append(j.chunks, chunk)
	}
}

// guessed returns a chunk if it is where it was guessed to be.
func (s *Store) guessed(ctx context.Context, k ahead) []byte {
	if k.guess.by.IsZero() {
		return nil
	}
	made, err := s.madeBy(ctx, k.guess.by)
	if err != nil {
		return nil // it is read as the index has it
	}
	for _, off := range k.guess.offs {
		if off < 0 || off+k.e.Size > len(made) {
			continue
		}
		if chunk := made[off : off+k.e.Size : off+k.e.Size]; Sum(chunk) == k.key {
			return chunk
		}
	}
	return nil
}

// lookAhead is how many keys are looked up before the first of them is read. It bounds a
// job, too, should one key be repeated without end.
const lookAhead = 1024

// plan groups keys into jobs and hands them to emit until it returns false.
func (s *Store) plan(ctx context.Context, keys iter.Seq[Digest], emit func(*frameJob) bool) {
	var next []ahead
	for key := range keys {
		if ctx.Err() != nil {
			return
		}
		e, _, err := s.locate(key)
		if err != nil {
			if s.emitJobs(ctx, next, emit) {
				emit(&frameJob{done: make(chan struct{}), err: err}) // reported in its turn
			}
			return
		}
		next = append(next, ahead{key: key, e: e})
		if len(next) == lookAhead {
			if !s.emitJobs(ctx, next, emit) {
				return
			}
			next = nil
		}
	}
	s.emitJobs(ctx, next, emit)
}

// emitJobs makes jobs of keys.
func (s *Store) emitJobs(ctx context.Context, keys []ahead, emit func(*frameJob) bool) bool {
	s.guess(ctx, keys)
	for len(keys) > 0 {
		at := frameID{keys[0].e.Pack, keys[0].e.Frame}
		n := 1
		for n < len(keys) && at == (frameID{keys[n].e.Pack, keys[n].e.Frame}) {
			n++
		}
		if !emit(&frameJob{keys: keys[:n:n], done: make(chan struct{})}) {
			return false
		}
		keys = keys[n:]
	}
	return true
}

// guess finds the derivation that makes most of keys, where they are of several, and
// where it may make the others. A release of a file has chunks of releases before it,
// each of which is derived with the release that first had it; but the derivation of
// this one makes all of it.
func (s *Store) guess(ctx context.Context, keys []ahead) {
	by := make([]Digest, len(keys)) // their derivations
	ends := make([]int, len(keys))  // of the chunks, in what those make
	count := map[Digest]int{}
	var most Digest
	for i, k := range keys {
		if k.e.Codec != pack.Derived {
			continue
		}
		f, err := s.derivedFrame(ctx, k.e)
		if err != nil {
			continue // reported when it is read
		}
		p, err := f.piece(k.e)
		if err != nil {
			continue
		}
		by[i], ends[i] = f.key, p.off+p.size
		count[f.key]++
		if count[f.key] > count[most] {
			most = f.key
		}
	}
	if len(count) < 2 {
		return
	}
	end := -1 // of the chunk before, as counted from one that most makes
	for i := range keys {
		switch {
		case by[i] == most:
			end = ends[i]
		case end >= 0:
			if by[i] != (Digest{}) {
				keys[i].guess = guess{most, [2]int{end, -1}}
			}
			end += keys[i].e.Size
		}
	}
	start := -1 // of the chunk behind
	for i := len(keys) - 1; i >= 0; i-- {
		switch {
		case by[i] == most:
			start = ends[i] - keys[i].e.Size
		case start >= 0:
			start -= keys[i].e.Size
			if by[i] == (Digest{}) {
				continue
			}
			if keys[i].guess.by.IsZero() {
				keys[i].guess = guess{most, [2]int{-1, -1}}
			}
			keys[i].guess.offs[1] = start
		}
	}
}
