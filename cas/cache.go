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

func newFrameCache() *cache[frameID, []byte] {
	return newCache[frameID](frameCacheSize, func(frame []byte) int { return len(frame) })
}

// cache keeps the values last used, up to a sum of their sizes. Two who want the
// same value load it once.
type cache[K comparable, V any] struct {
	limit   int
	measure func(V) int

	mu    sync.Mutex
	size  int // of all values
	byID  map[K]*list.Element
	order *list.List // of *cached[K, V], last used first
}

type cached[K comparable, V any] struct {
	key   K
	ready chan struct{} // closed when value or err is set
	value V
	err   error
}

func newCache[K comparable, V any](limit int, measure func(V) int) *cache[K, V] {
	return &cache[K, V]{limit: limit, measure: measure, byID: map[K]*list.Element{}, order: list.New()}
}

// find returns a value if it is at hand.
func (c *cache[K, V]) find(key K) (value V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	el, ok := c.byID[key]
	if !ok || !isReady[K, V](el) {
		return value, false
	}
	c.order.MoveToFront(el)
	v := el.Value.(*cached[K, V])
	return v.value, v.err == nil
}

// get returns a value, calling load when it is not at hand. Failures are not kept.
func (c *cache[K, V]) get(key K, load func() (V, error)) (V, error) {
	c.mu.Lock()
	if el, ok := c.byID[key]; ok {
		c.order.MoveToFront(el)
		c.mu.Unlock()
		v := el.Value.(*cached[K, V])
		<-v.ready
		if v.err != nil {
			return load() // the other's failure may be that of its context
		}
		return v.value, nil
	}
	v := &cached[K, V]{key: key, ready: make(chan struct{})}
	el := c.order.PushFront(v)
	c.byID[key] = el
	c.mu.Unlock()

	v.value, v.err = load()
	close(v.ready)

	c.mu.Lock()
	defer c.mu.Unlock()
	if v.err != nil {
		c.drop(el)
		return v.value, v.err
	}
	c.size += c.measure(v.value)
	for c.size > c.limit {
		oldest := c.order.Back()
		if oldest == el || !isReady[K, V](oldest) {
			break
		}
		c.size -= c.measure(oldest.Value.(*cached[K, V]).value)
		c.drop(oldest)
	}
	return v.value, nil
}

func isReady[K comparable, V any](el *list.Element) bool {
	select {
	case <-el.Value.(*cached[K, V]).ready:
		return true
	default:
		return false
	}
}

func (c *cache[K, V]) drop(el *list.Element) {
	c.order.Remove(el)
	delete(c.byID, el.Value.(*cached[K, V]).key)
}
