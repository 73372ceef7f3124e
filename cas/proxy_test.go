package cas

import (
	"context"
	"errors"
	"io"
	"sync"

	"ferry/cas/backend"
)

// proxy hands each operation to a function, which may fail it, note it, or do
// something else first. It stands for one process: leases taken through it end
// with it.
type proxy struct {
	backend.Backend
	through func(op, name string, do func() error) error

	mu       sync.Mutex
	dead     bool
	releases []func()
}

func (p *proxy) Put(ctx context.Context, name string, r io.Reader, size int64) error {
	return p.through("Put", name, func() error { return p.Backend.Put(ctx, name, r, size) })
}

func (p *proxy) ReadAt(ctx context.Context, name string, b []byte, off int64) error {
	return p.through("ReadAt", name, func() error { return p.Backend.ReadAt(ctx, name, b, off) })
}

func (p *proxy) Open(ctx context.Context, name string) (r io.ReadCloser, err error) {
	err = p.through("Open", name, func() error {
		r, err = p.Backend.Open(ctx, name)
		return err
	})
	if err != nil {
		if r != nil {
			r.Close()
		}
		return nil, err
	}
	return r, nil
}

func (p *proxy) Stat(ctx context.Context, name string) (info backend.Info, err error) {
	err = p.through("Stat", name, func() error {
		info, err = p.Backend.Stat(ctx, name)
		return err
	})
	return info, err
}

func (p *proxy) List(ctx context.Context, prefix string, fn func(backend.Info) error) error {
	return p.through("List", prefix, func() error { return p.Backend.List(ctx, prefix, fn) })
}

func (p *proxy) Delete(ctx context.Context, name string) error {
	return p.through("Delete", name, func() error { return p.Backend.Delete(ctx, name) })
}

func (p *proxy) Lease(ctx context.Context, name string) (func(), error) {
	var release func()
	err := p.through("Lease", name, func() (err error) {
		release, err = p.Backend.Lease(ctx, name)
		return err
	})
	if release == nil {
		return nil, err
	}
	if err != nil {
		release()
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.releases = append(p.releases, release)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !p.dead {
			release()
		}
	}, nil
}

func (p *proxy) Leases(ctx context.Context) (held []backend.Info, err error) {
	err = p.through("Leases", "", func() error {
		held, err = p.Backend.Leases(ctx)
		return err
	})
	return held, err
}

// RemoveTemp passes on what Local has, and nothing where there is none.
func (p *proxy) RemoveTemp(ctx context.Context, olderThan func(backend.Info) bool) (freed int64, err error) {
	b, ok := p.Backend.(interface {
		RemoveTemp(context.Context, func(backend.Info) bool) (int64, error)
	})
	if !ok {
		return 0, nil
	}
	err = p.through("RemoveTemp", "", func() error {
		freed, err = b.RemoveTemp(ctx, olderThan)
		return err
	})
	return freed, err
}

// die marks the process as dead: what it does to its leases has no effect. bury
// then gives them back, as the system does.
func (p *proxy) die() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead = true
}

func (p *proxy) bury() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, release := range p.releases {
		release()
	}
}

var errFault = errors.New("injected fault")

// fault says which operations of a run fail.
type fault struct {
	at     int  // number of the operation, from 0
	effect bool // the operation has its effect, and is reported as failed
	dies   bool // all later ones fail too, and have none
}

// on returns the fault of the n-th operation.
func (f fault) on(n int) fault {
	f.at = n
	return f
}

// faulty returns a process in which an operation fails, and a function that says
// whether it came to that.
func faulty(b backend.Backend, f fault) (p *proxy, failed func() bool) {
	var mu sync.Mutex
	n := 0
	p = &proxy{Backend: b}
	p.through = func(_, _ string, do func() error) error {
		mu.Lock()
		i := n
		n++
		mu.Unlock()
		switch {
		case i < f.at || i > f.at && !f.dies:
			return do()
		case i == f.at && f.dies:
			p.die()
		}
		if i == f.at && f.effect {
			do()
		}
		return errFault
	}
	return p, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return n > f.at
	}
}
