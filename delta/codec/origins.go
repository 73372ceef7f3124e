package codec

import (
	"encoding/binary"
	"slices"
)

// changedField is a 32-bit field of data that a match carries over with another
// value.
type changedField struct {
	at             int
	self, newSelf  uint32
	value, becomes uint32
	numbers        bool // it stands in a section of numbers
}

// originSample is how many changed fields are looked at to choose origins.
const originSample = 60000

// pairing is two executables of which one is to be made of the other.
type pairing struct {
	target, base []byte
	old, new     *image
	likely       []origin
}

// newPairing returns nil unless both are executables for the same machine.
func newPairing(target, base []byte) *pairing {
	old, new := parseImage(base), parseImage(target)
	if old == nil || new == nil || old.machine != new.machine {
		return nil
	}
	return &pairing{target, base, old, new, likelyOrigins(target, base, old, new)}
}

// guide finds what the 32-bit offsets in the data of the target count from: of all
// likely origins those that explain the most fields that changed.
func (t *pairing) guide(matches []match, addrs *addrMap) *guide {
	fields := t.changedFields(matches)
	// A sample is enough to choose the origins.
	sample := fields
	if len(fields) > originSample {
		sample = make([]changedField, originSample)
		for i := range sample {
			sample[i] = fields[i*len(fields)/originSample]
		}
	}
	g := &guide{old: t.old, new: t.new, origins: t.likely}
	p := g.predictor(t.base, addrs)
	chosen := cover(len(sample), len(t.likely), maxOrigins, max(8, len(sample)/2000), func(k, i int) bool { return p.explains(k, sample[i]) })
	g.origins = make([]origin, len(chosen))
	for i, k := range chosen {
		g.origins[i] = t.likely[k]
	}
	p = g.predictor(t.base, addrs)
	g.blocks = make([]uint8, len(t.target)>>blockBits+1)
	for len(fields) > 0 {
		block := fields[0].at >> blockBits
		n := 0
		for n < len(fields) && fields[n].at>>blockBits == block {
			n++
		}
		here := fields[:n]
		fields = fields[n:]
		var list []uint8
		for _, k := range cover(n, len(g.origins), maxList, 4, func(k, i int) bool { return p.explains(k, here[i]) }) {
			list = append(list, uint8(k))
		}
		if len(list) == 0 {
			continue
		}
		slices.Sort(list)
		at := slices.IndexFunc(g.lists, func(l []uint8) bool { return slices.Equal(l, list) })
		if at < 0 && len(g.lists) < maxLists {
			at = len(g.lists)
			g.lists = append(g.lists, list)
		}
		g.blocks[block] = uint8(at + 1)
	}
	return g
}

// explains reports whether an origin predicts what a field became.
func (p *predictor) explains(k int, f changedField) bool {
	if p.origins[k].kind == fromMemory && !f.numbers {
		return false // of addresses the alignment knows more
	}
	guess, ok := p.guess(k, run{oldAddr: f.self, newAddr: f.newSelf}, 0, f.value)
	if p.origins[k].kind == fromMemory {
		p.memory.learn(f.value, f.becomes)
	}
	return ok && guess == f.becomes
}

// cover picks of m candidates, one after the other, the one that explains most of
// the n fields not explained yet, as long as it explains least at all.
func cover(n, m, limit, least int, explains func(k, i int) bool) []int {
	hits := make([][]int32, m)
	for k := range m {
		for i := range n {
			if explains(k, i) {
				hits[k] = append(hits[k], int32(i))
			}
		}
	}
	done := make([]bool, n)
	var chosen []int
	for len(chosen) < limit {
		best, most := -1, least-1
		for k := range m {
			fresh := 0
			for _, i := range hits[k] {
				if !done[i] {
					fresh++
				}
			}
			if fresh > most {
				best, most = k, fresh
			}
		}
		if best < 0 {
			break
		}
		for _, i := range hits[best] {
			done[i] = true
		}
		chosen = append(chosen, best)
	}
	return chosen
}

// changedFields lists the fields of data that matches carry over with another value.
func (t *pairing) changedFields(matches []match) []changedField {
	var fields []changedField
	for _, m := range matches {
		runs(m, t.old, t.new, func(r run) {
			if r.oldSect == nil || r.oldSect.code {
				return
			}
			for i := int(-r.oldAddr & 3); i+4 <= r.n; {
				// Equal bytes are skipped fast.
				same := equalFront(t.base[r.from+i:r.from+r.n], t.target[r.at+i:r.at+r.n])
				i += same &^ 3
				if i+4 > r.n {
					break
				}
				v, became := binary.LittleEndian.Uint32(t.base[r.from+i:]), binary.LittleEndian.Uint32(t.target[r.at+i:])
				if v != 0 && v != ^uint32(0) {
					fields = append(fields, changedField{r.at + i, r.oldAddr + uint32(i), r.newAddr + uint32(i), v, became, r.oldSect.numbers})
				}
				i += 4
			}
		})
	}
	return fields
}

// maxLikely bounds the origins that are tried for sections.
const maxLikely = 160

// likelyOrigins lists what offsets may count from: the image itself, the field,
// each section, and what a Go program's tables start at.
func likelyOrigins(target, base []byte, old, new *image) []origin {
	out := []origin{{kind: fromAddress}, {kind: fromSelf}, {kind: fromAnchor}, {kind: fromMemory}}
	if len(old.sections) == len(new.sections) {
		for i, s := range old.sections {
			if len(out) >= maxLikely {
				break
			}
			if s.size < 256 {
				continue
			}
			out = append(out, origin{fromAddress, s.addr, new.sections[i].addr})
			if s.size%24 == 0 {
				out = append(out, origin{scaled24, s.addr, new.sections[i].addr})
			}
		}
	}
	oldTables, newTables := goTables(base, old), goTables(target, new)
	for i := range min(len(oldTables), len(newTables)) {
		out = append(out, origin{fromAddress, oldTables[i], newTables[i]})
	}
	seen := map[origin]bool{}
	return slices.DeleteFunc(out, func(o origin) bool {
		was := seen[o]
		seen[o] = true
		return was
	})
}

// goTables returns the addresses that the module data of a Go program names, in
// its order: of the tables of functions, names, files, types and so on
// (runtime/symtab.go, type moduledata). They are found by the pointer to the
// table of functions, whose header is known.
func goTables(b []byte, img *image) []uint32 {
	header := goFunctions(b, img)
	if header == 0 {
		return nil
	}
	for _, s := range img.sections {
		if s.code {
			continue
		}
		data := b[s.off : s.off+s.have]
		for i := int(-s.addr & 7); i+8*64 <= len(data); i += 8 {
			if binary.LittleEndian.Uint64(data[i:])-img.start != uint64(header) {
				continue
			}
			var out []uint32
			for k := range 64 {
				if a := binary.LittleEndian.Uint64(data[i+8*k:]) - img.start; a < uint64(img.extent) {
					out = append(out, uint32(a))
				} else {
					out = append(out, 0)
				}
			}
			return out
		}
	}
	return nil
}

// goFunctions returns the address of a Go program's table of functions
// (debug/gosym; magic numbers of Go 1.16, 1.18 and 1.20), or 0.
func goFunctions(b []byte, img *image) uint32 {
	for _, s := range img.sections {
		data := b[s.off : s.off+s.have]
		for i := int(-s.addr & 7); i+16 <= len(data); i += 8 {
			if magic := binary.LittleEndian.Uint32(data[i:]); magic < 0xfffffff0 && magic != 0xfffffffa || magic > 0xfffffffa {
				continue
			}
			if data[i+4] == 0 && data[i+5] == 0 && (data[i+6] == 1 || data[i+6] == 4) && data[i+7] == 8 {
				return s.addr + uint32(i)
			}
		}
	}
	return 0
}
