package manifest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"ferry/cas"
	"ferry/manifest/tree"
)

// Finding is a difference between a tree and the manifest that it should match.
type Finding struct {
	Kind   FindingKind `json:"kind"`
	Path   string      `json:"path"`
	Detail string      `json:"detail,omitempty"`
	// Ranges are the damaged parts of a changed file, where the store knows how
	// the file is cut.
	Ranges []Range `json:"ranges,omitempty"`
	// Members are the damaged members of a changed container file, where the store
	// knows them.
	Members []string `json:"members,omitempty"`
}

// Range is the bytes [Off, End) of a file.
type Range struct {
	Off int64 `json:"off"`
	End int64 `json:"end"`
}

// FindingKind says what a finding is about.
type FindingKind string

// The kinds of findings.
const (
	FindMissing    FindingKind = "missing"    // not there
	FindChanged    FindingKind = "changed"    // other content, or another link target
	FindType       FindingKind = "type"       // a file where a folder should be, and so on
	FindMode       FindingKind = "mode"       // may be executed and should not, or the reverse
	FindExtra      FindingKind = "extra"      // not in the manifest
	FindUnreadable FindingKind = "unreadable" // cannot be read, or its archive is damaged
)

// VerifyOptions say how to verify.
type VerifyOptions struct {
	// Chunks tells how a file should be cut, to find which parts are damaged;
	// nil, or an error from it, leaves the parts unknown.
	Chunks func(ctx context.Context, e Entry) ([]Chunk, error)
	// Members tells which members of a container file are damaged; nil, or an error
	// from it, leaves them unknown.
	Members func(ctx context.Context, e Entry, damaged io.Reader) ([]string, error)
	// IgnoreModes accepts any mode, for systems that have none.
	IgnoreModes bool
	// Progress is told the bytes read; nil is allowed.
	Progress cas.Counter
}

// VerifyReport sums a verification up.
type VerifyReport struct {
	Files    int       `json:"files"` // verified, sound or not
	Size     int64     `json:"size_bytes"`
	Findings []Finding `json:"findings"`
}

// Verify compares a tree with a manifest: every path, every byte. The error is
// of the verification itself; what it found is in the report, sorted by path.
func Verify(ctx context.Context, t tree.Tree, m *Manifest, opts VerifyOptions) (*VerifyReport, error) {
	v := &verifier{t: t, m: m, opts: opts, seen: map[string]found{}, report: &VerifyReport{Findings: []Finding{}}}
	if err := v.walk(ctx); err != nil {
		return nil, err
	}
	v.missing()
	slices.SortFunc(v.report.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Kind, b.Kind))
	})
	return v.report, nil
}

type verifier struct {
	t      tree.Tree
	m      *Manifest
	opts   VerifyOptions
	dirs   map[string]bool // folders that follow from the manifest
	seen   map[string]found
	report *VerifyReport
}

// found is a file of the tree, for hard links to it.
type found struct {
	size   int64
	digest cas.Digest
	exec   bool
}

func (v *verifier) find(kind FindingKind, path, format string, args ...any) {
	v.report.Findings = append(v.report.Findings, Finding{Kind: kind, Path: path, Detail: fmt.Sprintf(format, args...)})
}

func (v *verifier) walk(ctx context.Context) error {
	v.dirs = map[string]bool{}
	for _, e := range v.m.Entries {
		for dir := parent(e.Path); dir != "" && !v.dirs[dir]; dir = parent(dir) {
			v.dirs[dir] = true
		}
	}
	return v.t.Walk(ctx, func(n tree.Node, open func() (io.ReadCloser, error)) error {
		if _, twice := v.seen[n.Path]; twice && n.Kind != tree.Dir {
			v.find(FindExtra, n.Path, "stands twice")
			return nil
		}
		e, ok := v.m.Find(n.Path)
		if !ok && n.Kind == tree.Dir && v.dirs[n.Path] {
			return nil
		}
		v.seen[n.Path] = found{}
		if !ok {
			v.find(FindExtra, n.Path, "not in the manifest")
			return nil
		}
		return v.compare(ctx, n, e, open)
	})
}

func (v *verifier) compare(ctx context.Context, n tree.Node, e Entry, open func() (io.ReadCloser, error)) error {
	kinds := map[tree.Kind]Type{tree.File: TypeFile, tree.HardLink: TypeFile, tree.Dir: TypeDir, tree.Link: TypeLink}
	if kinds[n.Kind] != e.Type {
		v.find(FindType, e.Path, "should be a %s", e.Type)
		return nil
	}
	switch n.Kind {
	case tree.Link:
		if n.Link != e.Link {
			v.find(FindChanged, e.Path, "links to %q, should link to %q", n.Link, e.Link)
		}
	case tree.HardLink:
		v.seen[n.Path] = v.seen[n.Link]
		v.compareFile(e, v.seen[n.Link])
	case tree.File:
		return v.readFile(ctx, n, e, open)
	}
	return nil
}

// readFile reads a file, and what is behind its end too, so that sizes are told.
func (v *verifier) readFile(ctx context.Context, n tree.Node, e Entry, open func() (io.ReadCloser, error)) error {
	v.report.Files++
	v.report.Size += e.Size
	r, err := open()
	if err != nil {
		v.find(FindUnreadable, e.Path, "%v", err)
		return nil
	}
	defer r.Close()
	h := cas.NewHasher()
	ranges := newRangeFinder(ctx, v.opts, e)
	size, err := io.CopyBuffer(io.MultiWriter(h, ranges), onlyReader{tree.UntilDone(ctx, r)}, make([]byte, 256<<10))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		v.find(FindUnreadable, e.Path, "offset %d: %v", size, err)
		return nil
	}
	have := found{size, h.Digest(), n.Exec}
	v.seen[n.Path] = have
	if !v.compareFile(e, have) {
		f := &v.report.Findings[len(v.report.Findings)-1]
		f.Ranges = ranges.damaged()
		f.Members = v.members(ctx, e)
	}
	return ctx.Err()
}

// members reads a damaged file again, to name its damaged members.
func (v *verifier) members(ctx context.Context, e Entry) []string {
	if v.opts.Members == nil || v.t.Sequential() {
		return nil
	}
	r, err := v.t.Open(ctx, e.Path)
	if err != nil {
		return nil
	}
	defer r.Close()
	names, err := v.opts.Members(ctx, e, r)
	if err != nil {
		return nil
	}
	return names
}

// compareFile reports whether the content is right.
func (v *verifier) compareFile(e Entry, have found) bool {
	if have.exec != e.Exec && !v.opts.IgnoreModes {
		v.find(FindMode, e.Path, "executable %t, should be %t", have.exec, e.Exec)
	}
	switch {
	case have.digest == e.Digest && have.size == e.Size:
		return true
	case have.size != e.Size:
		v.find(FindChanged, e.Path, "has %d bytes, should have %d", have.size, e.Size)
	default:
		v.find(FindChanged, e.Path, "has other content of the same length")
	}
	return false
}

func (v *verifier) missing() {
	for _, e := range v.m.Entries {
		if _, ok := v.seen[e.Path]; !ok {
			v.find(FindMissing, e.Path, "%s", e.Type)
		}
	}
}

// rangeFinder compares a file with how it should be cut, while it is read.
type rangeFinder struct {
	chunks  []Chunk
	known   bool
	h       *cas.Hasher
	left    int64 // bytes of chunks[0] not yet seen
	zero    bool  // all seen of chunks[0] was zero
	bad     []Range
	reached int64 // offset in the file
	opts    VerifyOptions
}

func newRangeFinder(ctx context.Context, opts VerifyOptions, e Entry) *rangeFinder {
	f := &rangeFinder{h: cas.NewHasher(), opts: opts}
	if opts.Chunks == nil {
		return f
	}
	chunks, err := opts.Chunks(ctx, e)
	if err != nil || len(chunks) == 0 {
		return f
	}
	f.chunks, f.known = chunks, true
	f.begin()
	return f
}

func (f *rangeFinder) begin() {
	f.h.Reset()
	f.zero = true
	f.left = 0
	if len(f.chunks) > 0 {
		f.left = f.chunks[0].Size
	}
}

// Write takes the next bytes of the file. It never fails.
func (f *rangeFinder) Write(p []byte) (int, error) {
	n := len(p)
	if f.opts.Progress != nil {
		f.opts.Progress.Add(int64(n))
	}
	for len(p) > 0 && len(f.chunks) > 0 {
		if gap := f.chunks[0].Off - f.reached; gap > 0 { // no chunk tells of it
			m := min(int64(len(p)), gap)
			p, f.reached = p[m:], f.reached+m
			continue
		}
		m := min(int64(len(p)), f.left)
		f.take(p[:m])
		p, f.reached = p[m:], f.reached+m
		if f.left -= m; f.left == 0 {
			f.end()
		}
	}
	return n, nil
}

func (f *rangeFinder) take(p []byte) {
	if !f.chunks[0].Key.IsZero() {
		f.h.Write(p)
		return
	}
	for _, b := range p {
		if b != 0 {
			f.zero = false
			return
		}
	}
}

// end judges the chunk that was seen whole.
func (f *rangeFinder) end() {
	c := f.chunks[0]
	sound := f.zero
	if !c.Key.IsZero() {
		sound = f.h.Digest() == c.Key
	}
	if !sound {
		f.damage(c.Off, c.Off+c.Size)
	}
	f.chunks = f.chunks[1:]
	f.begin()
}

func (f *rangeFinder) damage(off, end int64) {
	if n := len(f.bad); n > 0 && f.bad[n-1].End == off {
		f.bad[n-1].End = end
		return
	}
	f.bad = append(f.bad, Range{off, end})
}

// damaged returns the ranges of the file that should be otherwise, what is
// missing at its end included.
func (f *rangeFinder) damaged() []Range {
	if !f.known {
		return nil
	}
	for _, c := range f.chunks {
		f.damage(c.Off, c.Off+c.Size)
	}
	f.chunks = nil
	return f.bad
}

// Problem is a finding of Archive.Check: one of the store's, or a version that
// cannot be given back whole.
type Problem struct {
	cas.Problem
	Version string `json:"version,omitempty"`
	Path    string `json:"path,omitempty"`
}

// ProblemIncomplete is the kind of a problem with a version.
const ProblemIncomplete = "incomplete-version"

// Check checks the store, as cas.Store.Check does, and that every version in the
// catalogue has all its chunks.
func (a *Archive) Check(ctx context.Context, readData bool, progress cas.Counter, report func(Problem)) (cas.CheckReport, error) {
	versions, err := a.Versions(ctx)
	if err != nil {
		return cas.CheckReport{}, err
	}
	// Versions are looked at while packs are read, as if the store were sound.
	hopeful, cancel := context.WithCancel(ctx)
	defer cancel()
	sound := make(chan bool, 1)
	go func() { sound <- a.allThere(hopeful, versions) }()

	verdict := map[cas.Digest]error{} // on chunks that were read
	lost := false                     // packs are, with chunks that have no verdict
	sum, err := a.store.Check(ctx, readData, progress, func(p cas.Problem) {
		if p.Key != nil {
			verdict[*p.Key] = fmt.Errorf("chunk %s: %w", p.Key.Short(), cas.ErrCorrupt)
		}
		lost = lost || p.Kind == cas.ProblemMissingPack || p.Kind == cas.ProblemDamagedPack
		report(Problem{Problem: p})
	})
	if err != nil || lost || len(verdict) > 0 {
		cancel()
	}
	if all := <-sound; err != nil || all && !lost && len(verdict) == 0 {
		return sum, err
	}
	chunk := func(key cas.Digest) error {
		if err, known := verdict[key]; known {
			return err
		}
		if !lost {
			return a.isThere(ctx, key)
		}
		_, err := a.store.Get(ctx, key)
		verdict[key] = err
		return err
	}
	for _, v := range versions {
		n, err := a.checkVersion(ctx, v, chunk, report)
		if err != nil {
			return sum, err
		}
		sum.Problems += n
	}
	return sum, nil
}

// allThere reports whether every version has all its chunks, by the index.
func (a *Archive) allThere(ctx context.Context, versions []Version) bool {
	todo := make(chan Version, len(versions))
	seen := map[cas.Digest]bool{}
	for _, v := range versions {
		if !seen[v.Manifest] {
			seen[v.Manifest] = true
			todo <- v
		}
	}
	close(todo)
	looked := &digestSet{m: map[cas.Digest]struct{}{}}
	var missing atomic.Bool
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for v := range todo {
				if err := a.versionThere(ctx, v, looked); err != nil {
					missing.Store(true)
				}
			}
		})
	}
	wg.Wait()
	return !missing.Load()
}

// versionThere returns an error unless the index knows all chunks of a version's
// files, those left out that were looked at before.
func (a *Archive) versionThere(ctx context.Context, v Version, looked *digestSet) error {
	m, err := a.Manifest(ctx, v.Manifest)
	if err != nil {
		return err
	}
	for _, e := range m.Entries {
		if e.Type != TypeFile || !looked.add(e.Digest) {
			continue
		}
		n, ok, err := a.store.Find(e.Digest)
		if err != nil {
			return err
		}
		if ok && n == e.Size {
			continue // it is one chunk, as most are
		}
		err = a.liveFile(ctx, e, func(key cas.Digest) error { return a.isThere(ctx, key) }, func(cas.Digest) error { return nil })
		if err != nil {
			return err
		}
	}
	return nil
}

// digestSet is a set that several goroutines use.
type digestSet struct {
	mu sync.Mutex
	m  map[cas.Digest]struct{}
}

// add reports whether d was not in the set.
func (s *digestSet) add(d cas.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.m)
	s.m[d] = struct{}{}
	return len(s.m) > n
}

// isThere returns an error unless the index knows the chunk.
func (a *Archive) isThere(ctx context.Context, key cas.Digest) error {
	_, err := a.store.Size(key)
	return cmp.Or(err, ctx.Err())
}

// checkVersion reports the files of a version that lack chunks.
func (a *Archive) checkVersion(ctx context.Context, v Version, chunk func(cas.Digest) error, report func(Problem)) (int, error) {
	n := 0
	incomplete := func(path string, err error) {
		n++
		report(Problem{cas.Problem{Kind: ProblemIncomplete, Object: v.Ref.dir(), Detail: err.Error()}, v.Ref.String(), path})
	}
	isFinding := func(err error) bool {
		return errors.Is(err, cas.ErrNotFound) || errors.Is(err, cas.ErrCorrupt) || errors.Is(err, ErrInvalid)
	}
	m, err := a.Manifest(ctx, v.Manifest)
	if isFinding(err) {
		incomplete("", err)
		return n, nil
	}
	if err != nil {
		return n, err
	}
	for _, e := range m.Entries {
		if e.Type != TypeFile {
			continue
		}
		err := a.liveFile(ctx, e, chunk, func(cas.Digest) error { return nil })
		if isFinding(err) {
			incomplete(e.Path, err)
			continue
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}
