package delta

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"ferry/cas"
	"ferry/manifest"
)

// segment is a piece of a target file: a copy of base bytes, zeros, or literal
// bytes with the base pieces that they are likely to resemble.
type segment struct {
	kind   opKind // opCopy, opZero, or opWindow for literal bytes
	size   int64
	from   cas.Digest // opCopy: the base file
	off    int64      // opCopy: offset in it
	at     int64      // opWindow: offset in the target file
	keys   []keyed    // opWindow: the chunks of the literal, in order
	origin *manifest.Entry
}

// keyed is a chunk of a literal.
type keyed struct {
	key  cas.Digest
	size int64
}

// standing is where a chunk stands in a base.
type standing struct {
	entry int // index into the base's entries
	off   int64
}

// matcher finds what a base has of target files. Memory is about 150 bytes for
// each chunk of the base.
type matcher struct {
	base    *expanded
	chunks  map[cas.Digest]standing // first place of each chunk
	byPath  map[string]int
	byName  map[string][]int // files by base name
	byShape map[string][]int // by shape of it
	byDig   map[cas.Digest]int
	cuts    map[cas.Digest][]manifest.Chunk // of each base file

	// readable reports whether the content of a base file can be read here, of this or
	// another base.
	readable func(ctx context.Context, digest cas.Digest) (bool, error)

	places   places
	pairs    map[string]string // container files of the target by path, and those of the base they come from
	paired   map[string]string // the other way
	sketches map[int]sketch    // of files that the target lacks; nil until one is wanted

	lastFile   cas.Digest // whose chunks are in lastChunks
	lastChunks map[cas.Digest]int64
}

// newMatcher looks at a base, but for files that skip reports: those are not read.
func newMatcher(ctx context.Context, v Version, skip func(path string) bool) (*matcher, error) {
	m := &matcher{base: expand(v), places: places{map[cas.Digest]standing{}, map[int][]betweenPiece{}, map[int][]manifest.Slice{}}, chunks: map[cas.Digest]standing{}, byPath: map[string]int{}, byName: map[string][]int{}, byShape: map[string][]int{}, byDig: map[cas.Digest]int{}, cuts: map[cas.Digest][]manifest.Chunk{}, pairs: map[string]string{}, paired: map[string]string{}}
	m.readable = m.has
	for i, e := range v.Manifest.Entries {
		if skip(e.Path) {
			continue
		}
		if err := m.expand(ctx, i); err != nil {
			return nil, fmt.Errorf("base %s: %w", v.Label, err)
		}
	}
	// What stands as it is comes first: it is read sooner than what must be decoded.
	order := make([]int, 0, len(m.base.entries))
	for _, coded := range []bool{false, true} {
		for i := range m.base.entries {
			if m.base.depth(i) > 0 == coded {
				order = append(order, i)
			}
		}
	}
	for _, i := range order {
		e := m.base.entries[i]
		if e.Type != manifest.TypeFile || e.Size == 0 || i < len(v.Manifest.Entries) && skip(e.Path) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if !m.base.content(i) {
			m.byDig[e.Digest] = i
			continue
		}
		m.byName[path.Base(e.Path)] = append(m.byName[path.Base(e.Path)], i)
		m.byShape[shape(e.Path)] = append(m.byShape[shape(e.Path)], i)
		chunks, err := m.base.chunks(ctx, i)
		if err != nil {
			return nil, fmt.Errorf("base %s: %w", v.Label, err)
		}
		m.index(i, chunks)
	}
	return m, nil
}

// expand makes the streams of a container file of the base entries.
func (m *matcher) expand(ctx context.Context, i int) error {
	if e := m.base.entries[i]; e.Type != manifest.TypeFile || e.Size == 0 {
		return nil
	}
	r, err := m.base.recipe(ctx, i)
	if err != nil || r == nil {
		return err
	}
	for k, s := range r.Streams {
		if !s.Between() { // of what is between them, only pieces are looked at
			m.base.addStream(i, k)
		}
	}
	m.places.note(m.base, i, r, r.Layout, i, nil)
	return nil
}

// addPieces makes pieces of what stands between members of the base an entry.
func (m *matcher) addPieces(file int, path string, data []byte, at *manifest.Location) {
	digest := cas.Sum(data)
	m.index(m.base.addPieces(file, m.basePath(path), data, digest, at), []manifest.Chunk{{Size: int64(len(data)), Key: digest}})
}

// index makes an entry of the base known, cut like that.
func (m *matcher) index(i int, chunks []manifest.Chunk) {
	e := m.base.entries[i]
	m.byPath[e.Path] = i
	if _, ok := m.byDig[e.Digest]; ok {
		return
	}
	m.byDig[e.Digest] = i
	m.cuts[e.Digest] = chunks
	for _, c := range chunks {
		if _, ok := m.chunks[c.Key]; !ok && !c.Key.IsZero() {
			m.chunks[c.Key] = standing{i, c.Off}
		}
	}
}

// segments matches an entry of the target, given how it is cut.
func (m *matcher) segments(ctx context.Context, target *expanded, i int, chunks []manifest.Chunk) ([]segment, error) {
	e := target.entries[i]
	if k, ok := m.byDig[e.Digest]; ok {
		return []segment{{kind: opCopy, size: e.Size, from: m.base.entries[k].Digest}}, nil
	}
	origin, err := m.origin(ctx, target, i, chunks)
	if err != nil {
		return nil, err
	}
	against, err := m.against(ctx, origin)
	if err != nil {
		return nil, err
	}
	var segs []segment
	for _, c := range chunks {
		at, found := m.find(c.Key, origin)
		switch {
		case c.Key.IsZero():
			segs = append(segs, segment{kind: opZero, size: c.Size})
		case found:
			segs = appendCopy(segs, m.base.entries[at.entry].Digest, at.off, c.Size)
		default:
			segs = appendLiteral(segs, c, against)
		}
	}
	return segs, nil
}

// has reports whether this base has the content of that digest, to be read here.
func (m *matcher) has(ctx context.Context, digest cas.Digest) (bool, error) {
	i, ok := m.byDig[digest]
	if !ok {
		return false, nil
	}
	return m.base.available(ctx, i)
}

// against returns what new bytes are coded against: the file that they come from, if
// it can be read here.
func (m *matcher) against(ctx context.Context, origin *manifest.Entry) (*manifest.Entry, error) {
	if origin == nil {
		return nil, nil
	}
	ok, err := m.readable(ctx, origin.Digest)
	if !ok || err != nil {
		return nil, err
	}
	return origin, nil
}

// find returns where a chunk stands in the base: in the file that the target file
// comes from, if it can.
func (m *matcher) find(key cas.Digest, origin *manifest.Entry) (standing, bool) {
	if origin != nil {
		if off, ok := m.within(origin)[key]; ok {
			return standing{m.byDig[origin.Digest], off}, true
		}
	}
	at, ok := m.chunks[key]
	return at, ok
}

// within returns where the chunks of a base file stand in it.
func (m *matcher) within(e *manifest.Entry) map[cas.Digest]int64 {
	if m.lastFile == e.Digest {
		return m.lastChunks
	}
	m.lastFile, m.lastChunks = e.Digest, map[cas.Digest]int64{}
	for _, c := range m.cuts[e.Digest] {
		if _, ok := m.lastChunks[c.Key]; !ok && !c.Key.IsZero() {
			m.lastChunks[c.Key] = c.Off
		}
	}
	return m.lastChunks
}

// appendCopy adds a copy, lengthening the one before where it goes on.
func appendCopy(segs []segment, from cas.Digest, off, size int64) []segment {
	if n := len(segs); n > 0 {
		if last := &segs[n-1]; last.kind == opCopy && last.from == from && last.off+last.size == off {
			last.size += size
			return segs
		}
	}
	return append(segs, segment{kind: opCopy, size: size, from: from, off: off})
}

func appendLiteral(segs []segment, c manifest.Chunk, origin *manifest.Entry) []segment {
	if n := len(segs); n > 0 && segs[n-1].kind == opWindow {
		segs[n-1].size += c.Size
		segs[n-1].keys = append(segs[n-1].keys, keyed{c.Key, c.Size})
		return segs
	}
	return append(segs, segment{kind: opWindow, size: c.Size, at: c.Off, keys: []keyed{{c.Key, c.Size}}, origin: origin})
}

// origin picks the base file that a target file most likely came from: the one
// of the same path, else the one that shares the most chunks with it, or if it shares few,
// one whose name differs in numbers only, else the one that resembles it most, else one of the same name, in the most similar folder. It
// returns nil when nothing fits.
func (m *matcher) origin(ctx context.Context, target *expanded, i int, chunks []manifest.Chunk) (*manifest.Entry, error) {
	e := target.entries[i]
	if i, ok := m.byPath[m.basePath(e.Path)]; ok {
		return &m.base.entries[i], nil
	}
	votes := map[int]int64{}
	for _, c := range chunks {
		if at, ok := m.chunks[c.Key]; ok {
			votes[at.entry] += c.Size
		}
	}
	best, most := -1, int64(0)
	for i, n := range votes {
		if n > most || n == most && i < best {
			best, most = i, n
		}
	}
	if most < e.Size/8 { // what is packed has little in common with what it comes from
		if k := m.release(e, target.depth(i)); k >= 0 {
			best = k
		}
	}
	if best < 0 {
		var err error
		if best, err = m.resembling(ctx, target, i); err != nil {
			return nil, err
		}
	}
	if best < 0 {
		best = m.nearest(m.byName[path.Base(e.Path)], e.Path, target.depth(i))
	}
	if best < 0 {
		return nil, nil
	}
	return &m.base.entries[best], nil
}

// pair notes the base's container file that a target's of another name comes from: the
// one that most bytes of its members stand in.
func (m *matcher) pair(e manifest.Entry, r *manifest.Recipe, ids []cas.Digest) {
	if _, ok := m.byPath[e.Path]; ok {
		return
	}
	if _, ok := m.pairs[e.Path]; ok { // by name
		return
	}
	votes := map[int]int64{}
	for i, s := range r.Streams {
		at, ok := m.places.members[ids[i]]
		if !ok {
			continue
		}
		if p, ok := m.base.part(at.entry); ok {
			at.entry = p.file
		}
		votes[at.entry] += s.Size
	}
	best, most := "", int64(0)
	for _, i := range sortedKeys(votes) {
		if votes[i] > most {
			best, most = m.base.entries[i].Path, votes[i]
		}
	}
	if best != "" {
		m.pairs[e.Path], m.paired[best] = best, e.Path
	}
}

// basePath returns where in the base something is to be looked for that stands at path
// in the target.
func (m *matcher) basePath(path string) string { return inPair(m.pairs, path) }

// targetPath is the inverse of basePath.
func (m *matcher) targetPath(path string) string { return inPair(m.paired, path) }

// pairDebs notes which Debian packages of the target are another release of one of the
// base.
func (m *matcher) pairDebs(pairs []DebPair) {
	for _, p := range pairs {
		if p.Base.Path != "" && p.Target.Path != "" && p.Base.Path != p.Target.Path {
			m.pairs[p.Target.Path], m.paired[p.Base.Path] = p.Base.Path, p.Target.Path
		}
	}
}

func inPair(pairs map[string]string, path string) string {
	if other, ok := pairs[path]; ok {
		return other
	}
	if file, member, ok := strings.Cut(path, "\x00/"); ok {
		if other, ok := pairs[file]; ok {
			return other + "\x00/" + member
		}
	}
	return path
}

// maxReleases is how many base files may have a name that differs in numbers only: of more,
// the numbers are not of a release.
const maxReleases = 8

// release returns a base file of about the same size whose name differs from e's in numbers
// only, if there are few; else -1.
func (m *matcher) release(e manifest.Entry, depth int) int {
	like := m.byShape[shape(e.Path)]
	if len(like) > maxReleases {
		return -1
	}
	like = slices.DeleteFunc(slices.Clone(like), func(i int) bool {
		size := m.base.entries[i].Size
		return size < e.Size/2 || size/2 > e.Size
	})
	return m.nearest(like, e.Path, depth)
}

// nearest returns the one of these base files whose path has most in common with p, or -1:
// one that must be decoded, only if it is nearer, and stands in no more coded members than
// p's.
func (m *matcher) nearest(files []int, p string, depth int) int {
	best, most := [2]int{-1, -1}, [2]int{-1, -1} // of those as they are, and of those coded
	for _, i := range files {
		k := 0
		if d := m.base.depth(i); d > depth {
			continue
		} else if d > 0 {
			k = 1
		}
		if n := commonBytes(m.base.entries[i].Path, p); n > most[k] {
			best[k], most[k] = i, n
		}
	}
	switch {
	case best[0] < 0:
		return best[1]
	case best[1] < 0 || commonBack(m.base.entries[best[0]].Path, p) >= commonBack(m.base.entries[best[1]].Path, p):
		return best[0]
	}
	return best[1]
}

// commonBytes counts the bytes that a and b share at the front and at the back.
func commonBytes(a, b string) int {
	n := commonFront(a, b)
	return n + commonBack(a[n:], b[n:])
}

// commonFront counts the bytes that a and b share at the front.
func commonFront[T string | []byte](a, b T) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// commonBack counts the bytes that a and b share at the back.
func commonBack[T string | []byte](a, b T) int {
	n := 0
	for n < len(a) && n < len(b) && a[len(a)-1-n] == b[len(b)-1-n] {
		n++
	}
	return n
}

// sameSegments reports whether two matchings give the same program: then bases
// share it.
func sameSegments(a, b []segment) bool {
	return slices.EqualFunc(a, b, func(x, y segment) bool {
		if x.kind != y.kind || x.size != y.size || x.from != y.from || x.off != y.off || x.at != y.at {
			return false
		}
		if x.origin == nil || y.origin == nil {
			return x.origin == y.origin
		}
		return x.origin.Digest == y.origin.Digest
	})
}
