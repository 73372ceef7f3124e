package codec

import (
	"encoding/binary"
	"math/bits"
	"sort"
)

// A field of an executable that refers to an address is predicted: its old value
// says which address of the base it meant, the alignment says where that stands
// now. The predictor walks the fields of the matches in order and is told the
// truth about each, from which it learns; encoder and decoder run the same walk.
//
// Fields are, in code, the 32-bit distances of calls, jumps and RIP-relative
// operands (Intel SDM, volume 2, chapter 2); in data, absolute 64-bit pointers and
// 32-bit offsets from one of the origins that the encoder found (see origins.go).
type predictor struct {
	base     []byte
	old, new *image
	addrs    *addrMap
	codeLow  uint32 // addresses of code lie in [codeLow, codeEnd)
	codeEnd  uint32
	origins  []origin
	blocks   []uint8   // by target offset >> blockBits: which list of origins holds there
	lists    [][]uint8 // of origins
	learned  []lesson  // by hash of the old address
	tables   []table   // by origin; the last one is of fields that stay as they are
	anchors  anchors
	memory   *memory // nil without an origin of that kind

	// truth is called for each field, by its place in the target, with what was
	// predicted, and says what stands there. Places come in rising order.
	truth func(at int, predicted uint32) uint32
	// start is called for each run of bytes before its fields.
	start func(m match)
}

// lesson is what was learned of an address: where it went, if not where the
// alignment has it.
type lesson struct{ old, new uint32 }

const (
	lessonBits = 16
	blockBits  = 12
	maxOrigins = 30
	maxList    = 5
	maxLists   = 255
)

// origin is what 32-bit offsets of data count from.
type origin struct {
	kind     originKind
	old, new uint32 // the address in base and target, for fromAddress and scaled
}

type originKind uint8

const (
	fromAddress originKind = iota // old + value
	fromSelf                      // the field's own address + value
	scaled24                      // old + 24 × value: index of an ELF symbol
	fromAnchor                    // the address before the field that code refers to + value
	fromMemory                    // no address: what became of this value, or of ones near it
)

// table holds how often an origin was right, by context, in 1/65536.
type table struct {
	score [256]uint16
	seen  uint8  // one bit for each of the last fields: whether it was of this origin
	last  uint32 // value of the last such field
}

// predictor returns a predictor that has learned nothing yet.
func (g *guide) predictor(base []byte, addrs *addrMap) *predictor {
	p := &predictor{
		base: base, old: g.old, new: g.new, addrs: addrs,
		lists: g.lists, blocks: g.blocks,
		learned: make([]lesson, 1<<lessonBits),
		tables:  make([]table, len(g.origins)+1),
	}
	p.setOrigins(g.origins)
	p.codeLow = ^uint32(0)
	for _, s := range g.old.sections {
		if s.code {
			p.codeLow, p.codeEnd = min(p.codeLow, s.addr), max(p.codeEnd, s.addr+s.size)
		}
	}
	for i := range p.tables {
		for c := range p.tables[i].score {
			p.tables[i].score[c] = 1 << 15
			if i == len(g.origins) {
				p.tables[i].score[c] += 1 << 12
			}
		}
	}
	return p
}

// setOrigins makes origins those that guess knows.
func (p *predictor) setOrigins(origins []origin) {
	p.origins = origins
	for _, o := range origins {
		if o.kind == fromAnchor && p.anchors.at == nil {
			p.anchors.at = p.old.anchorsOf(p.base)
		}
		if o.kind == fromMemory && p.memory == nil {
			p.memory = &memory{}
		}
	}
}

// where predicts where the byte at address a of the base stands in the target.
func (p *predictor) where(a uint32) uint32 {
	if l := &p.learned[lessonOf(a)]; l.old == a && l.new != 0 {
		return l.new
	}
	return p.addrs.at(a)
}

func (p *predictor) learn(a, went uint32) {
	p.learned[lessonOf(a)] = lesson{a, went}
}

func lessonOf(a uint32) uint32 { return a * 0x9e3779b1 >> (32 - lessonBits) }

// match walks the fields of one match.
func (p *predictor) match(m match) {
	runs(m, p.old, p.new, func(r run) {
		p.start(match{r.at, r.from, r.n})
		if r.oldSect == nil {
			return
		}
		if r.oldSect.code {
			p.code(r)
		} else {
			p.data(r)
		}
	})
}

// code walks the fields of code.
func (p *predictor) code(r run) {
	switch p.old.machine {
	case amd64:
		p.codeAMD64(r)
	case arm64:
		p.codeARM64(r)
	}
}

// Classes of bytes in amd64 code.
const (
	opNone   = iota
	opBranch // call and jmp: a distance follows
	opTwo    // 0f: of a conditional jump, perhaps
	opModRM  // a ModRM byte of a RIP-relative operand, perhaps
)

var classAMD64 = func() (class [256]uint8) {
	class[0xe8], class[0xe9], class[0x0f] = opBranch, opBranch, opTwo
	for r := range 8 {
		class[r<<3|5] = opModRM
	}
	return class
}()

func (p *predictor) codeAMD64(r run) {
	b := p.base[r.from : r.from+r.n]
	shift := r.newAddr - r.oldAddr // of the code itself
	for i := 0; i+5 <= len(b); {
		var field, end int
		low, high := p.codeLow, p.codeEnd
		switch classAMD64[b[i]] {
		case opNone:
			i++
			continue
		case opBranch:
			field = i + 1
			end = field + 4
		case opTwo:
			if b[i+1]&0xf0 != 0x80 || i+6 > len(b) {
				i++
				continue
			}
			field = i + 2
			end = field + 4
		case opModRM:
			field = i + 1
			end = field + 4
			if i > 0 {
				end += immediateAMD64(b[i-1])
			}
			low, high = 0, p.old.extent
		}
		v := binary.LittleEndian.Uint32(b[field:])
		from := r.oldAddr + uint32(end)
		a := from + v
		if a < low || a >= high {
			i++
			continue
		}
		i = field + 4
		predicted := p.where(a) - from - shift
		if t := p.truth(r.at+field, predicted); t != predicted {
			p.learn(a, from+shift+t)
		}
	}
}

// immediateAMD64 returns how many bytes follow the operand of an opcode.
func immediateAMD64(op byte) int {
	switch op {
	case 0x80, 0x83, 0xc0, 0xc1, 0xc6, 0x6b, 0xba:
		return 1
	case 0x81, 0xc7, 0x69:
		return 4
	}
	return 0
}

// armPage is an address that an ADRP instruction begins to make, and where the
// instruction stands that completes it.
type armPage struct {
	at        int // in the run; of the completing instruction
	old       uint32
	predicted uint32 // whole address in the target
	page      uint32 // its page there, as it is
}

// armReach is how many instructions behind ADRP the one is looked for that
// completes the address.
const armReach = 8

// codeARM64 walks instructions (Arm Architecture Reference Manual, C6.2): B and BL,
// and ADRP with the ADD, or load or store of an immediate offset, that follows it.
func (p *predictor) codeARM64(r run) {
	b := p.base[r.from : r.from+r.n]
	shift := r.newAddr - r.oldAddr
	var pages [32]armPage
	for i := int(-r.oldAddr & 3); i+4 <= len(b); i += 4 {
		w := binary.LittleEndian.Uint32(b[i:])
		here := r.oldAddr + uint32(i)
		switch {
		case w&0x7c000000 == 0x14000000: // B, BL
			a := here + uint32(int32(w<<6)>>4)
			if a < p.codeLow || a >= p.codeEnd {
				continue
			}
			predicted := w&0xfc000000 | (p.where(a)-here-shift)>>2&0x03ffffff
			if t := p.truth(r.at+i, predicted); t != predicted && t&0xfc000000 == w&0xfc000000 {
				p.learn(a, here+shift+uint32(int32(t<<6)>>4))
			}
		case w&0x9f000000 == 0x90000000: // ADRP
			page := here&^0xfff + armImmediate(w)<<12
			at, low := armCompletes(b[i:], w&31)
			a := page + low
			if at == 0 || a >= p.old.extent {
				continue
			}
			whole := p.where(a)
			predicted := armWithImmediate(w, whole>>12-(here+shift)>>12)
			t := p.truth(r.at+i, predicted)
			pages[w&31] = armPage{at: i + at, old: a, predicted: whole, page: (here+shift)&^0xfff + armImmediate(t)<<12}
		case pages[w>>5&31].at == i && i > 0:
			page := pages[w>>5&31]
			scale := armScale(w)
			predicted := w&^(0xfff<<10) | (page.predicted&0xfff)>>scale<<10
			t := p.truth(r.at+i, predicted)
			if went := page.page + t>>10&0xfff<<scale; went != page.predicted && t&^(0xfff<<10) == w&^(0xfff<<10) {
				p.learn(page.old, went)
			}
		}
	}
}

// armImmediate returns the immediate of ADRP, in pages.
func armImmediate(w uint32) uint32 {
	return uint32(int32(w<<8)>>13)<<2 | w>>29&3
}

func armWithImmediate(w, pages uint32) uint32 {
	return w&^(3<<29|0x7ffff<<5) | pages&3<<29 | pages>>2&0x7ffff<<5
}

// armCompletes finds the instruction that adds the low bits to the register that
// ADRP at the front of b sets: how many bytes on, and what it adds; 0 if none.
func armCompletes(b []byte, register uint32) (at int, low uint32) {
	for at = 4; at+4 <= len(b) && at <= 4*armReach; at += 4 {
		w := binary.LittleEndian.Uint32(b[at:])
		if w>>5&31 != register {
			continue
		}
		if w&0xffc00000 == 0x91000000 || w&0x3b000000 == 0x39000000 {
			return at, w >> 10 & 0xfff << armScale(w)
		}
	}
	return 0, 0
}

// armScale returns by how many bits the immediate of ADD, or of a load or store, is
// shifted.
func armScale(w uint32) uint32 {
	if w&0x3b000000 != 0x39000000 {
		return 0
	}
	if w&0x04800000 == 0x04800000 && w>>30 == 0 { // 128-bit vectors
		return 4
	}
	return w >> 30
}

// data walks the fields of data: those aligned in memory.
func (p *predictor) data(r run) {
	b := p.base[r.from : r.from+r.n]
	i := int(-r.oldAddr & 3)
	for ; i+4 <= len(b); i += 4 {
		v := binary.LittleEndian.Uint32(b[i:])
		if p.old.start != 0 && (r.oldAddr+uint32(i))&7 == 0 && i+8 <= len(b) {
			if a := binary.LittleEndian.Uint64(b[i:]) - p.old.start; a < uint64(p.old.extent) {
				went := p.where(uint32(a))
				predicted := uint32(p.new.start + uint64(went))
				if t := p.truth(r.at+i, predicted); t != predicted {
					p.learn(uint32(a), went+t-predicted)
				}
				i += 4
				continue
			}
		}
		if block := (r.at + i) >> blockBits; block < len(p.blocks) && p.blocks[block] != 0 {
			p.offset(r, i, v, p.lists[p.blocks[block]-1])
		}
	}
}

// offset predicts one 32-bit field of data, by the origin that has been right
// most often in such a place.
func (p *predictor) offset(r run, i int, v uint32, list []uint8) {
	same := &p.tables[len(p.origins)]
	if v == 0 || v == ^uint32(0) {
		same.seen <<= 1
		for _, k := range list {
			p.tables[k].seen <<= 1
		}
		return
	}
	phase := uint8(r.oldAddr+uint32(i)) & 4 << 5
	context := same.context(v, phase)
	best, bestScore, predicted := len(p.origins), same.score[context], v
	var contexts [maxList]uint8
	var guesses [maxList]uint32
	var valid [maxList]bool
	informative, remembers := false, false
	for n, k := range list {
		remembers = remembers || p.origins[k].kind == fromMemory
		guess, ok := p.guess(int(k), r, i, v)
		if !ok {
			continue
		}
		t := &p.tables[k]
		valid[n], guesses[n], contexts[n] = true, guess, t.context(v, phase)
		informative = informative || guess != v
		if s := t.score[contexts[n]]; s > bestScore {
			best, bestScore, predicted = int(k), s, guess
		}
	}
	if informative || remembers {
		t := p.truth(r.at+i, predicted)
		if remembers {
			p.memory.learn(v, t)
		}
		same.score[context] = moved(same.score[context], v == t)
		right := t == predicted
		for n, k := range list {
			if !valid[n] {
				continue
			}
			hit := guesses[n] == t
			p.tables[k].score[contexts[n]] = moved(p.tables[k].score[contexts[n]], hit)
			if hit && !right {
				best, right = int(k), true
			}
		}
		if !right && v == t {
			best = len(p.origins)
		}
	}
	same.note(v, best == len(p.origins))
	for _, k := range list {
		p.tables[k].note(v, best == int(k))
	}
}

// guess predicts a field whose offset counts from an origin.
func (p *predictor) guess(k int, r run, i int, v uint32) (uint32, bool) {
	o := &p.origins[k]
	switch o.kind {
	case fromAddress:
		if o.old+v >= p.old.extent {
			return 0, false
		}
		return p.where(o.old+v) - o.new, true
	case fromSelf:
		self := r.oldAddr + uint32(i)
		if self+v >= p.old.extent {
			return 0, false
		}
		return p.where(self+v) - (r.newAddr + uint32(i)), true
	case fromAnchor:
		anchor := p.anchors.before(r.oldAddr + uint32(i))
		if anchor == 0 || anchor+v >= p.old.extent {
			return 0, false
		}
		return p.where(anchor+v) - p.where(anchor), true
	case fromMemory:
		return p.memory.guess(v), true
	default:
		if v >= (p.old.extent-o.old)/24 {
			return 0, false
		}
		return (p.where(o.old+v*24) - o.new) / 24, true
	}
}

// memory is what became of values: of numbers that are given anew in each build,
// such as those of types in debug information.
type memory struct {
	exact  [1 << memoryBits]lesson
	near   [1 << memoryBits]lesson // by the value without its low bits; new is the difference
	far    [1 << memoryBits]lesson
	recent uint32 // the difference last seen
}

const (
	memoryBits = 14
	nearBits   = 5 // low bits in which values count as near
	farBits    = 9
)

func memorySlot(v uint32) uint32 { return v * 0x9e3779b1 >> (32 - memoryBits) }

func (m *memory) guess(v uint32) uint32 {
	if l := m.exact[memorySlot(v)]; l.old == v {
		return l.new
	}
	if l := m.near[memorySlot(v>>nearBits)]; l.old == v>>nearBits+1 {
		return v + l.new
	}
	if l := m.far[memorySlot(v>>farBits)]; l.old == v>>farBits+1 {
		return v + l.new
	}
	return v + m.recent
}

func (m *memory) learn(v, became uint32) {
	m.exact[memorySlot(v)] = lesson{v, became}
	m.near[memorySlot(v>>nearBits)] = lesson{v>>nearBits + 1, became - v}
	m.far[memorySlot(v>>farBits)] = lesson{v>>farBits + 1, became - v}
	m.recent = became - v
}

// anchors are the addresses in data that code refers to: tables start there.
type anchors struct {
	at   []uint32 // ascending
	last int      // index found last
}

// anchorsOf returns the anchors of an image whose file is b: 0, which comes before
// all others, and what the code's RIP-relative operands refer to.
func (img *image) anchorsOf(b []byte) []uint32 {
	if img.anchors == nil {
		img.anchors = img.findAnchors(b)
	}
	return img.anchors
}

func (img *image) findAnchors(b []byte) []uint32 {
	if img.extent > maxAnchored {
		return []uint32{0}
	}
	seen := make([]uint64, img.extent/64+1)
	code := make([]uint64, img.extent>>codePage/64+1)
	for _, s := range img.sections {
		if s.code {
			for page := s.addr >> codePage; page <= (s.addr+s.size-1)>>codePage; page++ {
				code[page/64] |= 1 << (page % 64)
			}
		}
	}
	n := 0
	for _, s := range img.sections {
		if !s.code || img.machine != amd64 {
			continue
		}
		body := b[s.off : s.off+s.have]
		for i := 1; i+5 <= len(body); i++ {
			// lea
			if body[i-1] != 0x8d || body[i]&0xc7 != 5 {
				continue
			}
			a := s.addr + uint32(i) + 5 + binary.LittleEndian.Uint32(body[i+1:])
			if a >= img.extent || code[a>>codePage/64]>>(a>>codePage%64)&1 != 0 || seen[a/64]>>(a%64)&1 != 0 {
				continue
			}
			seen[a/64] |= 1 << (a % 64)
			n++
		}
	}
	at := make([]uint32, 1, n+1)
	for w, word := range seen {
		for ; word != 0; word &= word - 1 {
			at = append(at, uint32(w*64+bits.TrailingZeros64(word)))
		}
	}
	return at
}

// maxAnchored bounds the end of the last section of images that are searched for
// anchors: memory is a bit for each address.
const maxAnchored = 1 << 29

// codePage is the length, as a power of two, of the pages that are code or not.
const codePage = 12

// before returns the last anchor that is not behind address a; 0 if there is none.
func (s *anchors) before(a uint32) uint32 {
	i := s.last
	if s.at[i] > a || i+8 < len(s.at) && s.at[i+8] <= a {
		i = sort.Search(len(s.at), func(i int) bool { return s.at[i] > a }) - 1
	}
	for i+1 < len(s.at) && s.at[i+1] <= a {
		i++
	}
	s.last = i
	return s.at[i]
}

// context says in what surroundings a value stands: how near to the last one of
// the table, and which of the fields before were.
func (t *table) context(v uint32, phase uint8) uint8 {
	near := uint8(0)
	switch d := v - t.last + 1<<15; {
	case d-(1<<15-1<<8) < 1<<9:
		near = 3
	case d-(1<<15-1<<12) < 1<<13:
		near = 2
	case d < 1<<16:
		near = 1
	}
	return phase | near<<5 | t.seen&0x1f
}

func (t *table) note(v uint32, is bool) {
	t.seen <<= 1
	if is {
		t.seen |= 1
		t.last = v
	}
}

// moved returns a score after one more observation.
func moved(s uint16, hit bool) uint16 {
	if hit {
		return s + (65535-s)>>3
	}
	return s - s>>3
}
