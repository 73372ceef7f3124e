package delta

import (
	"context"
	"slices"
	"sync"

	"golang.org/x/sync/semaphore"

	"ferry/delta/codec"
)

// windowCache keeps windows that files yet to be made draw on.
type windowCache struct {
	memory *semaphore.Weighted

	mu    sync.Mutex
	plain map[int]*cachedWindow
	order []int       // last used last
	uses  map[int]int // by window: instructions yet to come
}

type cachedWindow struct {
	ready chan struct{}
	plain []byte
	err   error
}

// noteUses counts the instructions that draw on windows.
func (a *applier) noteUses() {
	count := func(o op) {
		if o.kind == opWindow {
			a.windows.uses[o.ref]++
		}
	}
	for _, g := range a.programs {
		eachOp(g.ops, count)
	}
	for _, g := range a.streams {
		eachOp(g.ops, count)
	}
}

// withWindow calls fn with the plain bytes of a window.
func (a *applier) withWindow(ctx context.Context, i int, fn func(plain []byte) error) error {
	c := &a.windows
	in := a.d.plan.windows[i]
	need := in.memory()
	if in.kind == codec.Grouped && !a.d.groups.has(in.leader) {
		need += groupMemory
	}
	need = min(need, applyMemory)
	if err := c.memory.Acquire(ctx, need); err != nil {
		return err
	}
	defer c.memory.Release(need)
	c.mu.Lock()
	w, ok := c.plain[i]
	if !ok {
		w = &cachedWindow{ready: make(chan struct{})}
		c.plain[i] = w
	}
	c.keep(a.d.plan.windows, i)
	c.mu.Unlock()
	if ok {
		<-w.ready
	} else {
		w.plain, w.err = a.d.window(ctx, i, func(ctx context.Context, dst []byte, s span) ([]byte, error) {
			return a.readSource(ctx, dst, s)
		})
		close(w.ready)
	}
	if w.err != nil {
		return w.err
	}
	return fn(w.plain)
}

// keep notes a use of window i, and forgets windows that nobody will use, and then
// those not used for longest, until the rest is within bounds.
func (c *windowCache) keep(windows []window, i int) {
	c.uses[i]--
	c.order = append(slices.DeleteFunc(c.order, func(k int) bool { return k == i }), i)
	sum, costly := 0, false
	for n := len(c.order) - 1; n >= 0; n-- {
		k := c.order[n]
		if windows[k].kind == codec.Unpacked && windows[k].plain <= keptMemory && c.uses[k] > 0 && !costly {
			costly = true // to make it again would take seconds: one such is kept besides
			continue
		}
		if sum += windows[k].plain; sum > keptMemory || c.uses[k] <= 0 {
			sum -= windows[k].plain
			delete(c.plain, k)
			c.order = slices.Delete(c.order, n, n+1)
		}
	}
}
