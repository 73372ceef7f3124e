package delta

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"golang.org/x/sync/semaphore"

	"ferry/cas"
	"ferry/cas/durable"
	"ferry/chunking/coded"
	"ferry/manifest"
	"ferry/manifest/place"
	"ferry/manifest/tree"
)

// Base is what a delta is applied to. It is only read.
type Base interface {
	// Sizes returns the size in bytes of each file, by path.
	Sizes(ctx context.Context) (map[string]int64, error)
	// OpenAt opens the file at path for reading anywhere.
	OpenAt(ctx context.Context, path string) (tree.Content, error)
}

// TreeBase is a base on disk: a directory or an archive.
type TreeBase struct{ tree.Tree }

// Sizes implements Base.
func (b TreeBase) Sizes(ctx context.Context) (map[string]int64, error) {
	sizes := map[string]int64{}
	err := b.Walk(ctx, func(n tree.Node, _ func() (io.ReadCloser, error)) error {
		switch n.Kind {
		case tree.File:
			sizes[n.Path] = n.Size
		case tree.HardLink:
			sizes[n.Path] = sizes[n.Link]
		}
		return nil
	})
	return sizes, err
}

// StoredBase is a base that is a version in an archive.
type StoredBase struct {
	Manifest *manifest.Manifest
	Files    Files
}

// Sizes implements Base.
func (b StoredBase) Sizes(context.Context) (map[string]int64, error) {
	sizes := map[string]int64{}
	for _, e := range b.Manifest.Entries {
		if e.Type == manifest.TypeFile {
			sizes[e.Path] = e.Size
		}
	}
	return sizes, nil
}

// OpenAt implements Base.
func (b StoredBase) OpenAt(ctx context.Context, path string) (tree.Content, error) {
	e, ok := b.Manifest.Find(path)
	if !ok {
		return nil, &cas.NotFoundError{What: "file", Name: path}
	}
	return b.Files.OpenAt(ctx, e)
}

// applier makes target files from one of the delta's bases.
type applier struct {
	d        *Delta
	base     int // of the plan
	files    *tree.Cache
	keep     func(path string) bool // whether a site may have its own there
	programs map[string]*program    // by path; of that base
	streams  map[int]*program       // by number; of that base
	windows  windowCache

	sourcesMu sync.Mutex
	sources   map[int][]int        // by stream
	opened    map[int]tree.Content // by source; they need not be closed
}

// newApplier chooses the base of the delta that b looks like, by the sizes of
// the files that are read. The error is a [*BaseMismatchError] when none fits.
func newApplier(ctx context.Context, d *Delta, b Base, keep func(path string) bool) (*applier, error) {
	sizes, err := b.Sizes(ctx)
	if err != nil {
		return nil, err
	}
	if d.unnamed.n > 0 {
		if d, err = resolveWhole(ctx, d, b, sizes, keep); err != nil {
			return nil, err
		}
	}
	var first error
	var fit []*applier
	for i := range d.plan.bases {
		a := applierFor(ctx, d, i, b, keep)
		misfits := a.misfits(sizes)
		if len(misfits) == 0 {
			fit = append(fit, a)
		} else if first == nil {
			first = misfits[0]
		}
	}
	if len(fit) > 0 {
		return likest(ctx, fit)
	}
	if n := len(d.plan.bases); n > 1 {
		return nil, fmt.Errorf("%w (nor any of the %d others)", first, n-1)
	}
	return nil, first
}

// resolveWhole tells the files that have no name in the delta, after comparing the sizes
// of those that have: another version is told by these.
func resolveWhole(ctx context.Context, d *Delta, b Base, sizes map[string]int64, keep func(path string) bool) (*Delta, error) {
	a := applierFor(ctx, d, 0, b, keep)
	defer a.close()
	if misfits := a.misfits(sizes); len(misfits) > 0 {
		return nil, misfits[0]
	}
	d, missing, err := d.resolve(ctx, b, sizes)
	if err == nil && len(missing) > 0 {
		err = a.mismatch(missing[0], "missing here; the delta does not say its name")
	}
	return d, err
}

// nearestApplier chooses the base of the delta that b looks most like, for a tree
// in which a site may have changed files.
// missing says of what has no name in the delta, and is not there.
func nearestApplier(ctx context.Context, d *Delta, b Base, keep func(path string) bool) (a *applier, missing []string, err error) {
	sizes, err := b.Sizes(ctx)
	if err != nil {
		return nil, nil, err
	}
	if d, missing, err = d.resolve(ctx, b, sizes); err != nil {
		return nil, nil, err
	}
	var best []*applier
	least := 0
	for i := range d.plan.bases {
		a := applierFor(ctx, d, i, b, keep)
		switch n := len(a.misfits(sizes)); {
		case best == nil || n < least:
			best, least = []*applier{a}, n
		case n == least:
			best = append(best, a)
		}
	}
	a, err = likest(ctx, best)
	return a, missing, err
}

// likest returns the applier of the base that the tree holds most files of. It
// reads those that tell the bases apart.
func likest(ctx context.Context, all []*applier) (*applier, error) {
	if len(all) == 1 {
		return all[0], nil
	}
	want := map[string][]cas.Digest{} // by path: what each base has there
	for k, a := range all {
		for _, f := range a.d.need.Bases[a.base].Replaced {
			if f.Digest == nil {
				continue
			}
			if want[f.Path] == nil {
				want[f.Path] = make([]cas.Digest, len(all))
			}
			want[f.Path][k] = *f.Digest
		}
	}
	agree := make([]int, len(all))
	for path, digests := range want {
		if all[0].keep(path) {
			continue
		}
		for k, a := range all { // what a base has like the target is not replaced
			e, ok := a.d.Target.Find(path)
			if digests[k].IsZero() && ok && e.Type == manifest.TypeFile && a.programs[path] == nil {
				digests[k] = e.Digest
			}
		}
		if !slices.ContainsFunc(digests, func(d cas.Digest) bool { return !agrees(d, digests[0]) && !agrees(digests[0], d) }) {
			continue
		}
		h := cas.NewHasher()
		err := all[0].files.With(ctx, path, func(c tree.Content) error { return copySection(h, c, path, 0, c.Size()) })
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		for k, d := range digests {
			if err == nil && agrees(h.Digest(), d) {
				agree[k]++
			}
		}
	}
	all[0].close()
	best := 0
	for k := range all {
		if agree[k] > agree[best] {
			best = k
		}
	}
	return all[best], nil
}

func applierFor(ctx context.Context, d *Delta, base int, b Base, keep func(path string) bool) *applier {
	a := &applier{d: d, base: base, keep: keep, files: manifest.NewMembers(ctx, b.OpenAt), programs: map[string]*program{}, streams: map[int]*program{}, sources: map[int][]int{}}
	a.windows = windowCache{memory: semaphore.NewWeighted(applyMemory), plain: map[int]*cachedWindow{}, uses: map[int]int{}}
	for k, g := range d.plan.programs {
		switch n := len(d.Target.Entries); {
		case g.mask>>base&1 == 0:
		case g.entry >= n:
			a.streams[g.entry-n] = &d.plan.programs[k]
		default:
			a.programs[d.Target.Entries[g.entry].Path] = &d.plan.programs[k]
		}
	}
	a.noteUses()
	return a
}

func (a *applier) close() { a.files.Close() }

func (a *applier) mismatch(path, format string, args ...any) error {
	return &BaseMismatchError{Base: a.d.plan.bases[a.base].label, Path: path, Reason: fmt.Sprintf(format, args...)}
}

// misfits compares the sizes of all files that will be read, and returns an
// error for each that differs.
func (a *applier) misfits(sizes map[string]int64) (errs []error) {
	check := func(path string, want int64) {
		size, ok := sizes[path]
		switch {
		case !ok:
			errs = append(errs, a.mismatch(path, "is missing"))
		case size != want:
			errs = append(errs, a.mismatch(path, "has %d bytes, want %d", size, want))
		}
	}
	read := a.sourcesRead()
	containers := map[string]bool{}
	for i, s := range a.d.plan.sources {
		switch path := s.places[a.base].path; {
		case !read[i]:
		case s.file(a.base):
			check(path, s.size)
		default:
			containers[path] = true
		}
	}
	for _, f := range a.d.need.Bases[a.base].Reads {
		if containers[f.Path] {
			check(f.Path, f.Size)
		}
	}
	for _, e := range a.d.Target.Entries {
		if _, there := sizes[e.Path]; there && a.keep(e.Path) {
			continue
		}
		if e.Type == manifest.TypeFile && e.Size > 0 && a.programs[e.Path] == nil {
			check(e.Path, e.Size)
		}
	}
	return errs
}

// sourcesRead returns the sources that this base's programs read.
func (a *applier) sourcesRead() map[int]bool {
	read := map[int]bool{}
	for _, g := range a.programs {
		a.eachSource(g.ops, func(source int) { read[source] = true })
	}
	return read
}

// eachSource calls fn for each source that the instructions read, or those of
// streams that they name.
func (a *applier) eachSource(ops []op, fn func(source int)) {
	seen := map[int]bool{} // streams
	eachOp(ops, func(o op) {
		switch o.kind {
		case opCopy:
			fn(o.ref)
		case opWindow:
			for _, s := range a.d.plan.windows[o.ref].dict {
				fn(s.source)
			}
		case opStream:
			if seen[o.ref] {
				return
			}
			seen[o.ref] = true
			for _, source := range a.streamSources(o.ref) {
				fn(source)
			}
		}
	})
}

// streamSources returns the sources that a stream reads, worked out once.
func (a *applier) streamSources(stream int) []int {
	a.sourcesMu.Lock()
	defer a.sourcesMu.Unlock()
	sources, ok := a.sources[stream]
	if g := a.streams[stream]; !ok && g != nil {
		set := map[int]bool{}
		a.eachSource(g.ops, func(source int) { set[source] = true }) // which names no streams
		sources = sortedKeys(set)
		a.sources[stream] = sources
	}
	return sources
}

// fill writes the content of a target file. It is a place.Fill.
func (a *applier) fill(ctx context.Context, e manifest.Entry, w io.Writer) error {
	if e.Size == 0 {
		return nil
	}
	g := a.programs[e.Path]
	if g == nil {
		return a.copyWhole(ctx, w, e.Path, e.Size)
	}
	made := &streamCache{}
	defer made.Close()
	return a.ops(ctx, w, g.ops, made)
}

func (a *applier) ops(ctx context.Context, w io.Writer, ops []op, made *streamCache) (err error) {
	if len(ops) == 1 && ops[0].kind != opDeflate {
		return a.op(ctx, w, ops[0], true, made)
	}
	p := coded.NewPipeline(w)
	defer func() { err = cmp.Or(p.Close(), err) }()
	for _, o := range ops {
		if o.kind == opDeflate {
			plain := int64(0)
			for _, inner := range o.inner {
				plain += inner.size
			}
			err = p.Encode(o.size, plain, o.reconstruction, func(w io.Writer) error { return a.ops(ctx, w, o.inner, made) })
		} else {
			err = a.op(ctx, p, o, false, made)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// op does an instruction; alone says that it gives all that w is to hold.
func (a *applier) op(ctx context.Context, w io.Writer, o op, alone bool, made *streamCache) error {
	switch o.kind {
	case opZero:
		return writeZeros(w, o.size)
	case opCopy:
		s := a.d.plan.sources[o.ref]
		path := s.places[a.base].path
		if !s.file(a.base) {
			c, err := a.openStream(o.ref)
			if err != nil {
				return err
			}
			return copySection(w, c, path, o.off, o.size)
		}
		if alone && o.off == 0 && s.size == o.size {
			return a.copyWhole(ctx, w, path, o.size)
		}
		return a.copyRange(ctx, w, path, o.off, o.size)
	case opStream:
		return a.stream(ctx, w, o, alone, made)
	default:
		return a.withWindow(ctx, o.ref, func(plain []byte) error {
			_, err := w.Write(plain[o.off : o.off+o.size])
			return err
		})
	}
}

var zeros [64 << 10]byte

func writeZeros(w io.Writer, n int64) error {
	for n > 0 {
		m, err := w.Write(zeros[:min(n, int64(len(zeros)))])
		if err != nil {
			return err
		}
		n -= int64(m)
	}
	return nil
}

// copyWhole copies a base file, sharing its blocks where the disk can.
func (a *applier) copyWhole(ctx context.Context, w io.Writer, path string, size int64) error {
	return a.files.With(ctx, path, func(c tree.Content) error {
		cloner, ok := w.(place.Cloner)
		f, isFile := c.(interface{ OSFile() *os.File })
		if ok && isFile && cloner.Clone(f.OSFile()) {
			return nil
		}
		return copySection(w, c, path, 0, size)
	})
}

func (a *applier) copyRange(ctx context.Context, w io.Writer, path string, off, size int64) error {
	return a.files.With(ctx, path, func(c tree.Content) error { return copySection(w, c, path, off, size) })
}

// copyBuffers are buffers of copyBuffer bytes.
var copyBuffers = sync.Pool{New: func() any { return new([copyBuffer]byte) }}

const copyBuffer = 512 << 10

func copySection(w io.Writer, c io.ReaderAt, path string, off, size int64) error {
	buf := copyBuffers.Get().(*[copyBuffer]byte)
	defer copyBuffers.Put(buf)
	n, err := io.CopyBuffer(onlyWriter{w}, onlyReader{io.NewSectionReader(c, off, size)}, buf[:])
	if err == nil && n < size {
		err = fmt.Errorf("%s: offset %d: %w", path, off+n, io.ErrUnexpectedEOF)
	}
	return err
}

// onlyWriter and onlyReader hide other methods, so that io.CopyBuffer uses the buffer.
type (
	onlyWriter struct{ io.Writer }
	onlyReader struct{ io.Reader }
)

// readSource appends a piece of a source to dst.
func (a *applier) readSource(ctx context.Context, dst []byte, s span) ([]byte, error) {
	source := a.d.plan.sources[s.source]
	at := source.places[a.base]
	if source.file(a.base) {
		return a.files.Read(ctx, dst, at.path, s.off, s.size)
	}
	c, err := a.openStream(s.source)
	if err != nil {
		return nil, err
	}
	n := len(dst)
	dst = append(dst, make([]byte, s.size)...)
	m, err := c.ReadAt(dst[n:], s.off)
	if int64(m) < s.size {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return dst, fmt.Errorf("%s: a member: %w", at.path, err)
	}
	return dst, nil
}

// openStream opens a source that is no file of this base.
func (a *applier) openStream(source int) (tree.Content, error) {
	at := a.d.plan.sources[source].places[a.base]
	if at.path == "" {
		return nil, fmt.Errorf("%w: source %d does not stand in this base", ErrInvalid, source)
	}
	a.sourcesMu.Lock()
	defer a.sourcesMu.Unlock()
	c, ok := a.opened[source]
	if !ok {
		c = at.at.Open(a.files, at.path)
		if a.opened == nil {
			a.opened = map[int]tree.Content{}
		}
		a.opened[source] = c
	}
	return c, nil
}

// stream writes a piece of a stream of the target.
func (a *applier) stream(ctx context.Context, w io.Writer, o op, alone bool, made *streamCache) error {
	g := a.streams[o.ref]
	if g == nil {
		return fmt.Errorf("%w: nothing makes stream %d for this base", ErrInvalid, o.ref)
	}
	size := a.d.plan.streams[o.ref]
	if o.off == 0 && o.size == size {
		if !alone {
			w = onlyWriter{w} // which cannot be given blocks of a base file: it is not all that it holds
		}
		return a.ops(ctx, w, g.ops, nil)
	}
	return made.write(w, o, size, func(w io.Writer) error { return a.ops(ctx, w, g.ops, nil) })
}

// maxBetween bounds a stream of what stands between members, in bytes; keptStream a
// stream that is kept in memory while a file is made, and keptStreams those in all.
const (
	maxBetween  = 8 << 20
	keptStream  = 4 << 20
	keptStreams = 32 << 20
)

// streamCache keeps streams that a file is made of in pieces, each of them made once:
// some in memory, the others in a temporary file. It is for one file and one goroutine
// at a time. Close it.
type streamCache struct {
	kept    map[int][]byte
	size    int64
	spilled map[int]int64 // where they are in file
	file    *os.File
	end     int64
}

// write writes the piece of a stream that o wants; size is that of the whole, which
// make makes.
func (c *streamCache) write(w io.Writer, o op, size int64, make func(w io.Writer) error) error {
	if off, ok := c.spilled[o.ref]; ok {
		return copySection(w, c.file, "a stream", off+o.off, o.size)
	}
	data, ok := c.kept[o.ref]
	if !ok && (size > keptStream || c.size+size > keptStreams) {
		if err := c.spill(o.ref, size, make); err != nil {
			return err
		}
		return c.write(w, o, size, make)
	}
	if !ok {
		var b bytes.Buffer
		b.Grow(int(size))
		if err := make(&b); err != nil {
			return err
		}
		if c.kept == nil {
			c.kept = map[int][]byte{}
		}
		data = b.Bytes()
		c.kept[o.ref] = data
		c.size += size
	}
	if o.off+o.size > int64(len(data)) {
		return fmt.Errorf("%w: stream %d is shorter than it should be", ErrInvalid, o.ref)
	}
	_, err := w.Write(data[o.off : o.off+o.size])
	return err
}

// spill makes a stream in the file.
func (c *streamCache) spill(stream int, size int64, make func(w io.Writer) error) (err error) {
	if c.file == nil {
		if c.file, err = os.CreateTemp("", durable.TempPattern); err != nil {
			return err
		}
		c.spilled = map[int]int64{}
	}
	if err := make(io.NewOffsetWriter(c.file, c.end)); err != nil {
		return err
	}
	c.spilled[stream] = c.end
	c.end += size
	return nil
}

// Close removes what was kept.
func (c *streamCache) Close() {
	if c.file != nil {
		c.file.Close()
		os.Remove(c.file.Name())
	}
}

// diagnose finds out why a file could not be made: a base that differs where it
// was read is a [*BaseMismatchError]; otherwise the delta itself is damaged.
func (a *applier) diagnose(ctx context.Context, e manifest.Entry, cause error) error {
	if ctx.Err() != nil {
		return cause
	}
	if a.programs[e.Path] == nil {
		if digest, err := a.digest(ctx, e.Path, 0, e.Size); err == nil && !agrees(digest, e.Digest) {
			return a.mismatch(e.Path, "its content differs")
		}
		return cause
	}
	used := map[string]bool{}
	a.eachSource(a.programs[e.Path].ops, func(source int) { used[a.d.plan.sources[source].places[a.base].path] = true })
	for _, f := range a.d.need.Bases[a.base].Reads {
		if !used[f.Path] {
			continue
		}
		for _, r := range f.Ranges {
			digest, err := a.digest(ctx, f.Path, r.Off, r.Size)
			if err != nil {
				return a.mismatch(f.Path, "%v", err)
			}
			if !agrees(digest, r.Digest) {
				return a.mismatch(f.Path, "bytes %d to %d differ", r.Off, r.Off+r.Size)
			}
		}
	}
	return fmt.Errorf("%w: %s: %w (the base is right; get the delta again)", ErrInvalid, e.Path, cause)
}

func (a *applier) digest(ctx context.Context, path string, off, size int64) (cas.Digest, error) {
	h := cas.NewHasher()
	err := a.files.With(ctx, path, func(c tree.Content) error { return copySection(h, c, path, off, size) })
	return h.Digest(), err
}
