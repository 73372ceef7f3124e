package delta

import (
	"cmp"
	"context"
	"io"
	"slices"

	"ferry/manifest"
)

// sketch stands for the content of a file: the least hashes of its windows of 16
// bytes (A. Broder, "On the resemblance and containment of documents", 1997). Two
// files that share much share hashes, wherever the bytes stand.
type sketch []uint64

const (
	sketchSize = 128
	// sketchMin is the size in bytes from which files are told by sketches, and
	// sketchShare how many hashes two files must share.
	sketchMin   = 8 << 10
	sketchShare = 6
)

// gear are random numbers for a rolling hash over the last 16 bytes (W. Xia et al.,
// "Ddelta", 2014): what is older was shifted out.
var gear = func() (g [256]uint64) {
	x := uint64(0x9e3779b97f4a7c15)
	for i := range g { // splitmix64
		x += 0x9e3779b97f4a7c15
		z := (x ^ x>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		g[i] = z ^ z>>31
	}
	return g
}()

// sketchOf reads an entry.
func sketchOf(ctx context.Context, x *expanded, i int) (sketch, error) {
	c, err := x.open(ctx, i)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var s sketch
	limit := ^uint64(0) // hashes above are not among the least
	h := uint64(0)
	buf := make([]byte, 256<<10)
	r := io.NewSectionReader(c, 0, c.Size())
	for {
		n, err := r.Read(buf)
		for _, b := range buf[:n] {
			h = h<<4 + gear[b]
			// The upper bits depend on the last 16 bytes; one place in 64 counts.
			if h>>58 == 0 {
				if mixed := h >> 32 * 0xc2b2ae3d27d4eb4f; mixed < limit {
					s = append(s, mixed)
					if len(s) == 4*sketchSize {
						s = s.least()
						if len(s) == sketchSize {
							limit = s[len(s)-1]
						}
					}
				}
			}
		}
		if err == io.EOF {
			return s.least(), nil
		}
		if err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}

// least returns the least hashes, sorted, each once.
func (s sketch) least() sketch {
	slices.Sort(s)
	s = slices.Compact(s)
	return s[:min(len(s), sketchSize)]
}

// shares counts the hashes that two sketches share.
func (s sketch) shares(other sketch) int {
	n := 0
	for i, k := 0, 0; i < len(s) && k < len(other); {
		switch cmp.Compare(s[i], other[k]) {
		case -1:
			i++
		case 1:
			k++
		default:
			n, i, k = n+1, i+1, k+1
		}
	}
	return n
}

// resembling returns the base file that shares most with a target file, of those
// that the target does not have at their path, and that stand in no more coded members; -1 if
// none shares enough.
func (m *matcher) resembling(ctx context.Context, target *expanded, i int) (int, error) {
	if e := target.entries[i]; e.Size < sketchMin {
		return -1, nil
	}
	if m.sketches == nil {
		m.sketches = map[int]sketch{}
		for i, b := range m.base.entries {
			if target.stays(m, i) || !m.base.content(i) || b.Type != manifest.TypeFile || b.Size < sketchMin {
				continue
			}
			if ok, err := m.base.available(ctx, i); err != nil {
				return -1, err
			} else if !ok {
				continue
			}
			s, err := sketchOf(ctx, m.base, i)
			if err != nil {
				return -1, err
			}
			m.sketches[i] = s
		}
	}
	if len(m.sketches) == 0 {
		return -1, nil
	}
	s, err := sketchOf(ctx, target, i)
	if err != nil {
		return -1, err
	}
	best, most := -1, sketchShare-1
	depth := target.depth(i)
	for i, other := range m.sketches {
		if m.base.depth(i) > depth {
			continue // decoding it costs more time than it saves bytes
		}
		n := s.shares(other)
		if n > most || n == most && best >= 0 && cmp.Or(cmp.Compare(m.base.depth(i), m.base.depth(best)), cmp.Compare(i, best)) < 0 {
			best, most = i, n
		}
	}
	return best, nil
}
