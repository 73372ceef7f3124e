package cas

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"ferry/cas/backend"
)

// scenario does a bit of everything in one process. Done again, it takes up what
// it left.
func scenario(ctx context.Context, b backend.Backend, c *catalogue) error {
	if err := Create(ctx, b, []byte(`{}`)); err != nil && !errors.Is(err, backend.ErrExist) {
		return err
	}
	if err := c.add(ctx, b, "one", versionOf(3000, 1, 2, 3, 4)); err != nil {
		return err
	}
	if err := c.add(ctx, b, "two", versionOf(3000, 3, 4, 5, 6)); err != nil {
		return err
	}
	c.remove("one") // of its pack, half is dead now, and half is to be moved
	_, err := c.prune(ctx, b, PruneOptions{})
	return err
}

// mergeScenario commits in a store that has as many indexes as it may have.
func mergeScenario(ctx context.Context, b backend.Backend, c *catalogue) error {
	return c.add(ctx, b, "merging", versionOf(200, 100, 101))
}

// TestFaults runs scenarios with the n-th operation failing, for n = 0, 1, 2 …
// until none fails, in all ways in which it can fail. Whatever was committed
// must stand, and doing it again must succeed.
func TestFaults(t *testing.T) {
	// Time goes on by itself, so that objects differ in age.
	clock := newClock()
	empty := newMemory(func() time.Time { clock.advance(time.Millisecond); return clock.now() })
	filled, filling := empty.clone(), newCatalogue()
	create(t, filled)
	for i := range maxTables {
		mustAdd(t, filling, filled, fmt.Sprint(i), versionOf(200, uint64(i), uint64(i+1)))
	}
	for _, sc := range []struct {
		name string
		m    *memory
		c    *catalogue
		run  func(context.Context, backend.Backend, *catalogue) error
	}{
		{"add and prune", empty, newCatalogue(), scenario},
		{"merge", filled, filling, mergeScenario},
		{"optimize", empty, newCatalogue(), optimizeScenario},
	} {
		for _, f := range []struct {
			name string
			fault
		}{
			{"fails", fault{}},
			{"fails after its effect", fault{effect: true}},
			{"kills", fault{dies: true}},
			{"kills after its effect", fault{effect: true, dies: true}},
		} {
			t.Run(sc.name+"/"+f.name, func(t *testing.T) {
				t.Parallel()
				stride := 1
				if testing.Short() {
					stride = 7 // with the race detector, and on 32 bits: the others run without
				}
				for n := 0; !faultRun(t, sc.m.clone(), sc.c.clone(), f.fault.on(n), sc.run); n += stride {
					if t.Failed() {
						t.Fatalf("operation %d failed", n)
					}
				}
			})
		}
	}
}

// wantNoLeases fails when a process left leases.
func wantNoLeases(t *testing.T, b backend.Backend) {
	t.Helper()
	held, err := b.Leases(t.Context())
	if err != nil || len(held) != 0 {
		t.Errorf("Leases = %v, %v, want none", held, err)
	}
}

// faultRun runs a scenario with a fault and checks what it left. It reports
// whether the scenario ended before it came to the fault.
func faultRun(t *testing.T, b backend.Backend, c *catalogue, f fault, run func(context.Context, backend.Backend, *catalogue) error) (done bool) {
	t.Helper()
	p, failed := faulty(b, f)
	err := run(t.Context(), p, c)
	if f.dies {
		p.bury()
	}
	wantNoLeases(t, b)
	if !failed() {
		if err != nil {
			t.Fatalf("without a fault: %v", err)
		}
		return true
	}
	if err != nil && !errors.Is(err, errFault) {
		t.Errorf("run = %v, want %v", err, errFault)
	}
	if _, err := readConfig(t.Context(), b); err == nil {
		c.wantSound(t, b)
	} else if !errors.Is(err, ErrNotFound) || len(c.snapshot()) > 0 {
		t.Errorf("readConfig: %v", err)
	}
	if err := run(t.Context(), b, c); err != nil {
		t.Errorf("second run: %v", err)
	}
	s, err := Open(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	c.wantReadable(t, s)
	s.Close()
	wantNoLeases(t, b)
	return false
}

// TestFaultsOnDisk is the same on a file system. Every fifth operation is
// enough: the others ran in memory.
func TestFaultsOnDisk(t *testing.T) {
	t.Parallel()
	for n := 0; ; n += 5 {
		dir := t.TempDir()
		local := backend.NewLocal(dir)
		f := fault{dies: n%2 == 0, effect: n%4 < 2}
		done := faultRun(t, local, newCatalogue(), f.on(n), scenario)
		local.Close()
		for _, pattern := range []string{".ferry-tmp-*", "*/.ferry-tmp-*", "*/*/.ferry-tmp-*", "locks/sessions/*"} {
			if left, err := filepath.Glob(filepath.Join(dir, pattern)); len(left) > 0 || err != nil {
				t.Errorf("the runs left %q, %v", left, err)
			}
		}
		if t.Failed() {
			t.Fatalf("operation %d failed", n)
		}
		if done {
			return
		}
	}
}
