package delta

import (
	"context"
	"runtime"
	"sync"
)

// inOrder calls work for jobs on all cores, and done for each in the order of jobs,
// once its work is done; work is at most a few jobs ahead. It stops at the first
// error, which it returns, and returns when nothing runs any more.
func inOrder[J any](ctx context.Context, jobs []J, work func(context.Context, J) error, done func(J) error) error {
	type running struct {
		job   J
		ready chan error
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	n := runtime.GOMAXPROCS(0)
	queue, todo := make(chan running, n), make(chan running, n)
	for range n {
		wg.Go(func() {
			for r := range todo {
				r.ready <- work(ctx, r.job)
			}
		})
	}
	wg.Go(func() {
		defer close(todo)
		defer close(queue)
		for _, job := range jobs {
			r := running{job, make(chan error, 1)}
			select {
			case queue <- r:
			case <-ctx.Done():
				return
			}
			todo <- r
		}
	})
	for r := range queue {
		if err := <-r.ready; err != nil {
			return err
		}
		if err := done(r.job); err != nil {
			return err
		}
	}
	return ctx.Err()
}
