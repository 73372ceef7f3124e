package xz

import "fmt"

// window holds the last plain bytes of a stream.
type window struct {
	buf   []byte // up to what is known
	pos   int    // in buf: what is before it is done
	start int    // in buf: the dictionary reaches no further back; 0 if that was dropped
	keep  int    // bytes before pos that are needed
	reset uint64 // position in the stream of the dictionary's begin
	base  uint64 // position in the stream of buf[0]
}

// begin begins a block.
func (w *window) begin(h blockHeader) { *w = window{buf: w.buf[:0], keep: int(min(h.dict, maxDict))} }

// room makes room for n bytes more behind buf.
func (w *window) room(n int) {
	if cap(w.buf)-len(w.buf) >= n {
		return
	}
	slack := w.keep/4 + 64<<10
	if drop := w.pos - w.keep; drop >= slack && cap(w.buf)-len(w.buf)+drop >= n {
		w.buf = w.buf[:copy(w.buf, w.buf[drop:])]
		w.pos -= drop
		w.start = max(0, w.start-drop)
		w.base += uint64(drop)
		return
	}
	size := max(min(2*cap(w.buf), w.keep+slack+maxChunk), len(w.buf)+n)
	w.buf = append(make([]byte, 0, size), w.buf...)
}

// forget makes the dictionary begin at pos, for blocks that may look back keep bytes.
func (w *window) forget() {
	w.start = w.pos
	w.reset = w.base + uint64(w.pos)
}

// tooFar says what is wrong with a match at p, given the size of its dictionary.
func (w *window) tooFar(dist uint32, p int, dict int64) error {
	if int64(dist) < dict && uint64(dist) < w.base+uint64(p)-w.reset {
		return fmt.Errorf("%w: a match of more than %d bytes back", ErrCostly, maxDict)
	}
	return badStream("a match from before the begin")
}

// back returns how far back a match at p may be.
func (w *window) back(p int) int { return min(p-w.start, w.keep) }
