package vhdx

import (
	"cmp"
	"container/heap"
	"io"
	"slices"
	"sort"

	"ferry/chunking/ondisk"
)

// file is the image file as it is once its log was replayed.
type file struct {
	r    io.ReaderAt
	real int64   // bytes of r
	size int64   // bytes after the replay, ≥ real; what r does not have is zeros
	over []write // what the log writes: in order, without overlaps
}

// write is a run of bytes that the log writes.
type write struct {
	off, size int64
	data      []byte // size bytes; nil for zeros
	order     int    // later writes have greater ones
}

func (w write) end() int64 { return w.off + w.size }

// ReadAt reads all of p or fails.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off > f.size || int64(len(p)) > f.size-off {
		return 0, io.ErrUnexpectedEOF
	}
	n := 0
	if off < f.real {
		n = int(min(int64(len(p)), f.real-off))
		if err := ondisk.ReadFull(f.r, p[:n], off); err != nil {
			return 0, err
		}
	}
	clear(p[n:])
	end := off + int64(len(p))
	for _, w := range f.over[f.search(off):] {
		if w.off >= end {
			break
		}
		from := max(w.off, off)
		dst := p[from-off : min(w.end(), end)-off]
		if w.data == nil {
			clear(dst)
		} else {
			copy(dst, w.data[from-w.off:])
		}
	}
	return len(p), nil
}

// search returns the first write that ends behind off.
func (f *file) search(off int64) int {
	return sort.Search(len(f.over), func(i int) bool { return f.over[i].end() > off })
}

// source is where bytes of a file come from.
type source int

const (
	fromFile source = iota
	fromLog
	fromNowhere // they are zeros
)

// origin returns how many of the size bytes from off on come from one source, and
// which; size is positive, and so is the result.
func (f *file) origin(off, size int64) (int64, source) {
	if i := f.search(off); i < len(f.over) {
		if w := f.over[i]; w.off <= off {
			if size = min(size, w.end()-off); w.data == nil {
				return size, fromNowhere
			}
			return size, fromLog
		}
		size = min(size, f.over[i].off-off)
	}
	if off >= f.real {
		return size, fromNowhere
	}
	return min(size, f.real-off), fromFile
}

// flatten returns what writes leave behind when they are done in their order: in
// the order of their places and without overlaps. It sorts writes. The cost is
// n log n.
func flatten(writes []write) []write {
	slices.SortFunc(writes, func(a, b write) int { return cmp.Compare(a.off, b.off) })
	var out []write
	var live newest // the writes that began at or before at
	at := int64(0)
	for next := 0; ; {
		for len(live) > 0 && live[0].end() <= at {
			heap.Pop(&live)
		}
		if len(live) == 0 {
			if next == len(writes) {
				return out
			}
			at = max(at, writes[next].off)
		}
		for ; next < len(writes) && writes[next].off <= at; next++ {
			heap.Push(&live, writes[next])
		}
		w := live[0]
		if w.end() <= at {
			continue
		}
		end := w.end()
		if next < len(writes) {
			end = min(end, writes[next].off)
		}
		piece := write{off: at, size: end - at}
		if w.data != nil {
			piece.data = w.data[at-w.off : end-w.off]
		}
		if n := len(out); n > 0 && piece.data == nil && out[n-1].data == nil && out[n-1].end() == at {
			out[n-1].size += piece.size
		} else {
			out = append(out, piece)
		}
		at = end
	}
}

// newest is a heap of writes, the latest one first.
type newest []write

func (h newest) Len() int           { return len(h) }
func (h newest) Less(i, j int) bool { return h[i].order > h[j].order }
func (h newest) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *newest) Push(x any)        { *h = append(*h, x.(write)) }
func (h *newest) Pop() any {
	last := len(*h) - 1
	w := (*h)[last]
	*h = (*h)[:last]
	return w
}
