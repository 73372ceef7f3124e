package cas

import (
	"container/list"
	"sync"
)

// frameCacheSize bounds the decoded frames kept, in bytes. A version written
// after others draws on many packs, and its files come back in order, so a few
// dozen frames of 1 MiB catch nearly all repeats.
const frameCacheSize = 64 << 20

type frameID struct {
	pack [32]byte
	off  int64
}

// frameCache keeps the decoded frames last used. Two readers that want the same
// frame decode it once.
type frameCache struct {
	mu    sync.Mutex
	size  int
	byID  map[frameID]*list.Element
	order *list.List // of *cachedFrame, last used first
}

type cachedFrame struct {
	id    frameID
	ready chan struct{} // closed when data or err is set
	data  []byte
	err   error
}

func newFrameCache() *frameCache {
	return &frameCache{byID: map[frameID]*list.Element{}, order: list.New()}
}

// get returns the frame, calling load when it is not at hand. Failures are not kept.
func (c *frameCache) get(id frameID, load func() ([]byte, error)) ([]byte, error) {
	c.mu.Lock()
	if el, ok := c.byID[id]; ok {
		c.order.MoveToFront(el)
		c.mu.Unlock()
		f := el.Value.(*cachedFrame)
		<-f.ready
		if f.err != nil {
			return load() // the other's failure may be that of its context
		}
		return f.data, nil
	}
	f := &cachedFrame{id: id, ready: make(chan struct{})}
	el := c.order.PushFront(f)
	c.byID[id] = el
	c.mu.Unlock()

	f.data, f.err = load()
	close(f.ready)

	c.mu.Lock()
	defer c.mu.Unlock()
	if f.err != nil {
		c.drop(el)
		return nil, f.err
	}
	c.size += len(f.data)
	for c.size > frameCacheSize {
		oldest := c.order.Back()
		if oldest == el || !isReady(oldest) {
			break
		}
		c.size -= len(oldest.Value.(*cachedFrame).data)
		c.drop(oldest)
	}
	return f.data, nil
}

func isReady(el *list.Element) bool {
	select {
	case <-el.Value.(*cachedFrame).ready:
		return true
	default:
		return false
	}
}

func (c *frameCache) drop(el *list.Element) {
	c.order.Remove(el)
	delete(c.byID, el.Value.(*cachedFrame).id)
}
