package delta

import (
	"context"
	"sync"
)

// Memory in bytes that windows may take at a time: with several small ones at
// work all cores are busy, and a large one is alone.
const (
	createMemory = 880 << 20
	applyMemory  = 200 << 20
	keptMemory   = 16 << 20 // decoded windows kept for the next file that draws on them
)

// memory hands out bytes. One who wants more than there is waits for all of it.
type memory struct {
	mu    sync.Mutex
	total int64
	free  int64
	back  chan struct{} // closed when some comes back
}

func newMemory(total int64) *memory {
	return &memory{total: total, free: total, back: make(chan struct{})}
}

func (m *memory) acquire(ctx context.Context, n int64) error {
	n = min(n, m.total)
	for {
		m.mu.Lock()
		if m.free >= n {
			m.free -= n
			m.mu.Unlock()
			return nil
		}
		back := m.back
		m.mu.Unlock()
		select {
		case <-back:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (m *memory) release(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.free += min(n, m.total)
	close(m.back)
	m.back = make(chan struct{})
}
