package cas

import (
	"context"
	"iter"
	"runtime"
	"sync"

	"ferry/cas/index"
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
	at     frameID
	keys   []Digest
	done   chan struct{}
	chunks [][]byte
	err    error
}

func (j *frameJob) run(ctx context.Context, s *Store) {
	defer close(j.done)
	if j.err != nil {
		return
	}
	for _, key := range j.keys {
		chunk, err := s.Get(ctx, key)
		if err != nil {
			j.err = err
			return
		}
		j.chunks = append(j.chunks, chunk)
	}
}

// maxJobKeys bounds a job, should one key be repeated without end.
const maxJobKeys = 1024

// plan groups keys into jobs and hands them to emit until it returns false.
func (s *Store) plan(ctx context.Context, keys iter.Seq[Digest], emit func(*frameJob) bool) {
	var job *frameJob
	flush := func() bool { return job == nil || emit(job) }
	for key := range keys {
		if ctx.Err() != nil {
			return
		}
		var e index.Entry
		e, _, err := s.locate(key)
		if err != nil {
			if flush() {
				emit(&frameJob{done: make(chan struct{}), err: err}) // reported in its turn
			}
			return
		}
		at := frameID{e.Pack, e.Frame}
		if job == nil || job.at != at || len(job.keys) == maxJobKeys {
			if !flush() {
				return
			}
			job = &frameJob{at: at, done: make(chan struct{})}
		}
		job.keys = append(job.keys, key)
	}
	flush()
}
