package codec

import (
	"cmp"
	"slices"
	"sort"
)

// addrMap says for each address of a base image where the bytes there stand in
// the target image: a step function.
type addrMap struct {
	steps  []step
	bucket []int32 // by address>>bucketBits: the step that its first address is in
}

// step is an address from which on the shift (target − base) holds.
type step struct {
	from  uint32
	shift uint32 // modulo 2^32
}

const bucketBits = 8

// at returns where the byte at address a of the base stands in the target.
func (m *addrMap) at(a uint32) uint32 {
	b := a >> bucketBits
	if int(b) >= len(m.bucket) {
		return a
	}
	i := m.bucket[b]
	for int(i)+1 < len(m.steps) && m.steps[i+1].from <= a {
		i++
	}
	return a + m.steps[i].shift
}

// placedPiece is a run of base addresses that a match puts somewhere.
type placedPiece struct {
	from, n uint32
	shift   uint32
}

// run is a piece of a match that lies in one section on both sides.
type run struct {
	at, from, n      int    // in the files
	oldAddr, newAddr uint32 // of its first byte
	oldSect, newSect *section
}

// sectionsByOffset finds the section of a file offset.
type sectionsByOffset []section

// find returns the section that off lies in, or where the next one begins.
func (s sectionsByOffset) find(off int) (sec *section, next int) {
	i := sort.Search(len(s), func(i int) bool { return int(s[i].off)+int(s[i].have) > off })
	if i == len(s) {
		return nil, int(^uint(0) >> 1)
	}
	if int(s[i].off) > off {
		return nil, int(s[i].off)
	}
	return &s[i], int(s[i].off) + int(s[i].have)
}

// runs cuts a match where a section ends on either side. Bytes of no section come
// as runs without one.
func runs(m match, old, new *image, do func(run)) {
	oldSects, newSects := old.byOffset(), new.byOffset()
	for m.n > 0 {
		o, oldEnd := oldSects.find(m.from)
		t, newEnd := newSects.find(m.at)
		n := min(m.n, oldEnd-m.from, newEnd-m.at)
		r := run{at: m.at, from: m.from, n: n}
		if o != nil && t != nil {
			r.oldSect, r.newSect = o, t
			r.oldAddr, r.newAddr = o.addr+uint32(m.from-int(o.off)), t.addr+uint32(m.at-int(t.off))
		}
		do(r)
		m.at, m.from, m.n = m.at+n, m.from+n, m.n-n
	}
}

// newAddrMap makes the map of an alignment.
func newAddrMap(matches []match, old, new *image) *addrMap {
	var pieces []placedPiece
	for _, m := range matches {
		runs(m, old, new, func(r run) {
			if r.oldSect != nil {
				pieces = append(pieces, placedPiece{r.oldAddr, uint32(r.n), r.newAddr - r.oldAddr})
			}
		})
	}
	slices.SortFunc(pieces, func(a, b placedPiece) int {
		return cmp.Or(cmp.Compare(a.from, b.from), -cmp.Compare(a.n, b.n), cmp.Compare(a.shift, b.shift))
	})
	m := &addrMap{steps: fillGaps(longestFirst(pieces), old, new)}
	m.bucket = make([]int32, old.extent>>bucketBits+1)
	i := 0
	for b := range m.bucket {
		for i+1 < len(m.steps) && m.steps[i+1].from <= uint32(b)<<bucketBits {
			i++
		}
		m.bucket[b] = int32(i)
	}
	return m
}

// longestFirst makes pieces disjoint: where several lie over each other, the
// longest has the bytes, and of a piece that a longer one cuts short only the front
// stays. The pieces are sorted.
func longestFirst(pieces []placedPiece) []placedPiece {
	var out []placedPiece
	for _, p := range pieces {
		for len(out) > 0 && p.n > 0 {
			last := &out[len(out)-1]
			end := last.from + last.n
			if p.from >= end {
				break
			}
			if p.n > last.n {
				last.n = p.from - last.from
				if last.n == 0 {
					out = out[:len(out)-1]
					continue
				}
				break
			}
			skip := min(end-p.from, p.n)
			p.from, p.n = p.from+skip, p.n-skip
		}
		if p.n > 0 {
			out = append(out, p)
		}
	}
	return out
}

// fillGaps makes steps of pieces: what no match places moves like what stands
// before it in its section, or, at the front, like what comes first.
func fillGaps(pieces []placedPiece, old, new *image) []step {
	steps := []step{{}}
	add := func(s step) {
		last := &steps[len(steps)-1]
		switch {
		case last.from == s.from:
			last.shift = s.shift
		case last.shift != s.shift:
			steps = append(steps, s)
		}
	}
	for i, s := range old.sections {
		end := s.addr + s.size
		shift := uint32(0)
		if len(new.sections) == len(old.sections) {
			shift = new.sections[i].addr - s.addr
		}
		if len(pieces) > 0 && pieces[0].from < end {
			shift = pieces[0].shift
		}
		add(step{s.addr, shift})
		for len(pieces) > 0 && pieces[0].from < end {
			add(step{pieces[0].from, pieces[0].shift})
			pieces = pieces[1:]
		}
	}
	return steps
}
