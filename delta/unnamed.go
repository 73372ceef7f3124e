package delta

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"ferry/cas"
	"ferry/manifest"
	"ferry/manifest/place"
)

// Files that stand in the base just as in the target may have no names in a delta: how
// many there are between those that have, and a mark of each, tells them by what stands
// at the site. Whether all were told right, the id of the manifest says.

// mark is what a delta says of a file without a name.
type mark struct {
	path    byte // the first of a digest of the path
	content byte // the first of the file's digest
	exec    bool
	mtime   int64
}

func pathMark(path string) byte { return cas.Sum([]byte(path))[0] }

// unnamed are a target's files without names: marks[k] those before entry k of its
// manifest, in the order of their paths, and those behind the last.
type unnamed struct {
	marks [][]mark
	n     int
}

// tinyMark ends a digest of which only the first byte is there.
const tinyMark = 1

func tiny(b byte) (d cas.Digest) {
	d[0], d[len(d)-1] = b, tinyMark
	return d
}

func isTiny(d cas.Digest) bool { return d == tiny(d[0]) }

// mayBeUnnamed bounds the files without names one after the other: so many can be told
// from the files of a site in memory and time that are bounded.
const mayBeUnnamed = 4 << 10

// nameless chooses the entries of the target that need no names.
func (c *creator) nameless() []bool {
	entries := c.target.Manifest.Entries
	without := make([]bool, len(entries))
	if len(c.bases) > 1 {
		return without
	}
	named := map[string]bool{}
	for _, s := range c.plan.sources {
		named[s.places[0].path] = true
	}
	made := c.plan.made(len(entries))
	run := 0
	for i, e := range entries {
		without[i] = e.Type == manifest.TypeFile && !made[i] && !named[e.Path] && !c.preserve(e.Path) && run < mayBeUnnamed
		if run++; !without[i] {
			run = 0
		}
	}
	return without
}

// divided returns the manifest of the entries that keep their names, the others, and the
// numbers that entries have in the former.
func divided(m *manifest.Manifest, without []bool) (*manifest.Manifest, *unnamed, []int) {
	named, others := &manifest.Manifest{}, &unnamed{marks: [][]mark{nil}}
	numbers := make([]int, len(m.Entries))
	for i, e := range m.Entries {
		k := len(named.Entries)
		numbers[i] = k
		if without[i] {
			others.marks[k] = append(others.marks[k], mark{pathMark(e.Path), e.Digest[0], e.Exec, e.ModTime})
			others.n++
			continue
		}
		named.Entries = append(named.Entries, e)
		others.marks = append(others.marks, nil)
	}
	return named, others, numbers
}

// renumbered returns the plan with other numbers of the target's entries, of which there
// are n then.
func (p *plan) renumbered(numbers []int, n int) *plan {
	out := *p
	out.programs = slices.Clone(p.programs)
	for i := range out.programs {
		if e := &out.programs[i].entry; *e < len(numbers) {
			*e = numbers[*e]
		} else {
			*e += n - len(numbers)
		}
	}
	return &out
}

// columns returns the files without names as columns of a coded target.
func (u *unnamed) columns() [][]byte {
	var counts, paths, contents, execs, times []byte
	mtime := int64(0)
	for _, gap := range u.marks {
		counts = binary.AppendUvarint(counts, uint64(len(gap)))
		for _, m := range gap {
			paths = append(paths, m.path)
			contents = append(contents, m.content)
			execs = append(execs, byte(bit(m.exec)))
			times = binary.AppendVarint(times, m.mtime-mtime)
			mtime = m.mtime
		}
	}
	return [][]byte{counts, paths, contents, execs, times}
}

// takeUnnamed reads the columns of the files without names before and behind n entries.
// What is wrong with them, a column's error says.
func takeUnnamed(columns []planReader, n int) *unnamed {
	counts, paths, contents, execs, times := &columns[0], &columns[1], &columns[2], &columns[3], &columns[4]
	u := &unnamed{marks: make([][]mark, n+1)}
	all := len(contents.b)
	if len(execs.b) != all || len(paths.b) != all || all > maxEntries-n {
		counts.fail("columns of files without names are not of their number")
		return u
	}
	mtime := int64(0)
	for k := range u.marks {
		for range counts.upTo(uint64(len(contents.b))) {
			mtime += times.varint()
			m := mark{paths.byte(), contents.byte(), execs.byte() != 0, mtime}
			u.marks[k] = append(u.marks[k], m)
			u.n++
		}
	}
	return u
}

// Resolve returns the delta with all of the target's files in Target, of which those
// that have no name in it are told by the files of b. Where such a file is missing, the
// text says what is known of it.
func (d *Delta) Resolve(ctx context.Context, b Base) (*Delta, []string, error) {
	if d.unnamed.n == 0 {
		return d, nil, nil
	}
	sizes, err := b.Sizes(ctx)
	if err != nil {
		return nil, nil, err
	}
	return d.resolve(ctx, b, sizes)
}

// resolve is Resolve for a base whose files have these sizes.
func (d *Delta) resolve(ctx context.Context, b Base, sizes map[string]int64) (*Delta, []string, error) {
	if d.unnamed.n == 0 {
		return d, nil, nil
	}
	r := &resolver{d: d, b: b, sizes: sizes, gaps: make([][]string, len(d.unnamed.marks))}
	r.distribute()
	out := &Delta{Info: d.Info, parts: d.parts, need: d.need, id: d.id, groups: d.groups, Target: &manifest.Manifest{}, unnamed: &unnamed{}}
	numbers := make([]int, len(d.Target.Entries))
	var missing []string
	for k := range d.unnamed.marks {
		files, gone, err := r.gap(ctx, k)
		if errors.Is(err, errTooMany) {
			err = &BaseMismatchError{Base: d.plan.bases[0].label, Reason: r.describe(len(r.gaps[k])-len(d.unnamed.marks[k]), k) + ": " + err.Error()}
		}
		if err != nil {
			return nil, nil, err
		}
		if gone > 0 {
			missing = append(missing, r.describe(gone, k))
		}
		out.Target.Entries = append(out.Target.Entries, files...)
		if k < len(numbers) {
			numbers[k] = len(out.Target.Entries)
			out.Target.Entries = append(out.Target.Entries, d.Target.Entries[k])
		}
	}
	out.plan = d.plan.renumbered(numbers, len(out.Target.Entries))
	return out, missing, nil
}

// told reports whether files of the target were told by what stands at the site.
func (d *Delta) told() bool {
	return slices.ContainsFunc(d.Target.Entries, func(e manifest.Entry) bool { return isTiny(e.Digest) })
}

// resolver tells files without names.
type resolver struct {
	d     *Delta
	b     Base
	sizes map[string]int64
	gaps  [][]string // by gap: the files of the site that may be those without names
}

// distribute finds the files in each gap: those of the site that the delta does not name.
func (r *resolver) distribute() {
	known := map[string]bool{}
	for _, n := range r.d.need.Bases[0].Replaced {
		known[n.Path] = true
	}
	paths := make([]string, 0, len(r.sizes))
	for p := range r.sizes {
		if !known[p] {
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	k, named := 0, r.d.Target.Entries
	for _, p := range paths {
		for k < len(named) && named[k].Path < p {
			k++
		}
		if k < len(named) && named[k].Path == p {
			continue
		}
		r.gaps[k] = append(r.gaps[k], p)
	}
}

// describe says where files are missing.
func (r *resolver) describe(n, k int) string {
	what := "a file"
	if n > 1 {
		what = fmt.Sprintf("%d files", n)
	}
	named := r.d.Target.Entries
	switch {
	case len(named) == 0:
		return what
	case k == 0:
		return fmt.Sprintf("%s sorted before %q", what, named[0].Path)
	case k == len(named):
		return fmt.Sprintf("%s sorted behind %q", what, named[k-1].Path)
	}
	return fmt.Sprintf("%s sorted between %q and %q", what, named[k-1].Path, named[k].Path)
}

// gap returns the files of a gap, and how many of them are missing.
func (r *resolver) gap(ctx context.Context, k int) (files []manifest.Entry, missing int, err error) {
	marks, paths := r.d.unnamed.marks[k], r.gaps[k]
	pairs, err := r.pair(ctx, marks, paths)
	for i, m := range marks {
		if err != nil || pairs[i] < 0 {
			missing++
			continue
		}
		e := manifest.Entry{Path: paths[pairs[i]], Type: manifest.TypeFile, Exec: m.exec, ModTime: m.mtime, Digest: tiny(m.content)}
		if e.Size = r.sizes[e.Path]; e.Size == 0 && m.content == emptyDigest[0] {
			e.Digest = emptyDigest
		}
		files = append(files, e)
	}
	return files, missing, err
}

var emptyDigest = cas.Sum(nil)

var errTooMany = errors.New("are too many to tell which are the base's")

// maxCells bounds what is compared to tell the files of a gap, a byte each.
const maxCells = 64 << 20

// smallFile is the size in bytes up to which a file's content is asked for, to tell which
// it is.
const smallFile = 1 << 20

// pair returns for each mark the number of the path that it is of, or -1.
func (r *resolver) pair(ctx context.Context, marks []mark, paths []string) ([]int, error) {
	have := make([]byte, len(paths))
	for i, p := range paths {
		have[i] = pathMark(p)
	}
	pairs := make([]int, len(marks))
	if samePaths(marks, have) {
		for i := range pairs {
			pairs[i] = i
		}
		return pairs, nil
	}
	contents := make([]int, len(paths)) // first byte of the digest, more 1; 0 if it was not asked for, -1 if none
	compare := func(i, j int) (likeness, error) {
		if contents[j] == 0 {
			contents[j] = -1
			if r.sizes[paths[j]] <= smallFile {
				digest, err := r.digest(ctx, paths[j])
				if err != nil {
					return unknown, err
				}
				contents[j] = int(digest[0]) + 1
			}
		}
		switch contents[j] {
		case -1:
			return unknown, nil
		case int(marks[i].content) + 1:
			return equal, nil
		}
		return differs, nil
	}
	return alignAll(marks, have, compare)
}

// likeness says whether a file has the content that a mark is of.
type likeness int

const (
	equal likeness = iota
	differs
	unknown // it is not small
)

// alignAll is align, which it spares what agrees at both ends: a folder of the site's own
// files, however many, is then seen to be one.
func alignAll(marks []mark, have []byte, compare func(i, j int) (likeness, error)) ([]int, error) {
	same := func(i, j int) (bool, error) {
		if marks[i].path != have[j] {
			return false, nil
		}
		l, err := compare(i, j)
		return l == equal, err
	}
	least := min(len(marks), len(have))
	front, err := countSame(least, func(k int) (bool, error) { return same(k, k) })
	if err != nil {
		return nil, err
	}
	back, err := countSame(least-front, func(k int) (bool, error) { return same(len(marks)-1-k, len(have)-1-k) })
	if err != nil {
		return nil, err
	}
	pairs := make([]int, len(marks))
	for i := range front {
		pairs[i] = i
	}
	for i := range back {
		pairs[len(marks)-1-i] = len(have) - 1 - i
	}
	inner, err := align(marks[front:len(marks)-back], have[front:len(have)-back], func(i, j int) (likeness, error) { return compare(i+front, j+front) })
	for i, j := range inner {
		if j >= 0 {
			j += front
		}
		pairs[i+front] = j
	}
	return pairs, err
}

func samePaths(marks []mark, have []byte) bool {
	return slices.EqualFunc(marks, have, func(m mark, path byte) bool { return m.path == path })
}

func (r *resolver) digest(ctx context.Context, path string) (cas.Digest, error) {
	c, err := r.b.OpenAt(ctx, path)
	if err != nil {
		return cas.Digest{}, err
	}
	defer c.Close()
	return place.Digest(ctx, io.NewSectionReader(c, 0, c.Size()))
}

// What it costs that a file at the site is none of the delta's, that one of the delta's
// is missing, and that one is there with another content.
const (
	costOwn     = 1
	costMissing = 2
	costDiffers = 1
)

// Ways to a cell.
const (
	wayPair = iota
	wayOwn
	wayMissing
)

// countSame counts up to n, as long as same says so.
func countSame(n int, same func(k int) (bool, error)) (int, error) {
	for k := range n {
		if ok, err := same(k); !ok || err != nil {
			return k, err
		}
	}
	return n, nil
}

// align pairs marks with places in have, in order and at the least cost: -1 for what has
// none. It is the edit distance of R. A. Wagner and M. J. Fischer, "The string-to-string
// correction problem" (1974).
func align(marks []mark, have []byte, compare func(i, j int) (likeness, error)) ([]int, error) {
	pairs := make([]int, len(marks))
	n, m := len(marks), len(have)
	if n == 0 {
		return pairs, nil
	}
	if (n+1)*(m+1) > maxCells {
		return nil, errTooMany
	}
	ways := make([]byte, (n+1)*(m+1))
	row, above := make([]int, m+1), make([]int, m+1)
	for j := range row {
		row[j], ways[j] = j*costOwn, wayOwn
	}
	for i := 1; i <= n; i++ {
		row, above = above, row
		row[0], ways[i*(m+1)] = i*costMissing, wayMissing
		for j := 1; j <= m; j++ {
			best, way := above[j]+costMissing, byte(wayMissing)
			if own := row[j-1] + costOwn; own < best {
				best, way = own, wayOwn
			}
			if marks[i-1].path == have[j-1] && above[j-1] <= best {
				l, err := compare(i-1, j-1)
				if err != nil {
					return nil, err
				}
				if pair := above[j-1] + costDiffers*bit(l == differs); pair <= best {
					best, way = pair, wayPair
				}
			}
			row[j], ways[i*(m+1)+j] = best, way
		}
	}
	for i, j := n, m; i > 0; {
		switch ways[i*(m+1)+j] {
		case wayPair:
			i, j = i-1, j-1
			pairs[i] = j
		case wayOwn:
			j--
		default:
			i--
			pairs[i] = -1
		}
	}
	return pairs, nil
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}
