package cas

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ferry/cas/backend"
)

// memory is a backend without a disk, whose clock the test sets. All handles of
// it are one: leases are told apart by name alone.
type memory struct {
	now func() time.Time

	mu      sync.Mutex
	objects map[string]memoryObject
	leases  map[string]time.Time
}

type memoryObject struct {
	data    []byte
	created time.Time
}

var _ backend.Backend = (*memory)(nil)

func newMemory(now func() time.Time) *memory {
	return &memory{now: now, objects: map[string]memoryObject{}, leases: map[string]time.Time{}}
}

// clone returns a backend of its own with the same objects.
func (m *memory) clone() *memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := newMemory(m.now)
	maps.Copy(c.objects, m.objects) // their bytes are never changed
	return c
}

func (m *memory) URL() string { return "memory" }

func (m *memory) Put(ctx context.Context, name string, r io.Reader, size int64) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if int64(len(data)) != size {
		return fmt.Errorf("object %s: got %d bytes, want %d", name, len(data), size)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.objects[name]; ok {
		return fmt.Errorf("object %s: %w", name, backend.ErrExist)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	m.objects[name] = memoryObject{data, m.now()}
	return nil
}

func (m *memory) get(ctx context.Context, name string) (memoryObject, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if o, ok := m.objects[name]; ok {
		return o, ctx.Err()
	}
	return memoryObject{}, fmt.Errorf("object %s: %w", name, backend.ErrNotFound)
}

func (m *memory) ReadAt(ctx context.Context, name string, p []byte, off int64) error {
	o, err := m.get(ctx, name)
	if err != nil {
		return err
	}
	if off > int64(len(o.data)) || copy(p, o.data[off:]) < len(p) {
		return fmt.Errorf("object %s: offset %d: %w", name, off, io.ErrUnexpectedEOF)
	}
	return nil
}

func (m *memory) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	o, err := m.get(ctx, name)
	return io.NopCloser(bytes.NewReader(o.data)), err
}

func (m *memory) Stat(ctx context.Context, name string) (backend.Info, error) {
	o, err := m.get(ctx, name)
	return backend.Info{Name: name, Size: int64(len(o.data)), Created: o.created}, err
}

// List takes the names first and looks at the objects one by one, as a file
// system does: what is deleted meanwhile is left out, what is new is not seen.
func (m *memory) List(ctx context.Context, prefix string, fn func(backend.Info) error) error {
	for _, name := range m.names(prefix) {
		info, err := m.Stat(ctx, name)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			continue
		}
		if err := fn(info); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// names lists the objects under prefix, sorted.
func (m *memory) names(prefix string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for name := range m.objects {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (m *memory) Delete(ctx context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, name)
	return ctx.Err()
}

func (m *memory) Lease(ctx context.Context, name string) (func(), error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.leases[name]; ok {
		return nil, fmt.Errorf("lease %s: %w", name, backend.ErrBusy)
	}
	m.leases[name] = m.now()
	return sync.OnceFunc(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.leases, name)
	}), nil
}

func (m *memory) Leases(ctx context.Context) ([]backend.Info, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var held []backend.Info
	for name, taken := range m.leases {
		held = append(held, backend.Info{Name: name, Created: taken})
	}
	return held, ctx.Err()
}

// edit replaces the bytes of an object by those that fn returns; nil removes it.
func (m *memory) edit(t *testing.T, name string, fn func([]byte) []byte) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	o, ok := m.objects[name]
	if !ok {
		t.Fatalf("there is no object %s", name)
	}
	if o.data = fn(bytes.Clone(o.data)); o.data == nil {
		delete(m.objects, name)
		return
	}
	m.objects[name] = o
}

// clock is a clock that stands still until it is told to go on.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}
