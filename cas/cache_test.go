package cas

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// Many readers of one frame load it once.
func TestCacheLoadsOnce(t *testing.T) {
	c := newFrameCache()
	var loads atomic.Int32
	start := make(chan struct{})
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			<-start
			for off := range int64(20) {
				want := fmt.Append(nil, "frame ", off)
				got, err := c.get(frameID{off: off}, func() ([]byte, error) { loads.Add(1); return want, nil })
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("get(%d) = %q, %v, want %q", off, got, err, want)
				}
			}
		})
	}
	close(start)
	wg.Wait()
	if got := loads.Load(); got != 20 {
		t.Errorf("%d loads of 20 frames", got)
	}
}

// A failure is the reader's own, and is not kept.
func TestCacheFailures(t *testing.T) {
	c := newFrameCache()
	failed := errors.New("disk on fire")
	inside, proceed := make(chan struct{}), make(chan struct{})
	first := make(chan error)
	go func() {
		_, err := c.get(frameID{}, func() ([]byte, error) { close(inside); <-proceed; return nil, failed })
		first <- err
	}()
	<-inside
	second := make(chan error)
	go func() {
		got, err := c.get(frameID{}, func() ([]byte, error) { return []byte("good"), nil })
		if err == nil && string(got) != "good" {
			err = fmt.Errorf("got %q", got)
		}
		second <- err
	}()
	letWait()
	close(proceed)
	if err := <-first; !errors.Is(err, failed) {
		t.Errorf("get = %v, want %v", err, failed)
	}
	if err := <-second; err != nil {
		t.Errorf("get that waited for a failed one = %v", err)
	}
	if got, err := c.get(frameID{}, func() ([]byte, error) { return []byte("good"), nil }); string(got) != "good" || err != nil {
		t.Errorf("get after a failure = %q, %v, want a new load", got, err)
	}
}

// letWait lets other goroutines go on until they wait, most likely.
func letWait() {
	for range 1000 {
		runtime.Gosched()
	}
}

// The cache holds no more than its size, and drops what was not used for longest.
func TestCacheEvicts(t *testing.T) {
	c := newFrameCache()
	frame := make([]byte, frameCacheSize/8)
	load := func(off int64) (loaded bool) {
		_, err := c.get(frameID{off: off}, func() ([]byte, error) { loaded = true; return frame, nil })
		if err != nil {
			t.Fatal(err)
		}
		return loaded
	}
	for off := range int64(8) {
		load(off)
	}
	if load(0) {
		t.Error("a frame was dropped while there was room")
	}
	load(8)
	for off, want := range map[int64]bool{0: false, 8: false, 1: true} {
		if got := load(off); got != want {
			t.Errorf("get(frame %d) loaded it: %v, want %v", off, got, want)
		}
	}
	for off := range int64(100) {
		load(off)
	}
	if c.size > frameCacheSize || len(c.byID) != c.order.Len() || len(c.byID) > 8 {
		t.Errorf("the cache holds %d frames of %d bytes, want at most %d bytes", len(c.byID), c.size, frameCacheSize)
	}
	// A frame larger than the cache still comes.
	if _, err := c.get(frameID{off: -1}, func() ([]byte, error) { return make([]byte, frameCacheSize+1), nil }); err != nil {
		t.Error(err)
	}
}

func TestCacheUnderLoad(t *testing.T) {
	c := newFrameCache()
	frame := make([]byte, frameCacheSize/4)
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range 200 {
				off := int64(i*(worker+1)) % 11
				_, err := c.get(frameID{off: off}, func() ([]byte, error) {
					if i%7 == 0 {
						return nil, errFault
					}
					return frame, nil
				})
				if err != nil && !errors.Is(err, errFault) {
					t.Errorf("get = %v", err)
				}
			}
		})
	}
	wg.Wait()
	size := 0
	for el := c.order.Front(); el != nil; el = el.Next() {
		size += len(el.Value.(*cached[frameID, []byte]).value)
	}
	if size != c.size || size > frameCacheSize || len(c.byID) != c.order.Len() {
		t.Errorf("the cache holds %d bytes in %d frames, and counts %d in %d", size, c.order.Len(), c.size, len(c.byID))
	}
}
