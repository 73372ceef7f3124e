package cas

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ferry/cas/backend"
)

// stretched makes time go faster by a factor, so that the slack of half a minute
// in which a mark may come to be seen passes within a test.
const stretched = 20000

var raceBegun = time.Now().Round(0) // of the wall clock, as the times of files are

func stretch(t time.Time) time.Time { return raceBegun.Add(t.Sub(raceBegun) * stretched) }

func stretchedNow() time.Time { return stretch(time.Now()) }

// fastLocal is a Local in stretched time. The time of an object is that of the
// end of its Put, by which it is visible: in stretched time, a Put takes minutes.
type fastLocal struct {
	*backend.Local
	put *sync.Map // name to time.Time, for all handles of a folder
}

func (l fastLocal) Put(ctx context.Context, name string, r io.Reader, size int64) error {
	err := l.Local.Put(ctx, name, r, size)
	if err == nil {
		l.put.Store(name, time.Now())
	}
	return err
}

// created is the stretched time of an object, which is now if its Put has not
// quite returned.
func (l fastLocal) created(info backend.Info) time.Time {
	if at, ok := l.put.Load(info.Name); ok {
		return stretch(at.(time.Time))
	}
	return stretchedNow()
}

func (l fastLocal) List(ctx context.Context, prefix string, fn func(backend.Info) error) error {
	return l.Local.List(ctx, prefix, func(info backend.Info) error {
		info.Created = l.created(info)
		return fn(info)
	})
}

func (l fastLocal) Stat(ctx context.Context, name string) (backend.Info, error) {
	info, err := l.Local.Stat(ctx, name)
	info.Created = l.created(info)
	return info, err
}

func (l fastLocal) Leases(ctx context.Context) ([]backend.Info, error) {
	held, err := l.Local.Leases(ctx)
	for i := range held {
		held[i].Created = stretch(held[i].Created)
	}
	return held, err
}

func (l fastLocal) RemoveTemp(ctx context.Context, olderThan func(backend.Info) bool) (int64, error) {
	return l.Local.RemoveTemp(ctx, func(info backend.Info) bool {
		info.Created = stretch(info.Created)
		return olderThan(info)
	})
}

// Many add and remove versions that share chunks, each in sessions of its own,
// while one prunes without grace all the time, one repairs the index and one
// checks. What is in the catalogue in the end must be there.
func TestAddersAndPruner(t *testing.T) {
	for _, test := range []struct {
		name   string
		adders int
		rounds int
		open   func() backend.Backend // a handle for each process
	}{
		{"memory", 4, 25, func() func() backend.Backend {
			m := newMemory(stretchedNow)
			return func() backend.Backend { return m }
		}()},
		{"disk", 3, 8, func() func() backend.Backend {
			dir, put := t.TempDir(), &sync.Map{}
			return func() backend.Backend { return fastLocal{backend.NewLocal(dir), put} }
		}()},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			create(t, test.open())
			c := newCatalogue()
			var adding, pruning sync.WaitGroup
			for worker := range test.adders {
				adding.Go(func() {
					if err := addAndRemove(t.Context(), test.open, c, worker, test.rounds); err != nil {
						t.Errorf("adder %d: %v", worker, err)
					}
				})
			}
			var done atomic.Bool
			var deleted, rescued atomic.Int64
			pruning.Go(func() {
				for !done.Load() {
					r, err := c.prune(t.Context(), test.open(), PruneOptions{Now: stretchedNow})
					if err != nil && !errors.Is(err, ErrLocked) { // a merge has the lease for a moment
						t.Errorf("Prune: %v", err)
						return
					}
					deleted.Add(int64(r.Deleted))
					rescued.Add(int64(r.Rescued))
				}
			})
			pruning.Go(func() {
				for !done.Load() {
					if err := repairAndCheck(t.Context(), test.open()); err != nil {
						t.Error(err)
						return
					}
				}
			})
			adding.Wait()
			done.Store(true)
			pruning.Wait()
			t.Logf("%d packs deleted, %d rescued", deleted.Load(), rescued.Load())
			c.wantSound(t, test.open())
			mustPrune(t, c, test.open(), PruneOptions{Now: stretchedNow})
			c.wantSound(t, test.open())
			wantNoLeases(t, test.open())
		})
	}
}

// addAndRemove adds versions of a few chunks that everybody uses and one that is
// its own, and removes some of them again.
func addAndRemove(ctx context.Context, open func() backend.Backend, c *catalogue, worker, rounds int) error {
	r := rand.New(rand.NewPCG(uint64(worker), 0))
	var mine []string
	for round := range rounds {
		seeds := []uint64{uint64(1000*(worker+1) + round)}
		for range 1 + r.IntN(6) {
			seeds = append(seeds, r.Uint64N(20))
		}
		name := fmt.Sprintf("%d.%d", worker, round)
		if err := c.add(ctx, open(), name, versionOf(500, seeds...)); err != nil {
			return err
		}
		mine = append(mine, name)
		for len(mine) > 0 && r.IntN(3) > 0 {
			i := r.IntN(len(mine))
			c.remove(mine[i])
			mine[i] = mine[len(mine)-1]
			mine = mine[:len(mine)-1]
		}
	}
	return nil
}

// repairAndCheck must find nothing to repair in a sound store.
func repairAndCheck(ctx context.Context, b backend.Backend) (failed error) {
	report := func(p Problem) {
		if !p.Hint {
			failed = errors.Join(failed, fmt.Errorf("%s: %s: %s", p.Kind, p.Object, p.Detail))
		}
	}
	if _, err := RepairIndex(ctx, b, report); err != nil && !errors.Is(err, ErrLocked) {
		return fmt.Errorf("RepairIndex: %w", err)
	}
	s, err := Open(ctx, b)
	if err != nil {
		return err
	}
	defer s.Close()
	if _, err := s.Check(ctx, true, nil, report); err != nil {
		return fmt.Errorf("Check: %w", err)
	}
	return failed
}
