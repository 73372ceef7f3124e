package codec

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Small patches compress better together: what is the same in many files is said
// once. A group is the patches of several targets, each against a base of its own,
// packed as one; any of them is decoded with its own base alone.

// Item is a target of a group, with its base, which may be empty.
type Item struct{ Target, Base []byte }

// MaxItems bounds the items of a group, and maxGroup their plain bytes in all.
const (
	MaxItems = 1 << 12
	maxGroup = 32 << 20
)

// EncodeGroup appends the coded form of items to dst, and returns what each takes
// of it, about, in bytes. The same arguments always give the same bytes. mix lets
// literals be coded so that they take about a microsecond a byte, also to decode.
func EncodeGroup(dst []byte, items []Item, effort Effort, mix bool) ([]byte, []int) {
	var table []byte
	var all patch
	shares := make([]int, len(items))
	total := 0
	for i, item := range items {
		p, plain := makePatch(item.Target, item.Base, effort)
		if plain != nil && plain.size() <= p.size() {
			p = plain
		}
		table = binary.AppendUvarint(table, uint64(p.matches))
		for k, b := range p.all() {
			table = binary.AppendUvarint(table, uint64(len(*b)))
			to := all.all()[k]
			*to = append(*to, *b...)
		}
		shares[i] = p.size() + 1
		total += shares[i]
	}
	start := len(dst)
	dst = binary.AppendUvarint(dst, uint64(len(items)))
	dst = appendStream(dst, table, nil, effort)
	streams := all.all()
	for _, b := range streams[:len(streams)-1] {
		dst = appendStream(dst, *b, nil, effort)
	}
	if mix {
		dst = appendText(dst, all.literals, effort)
	} else {
		dst = appendStream(dst, all.literals, nil, effort)
	}
	for i := range shares {
		shares[i] = int(int64(len(dst)-start) * int64(shares[i]) / int64(total))
	}
	return dst, shares
}

// all returns the parts of a patch in the order of the format.
func (p *patch) all() []*[]byte {
	return append([]*[]byte{&p.guide}, append(p.rules(), &p.literals)...)
}

// Group is a group that was unpacked. It is safe for concurrent use.
type Group struct{ patches []patch }

// OpenGroup unpacks a group. Memory is bounded, whatever coded says.
// Errors match [ErrInvalid].
func OpenGroup(coded []byte) (*Group, error) {
	r := &reader{b: coded}
	n := r.upTo(MaxItems)
	table := &reader{b: r.stream(n * 8 * binary.MaxVarintLen32)}
	var all patch
	limit := 2*maxGroup + n*64
	for _, b := range all.all() {
		*b = r.stream(limit)
		limit -= len(*b)
	}
	if len(r.b) != 0 {
		r.fail("more bytes behind its end")
	}
	if r.err != nil {
		return nil, r.err
	}
	g := &Group{make([]patch, n)}
	for i := range g.patches {
		p := &g.patches[i]
		p.matches = table.upTo(maxGroup)
		for k, b := range p.all() {
			from := all.all()[k]
			size := table.upTo(uint64(len(*from)))
			*b, *from = (*from)[:size:size], (*from)[size:]
		}
	}
	for _, b := range all.all() {
		if len(*b) > 0 {
			table.fail("streams are longer than its patches")
		}
	}
	if table.err == nil && len(table.b) > 0 {
		table.fail("table of patches too long")
	}
	return g, table.err
}

// Decode appends the size target bytes of item i to dst, made of its base. Errors
// match [ErrInvalid].
func (g *Group) Decode(dst []byte, i int, base []byte, size int) ([]byte, error) {
	if i < 0 || i >= len(g.patches) || size < 0 || size > MaxSize || len(base) > MaxSize {
		return nil, fmt.Errorf("%w: no item %d of %d bytes", ErrInvalid, i, size)
	}
	p := g.patches[i]
	if p.matches > size/minMatch+1 {
		return nil, fmt.Errorf("%w: more matches than bytes", ErrInvalid)
	}
	return p.apply(dst, base, size, bytes.NewReader(p.literals), len(p.literals))
}
