package codec

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
)

// translate returns the base with its references as they would be in the target: an
// alignment with it sees past them.
func (t *pairing) translate(matches []match) []byte {
	moved := bytes.Clone(t.base)
	addrs := newAddrMap(matches, t.old, t.new)
	p := t.guide(matches, addrs).predictor(t.base, addrs)
	var cur match
	p.start = func(m match) { cur = m }
	p.truth = func(at int, predicted uint32) uint32 {
		binary.LittleEndian.PutUint32(moved[at-cur.at+cur.from:], predicted)
		return binary.LittleEndian.Uint32(t.target[at:])
	}
	for _, m := range matches {
		p.match(m)
	}
	p.setOrigins(t.likely)
	p.translateRest(moved, t.target, p.sound(moved, t.target, matches))
	return moved
}

// tableBlock is the length in bytes of the pieces of data that are judged as one.
const tableBlock = 512

// sound returns the matches without those parts of data that differ much even
// when translated: a table may have been aligned by what all its entries share.
func (p *predictor) sound(moved, target []byte, matches []match) []match {
	var out []match
	for _, m := range matches {
		runs(m, p.old, p.new, func(r run) {
			if r.oldSect == nil || r.oldSect.code {
				out = append(out, match{r.at, r.from, r.n})
				return
			}
			for i := 0; i < r.n; i += tableBlock {
				n := min(tableBlock, r.n-i)
				if equalBytes(moved[r.from+i:r.from+i+n], target[r.at+i:r.at+i+n]) >= n-n/10 {
					out = append(out, match{r.at + i, r.from + i, n})
				}
			}
		})
	}
	return out
}

// translateRest translates what no match covers: code as it is, and the 32-bit
// fields of data by those origins that turn many of them into values that the
// target has where no match covers it.
func (p *predictor) translateRest(moved, target []byte, matches []match) {
	values := newValueSet()
	rest := uncovered(matches, len(target), func(m match) (int, int) { return m.at, m.n })
	for _, s := range p.new.byOffset() {
		if s.code {
			continue
		}
		for _, g := range clipped(rest, int(s.off), int(s.off+s.have)) {
			for i := g.at + int(-(s.addr+uint32(g.at)-s.off)&3); i+4 <= g.at+g.n; i += 4 {
				values.add(binary.LittleEndian.Uint32(target[i:]))
			}
		}
	}
	p.truth = func(at int, predicted uint32) uint32 {
		binary.LittleEndian.PutUint32(moved[at:], predicted)
		return predicted
	}
	rest = uncovered(matches, len(p.base), func(m match) (int, int) { return m.from, m.n })
	for _, s := range p.old.byOffset() {
		for _, g := range clipped(rest, int(s.off), int(s.off+s.have)) {
			addr := s.addr + uint32(g.at) - s.off
			r := run{at: g.at, from: g.at, n: g.n, oldAddr: addr, newAddr: p.addrs.at(addr), oldSect: &s}
			if s.code {
				p.code(r)
			} else {
				p.translateData(moved, r, values)
			}
		}
	}
}

// translateData translates the fields of a run, block by block.
func (p *predictor) translateData(moved []byte, r run, values *valueSet) {
	for start := int(-r.oldAddr & 3); start+4 <= r.n; start += tableBlock {
		end := min(start+tableBlock, r.n-3)
		best, most := -1, (end-start)/4/6
		for k := -1; k < len(p.origins); k++ {
			hits := 0
			for i := start; i < end; i += 4 {
				v := binary.LittleEndian.Uint32(p.base[r.from+i:])
				if v == 0 || v == ^uint32(0) {
					continue
				}
				if k < 0 {
					if values.has(v) {
						hits++
					}
				} else if guess, ok := p.guess(k, r, i, v); ok && values.has(guess) {
					hits++
				}
			}
			if hits > most {
				best, most = k, hits
			}
		}
		if best < 0 {
			continue
		}
		for i := start; i < end; i += 4 {
			v := binary.LittleEndian.Uint32(p.base[r.from+i:])
			if v == 0 || v == ^uint32(0) || values.has(v) {
				continue
			}
			if guess, ok := p.guess(best, r, i, v); ok && values.has(guess) {
				binary.LittleEndian.PutUint32(moved[r.from+i:], guess)
			}
		}
	}
}

// valueSet holds numbers, as well as a few that were never added.
type valueSet struct{ bits []uint64 }

const valueSetBits = 25

func newValueSet() *valueSet { return &valueSet{make([]uint64, 1<<valueSetBits/64)} }

func (s *valueSet) add(v uint32) {
	h := v * 0x9e3779b1 >> (32 - valueSetBits)
	s.bits[h/64] |= 1 << (h % 64)
}

func (s *valueSet) has(v uint32) bool {
	h := v * 0x9e3779b1 >> (32 - valueSetBits)
	return s.bits[h/64]>>(h%64)&1 != 0
}

// uncovered returns the runs of [0, size) that no match covers on the side that
// side gives.
func uncovered(matches []match, size int, side func(match) (at, n int)) []match {
	sorted := slices.Clone(matches)
	slices.SortFunc(sorted, func(a, b match) int {
		x, _ := side(a)
		y, _ := side(b)
		return cmp.Compare(x, y)
	})
	var out []match
	end := 0
	for _, m := range sorted {
		at, n := side(m)
		if at > end {
			out = append(out, match{at: end, n: at - end})
		}
		end = max(end, at+n)
	}
	if end < size {
		out = append(out, match{at: end, n: size - end})
	}
	return out
}

// clipped returns the parts of runs that lie in [from, to).
func clipped(runs []match, from, to int) []match {
	i, _ := slices.BinarySearchFunc(runs, from, func(m match, at int) int { return cmp.Compare(m.at+m.n, at) })
	var out []match
	for ; i < len(runs) && runs[i].at < to; i++ {
		lo, hi := max(runs[i].at, from), min(runs[i].at+runs[i].n, to)
		if lo < hi {
			out = append(out, match{at: lo, n: hi - lo})
		}
	}
	return out
}
