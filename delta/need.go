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

// needFormat is the version of base.need that is written, needFormat1 an older one that
// says all.
const (
	needFormat  = "ferry.need/2"
	needFormat1 = "ferry.need/1"
)

type needBase struct {
	Manifest cas.Digest `json:"manifest"`
	// Implied says that what follows from the plan is left out: sources that are read
	// whole, and those that the target has no more, or another way.
	Implied  bool         `json:"implied,omitempty"`
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

// shortened returns the need without what follows from the plan.
func (n *need) shortened(p *plan, target *manifest.Manifest) *need {
	out := &need{Format: n.Format, Bases: slices.Clone(n.Bases)}
	extents := p.readExtents()
	for b := range out.Bases {
		nb := &out.Bases[b]
		known := p.sourcesOf(b)
		implied := p.replaced(b, target)
		nb.Implied = !slices.ContainsFunc(implied, func(f neededFile) bool {
			_, found := slices.BinarySearchFunc(nb.Replaced, f.Path, byPath)
			return !found
		})
		nb.Reads, nb.Replaced = slices.Clone(nb.Reads), slices.Clone(nb.Replaced)
		if nb.Implied {
			nb.Reads = slices.DeleteFunc(nb.Reads, func(f needFile) bool {
				i, ok := known[f.Path]
				return ok && p.sources[i].readWhole(extents[i])
			})
			nb.Replaced = slices.DeleteFunc(nb.Replaced, func(f neededFile) bool {
				_, found := slices.BinarySearchFunc(implied, f.Path, byPath)
				return found
			})
		}
		for i, f := range nb.Reads {
			if _, ok := known[f.Path]; ok && wholeRange(f) {
				nb.Reads[i].Ranges = []needRange{{0, f.Size, cas.Digest{}}}
			}
		}
		for i, f := range nb.Replaced {
			if f.Digest == nil {
				continue
			}
			if k, ok := known[f.Path]; ok && agrees(*f.Digest, p.sources[k].digest) {
				nb.Replaced[i].Digest = nil
			} else if front := shortened(*f.Digest, frontSize); front != shortened(front, shortSize) {
				nb.Replaced[i].Digest = &front
			}
		}
	}
	return out
}

func byPath(f neededFile, path string) int { return cmp.Compare(f.Path, path) }

// complete puts back what shortened left out.
func (n *need) complete(p *plan, target *manifest.Manifest) {
	extents := p.readExtents()
	for b := range n.Bases {
		nb := &n.Bases[b]
		known := p.sourcesOf(b)
		if nb.Implied {
			said := map[string]bool{}
			for _, f := range nb.Reads {
				said[f.Path] = true
			}
			for i, s := range p.sources {
				if path := s.places[b].path; s.file(b) && !said[path] && s.readWhole(extents[i]) {
					nb.Reads = append(nb.Reads, needFile{path, s.size, []needRange{{0, s.size, s.digest}}})
				}
			}
			nb.Replaced = append(nb.Replaced, p.replaced(b, target)...)
			slices.SortStableFunc(nb.Replaced, func(x, y neededFile) int { return cmp.Compare(x.Path, y.Path) })
		}
		for _, f := range nb.Reads {
			if i, ok := known[f.Path]; ok && wholeRange(f) && f.Ranges[0].Digest.IsZero() {
				f.Ranges[0].Digest = p.sources[i].digest
			}
		}
		for i, f := range nb.Replaced {
			if k, ok := known[f.Path]; ok && f.Digest == nil && f.Type == manifest.TypeFile {
				nb.Replaced[i].Digest = &p.sources[k].digest
			}
		}
	}
}

// readWhole reports whether extents are all of the source.
func (s source) readWhole(extents []extent) bool {
	return len(extents) == 1 && extents[0] == extent{0, s.size}
}

// replaced lists the sources that are files of a base and that the target lacks or has
// another way, by path.
func (p *plan) replaced(base int, target *manifest.Manifest) []neededFile {
	var out []neededFile
	for i, s := range p.sources {
		if !s.file(base) {
			continue
		}
		path := s.places[base].path
		t, ok := target.Find(path)
		// What has a shorter digest stands in every base as it does in the target.
		if ok && t.Type == manifest.TypeFile && (t.Digest == shortened(t.Digest, shortSize) || agrees(t.Digest, shortened(s.digest, frontSize))) {
			continue
		}
		out = append(out, neededFile{Path: path, Type: manifest.TypeFile, Size: s.size, Digest: &p.sources[i].digest})
	}
	slices.SortFunc(out, func(x, y neededFile) int { return cmp.Compare(x.Path, y.Path) })
	return out
}

func wholeRange(f needFile) bool {
	return len(f.Ranges) == 1 && f.Ranges[0].Off == 0 && f.Ranges[0].Size == f.Size
}

// sourcesOf returns the sources that are files of a base, by path.
func (p *plan) sourcesOf(base int) map[string]int {
	known := map[string]int{}
	for i, s := range p.sources {
		if s.file(base) {
			known[s.places[base].path] = i
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
	for i, extents := range c.plan.readExtents() {
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
func (p *plan) readExtents() map[int][]extent {
	reads := map[int][]extent{}
	for _, w := range p.windows {
		for _, s := range w.dict {
			reads[s.source] = append(reads[s.source], extent{s.off, s.off + s.size})
		}
	}
	for _, g := range p.programs {
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
