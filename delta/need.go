package delta

import (
	"cmp"
	"context"
	"path"
	"slices"
	"strings"

	"ferry/cas"
	"ferry/manifest"
)

// need is base.need: what of each base is read, so that a wrong one is told
// apart from a damaged delta, and what of it is replaced, so that files changed
// at a site are noticed.
type need struct {
	Format string     `json:"format"`
	Bases  []needBase `json:"bases"`
}

// needFormat is the version of base.need.
const needFormat = "ferry.need/1"

type needBase struct {
	Manifest cas.Digest   `json:"manifest"`
	Reads    []needFile   `json:"reads"`
	Replaced []neededFile `json:"replaced"`
}

// needFile is a base file that is read in part.
type needFile struct {
	Path   string      `json:"path"`
	Size   int64       `json:"size_bytes"`
	Ranges []needRange `json:"ranges"`
}

type needRange struct {
	Off    int64      `json:"off"`
	Size   int64      `json:"size_bytes"`
	Digest cas.Digest `json:"digest,omitzero"` // absent of a whole file: the plan has it
}

// neededFile is a base entry that the target has no more, or another way.
type neededFile struct {
	Path   string        `json:"path"`
	Type   manifest.Type `json:"type"`
	Size   int64         `json:"size_bytes,omitempty"`
	Digest *cas.Digest   `json:"digest,omitempty"`
	Link   string        `json:"link,omitempty"`
	// Own says that it may be the site's own, as only an inventory has it, and a rule
	// preserves such files: it is not what a package brought, whatever stands there.
	Own bool `json:"own,omitempty"`
}

// shortened returns the need without digests that the plan has, too: of sources.
func (n *need) shortened(p *plan) *need {
	out := &need{Format: n.Format, Bases: slices.Clone(n.Bases)}
	for b := range out.Bases {
		known := p.sourcesOf(b)
		nb := &out.Bases[b]
		nb.Reads, nb.Replaced = slices.Clone(nb.Reads), slices.Clone(nb.Replaced)
		for i, f := range nb.Reads {
			if _, ok := known[f.Path]; ok && wholeRange(f) {
				nb.Reads[i].Ranges = []needRange{{0, f.Size, cas.Digest{}}}
			}
		}
		for i, f := range nb.Replaced {
			if digest, ok := known[f.Path]; ok && f.Digest != nil && *f.Digest == digest {
				nb.Replaced[i].Digest = nil
			}
		}
	}
	return out
}

// complete puts back what shortened left out.
func (n *need) complete(p *plan) {
	for b := range n.Bases {
		known := p.sourcesOf(b)
		for _, f := range n.Bases[b].Reads {
			if wholeRange(f) && f.Ranges[0].Digest.IsZero() {
				f.Ranges[0].Digest = known[f.Path]
			}
		}
		for i, f := range n.Bases[b].Replaced {
			if digest, ok := known[f.Path]; ok && f.Digest == nil && f.Type == manifest.TypeFile {
				n.Bases[b].Replaced[i].Digest = &digest
			}
		}
	}
}

func wholeRange(f needFile) bool {
	return len(f.Ranges) == 1 && f.Ranges[0].Off == 0 && f.Ranges[0].Size == f.Size
}

// sourcesOf returns the digests of the sources that stand in a base, by path.
func (p *plan) sourcesOf(base int) map[string]cas.Digest {
	known := map[string]cas.Digest{}
	for _, s := range p.sources {
		if s.file(base) {
			known[s.places[base].path] = s.digest
		}
	}
	return known
}

// rangeSize is the length in bytes of the ranges that are told apart.
const rangeSize = 4 << 20

// need computes base.need.
func (c *creator) need(ctx context.Context) (*need, error) {
	n := &need{Format: needFormat}
	ranges := map[int][]needRange{}
	for i, extents := range c.readExtents() {
		if !slices.ContainsFunc(c.plan.sources[i].places, sourcePlace.file) {
			continue // the container file around it is what is needed
		}
		var err error
		if ranges[i], err = c.digestRanges(ctx, i, extents); err != nil {
			return nil, err
		}
	}
	for b, base := range c.bases {
		nb := needBase{Manifest: base.Manifest.ID(), Reads: []needFile{}, Replaced: []neededFile{}}
		whole := map[string]bool{} // container files, which are read as such
		for _, s := range c.plan.sources {
			if path := s.places[b].path; path != "" && !s.file(b) && !whole[path] {
				whole[path] = true
				e, _ := base.Manifest.Find(path)
				nb.Reads = append(nb.Reads, needFile{path, e.Size, []needRange{{0, e.Size, e.Digest}}})
			}
		}
		for i, s := range c.plan.sources {
			if s.file(b) && !whole[s.places[b].path] {
				nb.Reads = append(nb.Reads, needFile{s.places[b].path, s.size, ranges[i]})
			}
		}
		for _, e := range base.Manifest.Entries {
			t, ok := c.target.Manifest.Find(e.Path)
			if ok && t.Type == e.Type && t.Digest == e.Digest && t.Link == e.Link || !ok && !c.removes(b, e) {
				continue
			}
			f := neededFile{Path: e.Path, Type: e.Type, Size: e.Size, Link: e.Link}
			f.Own = base.inventory() && c.preserve(e.Path) && !c.shipped(e)
			if e.Type == manifest.TypeFile {
				f.Digest = &e.Digest
			}
			nb.Replaced = append(nb.Replaced, f)
		}
		n.Bases = append(n.Bases, nb)
	}
	return n, nil
}

// inventory reports whether a version is an inventory of what a site has.
func (v Version) inventory() bool {
	_, ok := v.Files.(Partial)
	return ok
}

// removes reports whether an entry of base b that the target lacks is taken away: not
// one that only an inventory has, which is the site's own, unless it is in the way.
func (c *creator) removes(b int, e manifest.Entry) bool {
	return !c.bases[b].inventory() || c.opts.RemoveUnknown || c.shipped(e) || c.inTheWay(e)
}

// inTheWay reports whether the target has a folder where the entry stands, or something
// else where a folder of its path is.
func (c *creator) inTheWay(e manifest.Entry) bool {
	m := c.target.Manifest
	if i, _ := m.Index(e.Path + "/"); i < len(m.Entries) && strings.HasPrefix(m.Entries[i].Path, e.Path+"/") {
		return true
	}
	for dir := path.Dir(e.Path); dir != "."; dir = path.Dir(dir) {
		if t, ok := m.Find(dir); ok && t.Type != manifest.TypeDir {
			return true
		}
	}
	return false
}

// shipped reports whether a base that is no inventory has just that entry.
func (c *creator) shipped(e manifest.Entry) bool {
	return slices.ContainsFunc(c.bases, func(v Version) bool {
		have, ok := v.Manifest.Find(e.Path)
		return ok && !v.inventory() && have.Type == e.Type && have.Digest == e.Digest && have.Link == e.Link
	})
}

// readExtents lists what is read of each source.
func (c *creator) readExtents() map[int][]extent {
	reads := map[int][]extent{}
	for _, w := range c.plan.windows {
		for _, s := range w.dict {
			reads[s.source] = append(reads[s.source], extent{s.off, s.off + s.size})
		}
	}
	for _, g := range c.plan.programs {
		eachOp(g.ops, func(o op) {
			if o.kind == opCopy {
				reads[o.ref] = append(reads[o.ref], extent{o.off, o.off + o.size})
			}
		})
	}
	for i, extents := range reads {
		reads[i] = joined(extents)
	}
	return reads
}

// joined returns extents sorted, those that touch made one.
func joined(extents []extent) []extent {
	slices.SortFunc(extents, func(a, b extent) int { return cmp.Compare(a.off, b.off) })
	out := extents[:0]
	for _, e := range extents {
		if n := len(out); n > 0 && e.off <= out[n-1].end {
			out[n-1].end = max(out[n-1].end, e.end)
			continue
		}
		out = append(out, e)
	}
	return out
}

func (c *creator) digestRanges(ctx context.Context, source int, extents []extent) ([]needRange, error) {
	s := c.plan.sources[source]
	readable, err := c.readable(ctx, s.digest)
	if err != nil {
		return nil, err
	}
	// What cannot be read here is told by its whole digest.
	if len(extents) == 1 && extents[0] == (extent{0, s.size}) || !readable {
		return []needRange{{0, s.size, s.digest}}, nil
	}
	var ranges []needRange
	var buf []byte
	for _, e := range extents {
		for off := e.off; off < e.end; off += rangeSize {
			n := min(rangeSize, e.end-off)
			var err error
			if buf, err = c.fromBase.Read(ctx, buf[:0], s.digest.Hex(), off, n); err != nil {
				return nil, err
			}
			ranges = append(ranges, needRange{off, n, cas.Sum(buf)})
		}
	}
	return ranges, nil
}
