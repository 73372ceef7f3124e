package backend

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func lease(t *testing.T, b Backend, name string) (release func()) {
	t.Helper()
	release, err := b.Lease(t.Context(), name)
	if err != nil {
		t.Fatalf("Lease(%s): %v", name, err)
	}
	return release
}

// held returns the names of the leases that are held, sorted.
func held(t *testing.T, b Backend) []string {
	t.Helper()
	infos, err := b.Leases(t.Context())
	if err != nil {
		t.Fatalf("Leases: %v", err)
	}
	var names []string
	for _, info := range infos {
		names = append(names, info.Name)
	}
	slices.Sort(names)
	return names
}

func testLease(t *testing.T, open func() Backend) {
	b, other := open(), open()
	for _, name := range []string{"prune", "sessions/0123"} {
		for range 3 { // a lease can be taken again
			release := lease(t, b, name)
			for _, b := range []Backend{b, other} {
				if _, err := b.Lease(t.Context(), name); !errors.Is(err, ErrBusy) {
					t.Errorf("Lease(%s) while it is held = %v, want ErrBusy", name, err)
				}
			}
			release()
		}
		lease(t, other, name)()
	}
}

// Of many that want a lease, one at a time has it.
func testLeaseRace(t *testing.T, open func() Backend) {
	for _, name := range []string{"prune", "sessions/0123"} {
		var holders, taken atomic.Int32
		var wg sync.WaitGroup
		for range 8 {
			b := open()
			wg.Go(func() {
				for range 50 {
					release, err := b.Lease(t.Context(), name)
					if errors.Is(err, ErrBusy) {
						continue
					}
					if err != nil {
						t.Errorf("Lease(%s) = %v, want success or ErrBusy", name, err)
						return
					}
					if n := holders.Add(1); n != 1 {
						t.Errorf("%d holders of %s at once", n, name)
					}
					taken.Add(1)
					holders.Add(-1)
					release()
				}
			})
		}
		// Those who list the leases are in nobody's way for longer than the call.
		b := open()
		wg.Go(func() {
			for range 50 {
				if _, err := b.Leases(t.Context()); err != nil {
					t.Errorf("Leases = %v", err)
				}
			}
		})
		wg.Wait()
		if taken.Load() == 0 {
			t.Errorf("nobody got %s", name)
		}
		lease(t, open(), name)()
	}
}

func testLeases(t *testing.T, open func() Backend) {
	b, other := open(), open()
	if got := held(t, b); len(got) != 0 {
		t.Errorf("Leases of an empty place = %q, want none", got)
	}
	release := []func(){lease(t, b, "sessions/1"), lease(t, other, "sessions/2"), lease(t, b, "prune")}
	for _, b := range []Backend{b, other} {
		if got, want := held(t, b), []string{"prune", "sessions/1", "sessions/2"}; !slices.Equal(got, want) {
			t.Errorf("Leases = %q, want %q", got, want)
		}
	}
	infos, err := b.Leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range infos {
		if time.Since(info.Created).Abs() > time.Hour {
			t.Errorf("lease %s was taken at %v, want a time near now", info.Name, info.Created)
		}
	}
	release[0]()
	release[2]()
	if got, want := held(t, b), []string{"sessions/2"}; !slices.Equal(got, want) {
		t.Errorf("Leases after two were given back = %q, want %q", got, want)
	}
	if _, err := b.Lease(t.Context(), "sessions/2"); !errors.Is(err, ErrBusy) {
		t.Errorf("Lease after Leases = %v, want ErrBusy still", err)
	}
	release[1]()
	if got := held(t, other); len(got) != 0 {
		t.Errorf("Leases in the end = %q, want none", got)
	}
}
