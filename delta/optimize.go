package delta

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/semaphore"

	"ferry/cas"
	"ferry/delta/codec"
	"ferry/manifest"
)

// OptimizeOptions say how to optimize an archive.
type OptimizeOptions struct {
	// Names are the packages whose versions are looked at; none means all.
	Names  []string
	Effort codec.Effort
	// Progress is told the bytes of files looked at; nil is allowed.
	Progress cas.Counter
	// Total, if set, is called once with the bytes that Progress will be told.
	Total func(int64)
}

// OptimizeReport says what an optimization did. Sizes are bytes.
type OptimizeReport struct {
	Files    int   `json:"files"`          // looked at: releases of a file after its first
	Derived  int   `json:"derived_files"`  // now made of an earlier release
	Replaced int64 `json:"replaced_bytes"` // stored bytes that the next prunes free, about
	Added    int64 `json:"added_bytes"`    // stored bytes that were written
}

// Optimize codes releases of a file against an earlier release of it in the store,
// where that takes half the space or less. The chunks stay what they are, and every
// one can be read from the store alone; what they took before is freed by the next
// prunes. Interrupted, it keeps what it has finished, and the same call goes on.
func Optimize(ctx context.Context, a *manifest.Archive, opts OptimizeOptions) (OptimizeReport, error) {
	var report OptimizeReport
	jobs, err := lineages(ctx, a, opts.Names)
	if err != nil {
		return report, err
	}
	total := int64(0)
	for _, l := range jobs {
		report.Files += len(l.releases) - 1
		for _, f := range l.releases[1:] {
			total += f.Size
		}
	}
	if opts.Total != nil {
		opts.Total(total)
	}
	o, err := a.Store().Optimize(ctx)
	if err != nil {
		return report, err
	}
	defer o.Abort()
	if err := optimizeAll(ctx, a, o, jobs, opts, &report); err != nil {
		return report, err
	}
	added, err := o.Commit()
	report.Added = added.StoredBytes
	return report, err
}

// derivable bounds the sizes in bytes of files that are worth deriving.
const minDerivable, maxDerivable = 8 << 10, codec.MaxSize

// storedFile is a file, or a member of a container file, as a store holds it.
type storedFile struct {
	manifest.Entry
	runs []manifest.Run
}

// refs lists what the file is made of.
func (f storedFile) refs() []cas.Ref {
	refs := make([]cas.Ref, len(f.runs))
	for i, run := range f.runs {
		refs[i] = cas.Ref{Key: run.Key, Size: run.Size}
	}
	return refs
}

// releases is a file in its releases, the oldest first. Some stay what they are, and each
// of the others is derived from one of those before it, so that reading any needs no chain
// of patches. A release also has chunks of those between. Where files whose names differ
// by a number stand side by side, releases of several are here.
type releases struct {
	releases []storedFile
	derived  []*derivedRelease // what is to be derived, in order
}

// derivedRelease is a release that pays to be derived.
type derivedRelease struct {
	d      cas.Derivation
	target []cas.Ref
}

// lineages finds the releases of each file that has several, in packages of those names,
// or in all.
func lineages(ctx context.Context, a *manifest.Archive, names []string) ([]*releases, error) {
	versions, err := a.Versions(ctx)
	if err != nil {
		return nil, err
	}
	versions = slices.DeleteFunc(versions, func(v manifest.Version) bool { return len(names) > 0 && !slices.Contains(names, v.Ref.Name) })
	slices.SortStableFunc(versions, func(x, y manifest.Version) int {
		return cmp.Or(cmp.Compare(x.Ref.Name, y.Ref.Name), x.Added.Compare(y.Added), compareVersions(x.Ref.Version, y.Ref.Version))
	})
	var all []*releases
	done := map[cas.Digest]bool{} // files that have their place
	var l lineage
	name := ""
	for _, v := range versions {
		m, err := a.Manifest(ctx, v.Manifest)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", v.Ref, err)
		}
		if name != v.Ref.Name {
			name, l = v.Ref.Name, lineage{byPath: map[string]*releases{}}
		}
		files, here, err := filesOf(ctx, a, m)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", v.Ref, err)
		}
		l.next(here)
		for _, f := range files {
			if f.Size < minDerivable || f.Size > maxDerivable || done[f.Digest] {
				continue
			}
			done[f.Digest] = true
			r, known := l.of(f)
			if !known {
				all = append(all, r)
			}
			r.releases = append(r.releases, f)
		}
	}
	return slices.DeleteFunc(all, func(r *releases) bool { return len(r.releases) < 2 }), nil
}

// compareVersions compares versions that were added in the same second, numbers in them
// as numbers: 1.9 comes before 1.10.
func compareVersions(a, b string) int {
	for a != "" && b != "" {
		x, y := leading(a), leading(b)
		if isDigit(x[0]) && isDigit(y[0]) {
			m, n := strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
			if c := cmp.Or(cmp.Compare(len(m), len(n)), cmp.Compare(m, n)); c != 0 {
				return c
			}
		} else if x != y {
			return cmp.Compare(x, y)
		}
		a, b = a[len(x):], b[len(y):]
	}
	return cmp.Compare(len(a), len(b))
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// leading returns the number that a text begins with, or what stands before one.
func leading(s string) string {
	n := 1
	for n < len(s) && isDigit(s[n]) == isDigit(s[0]) {
		n++
	}
	return s[:n]
}

// filesOf returns the files of a version that are not small, of container files their
// members; and the paths of all that is in it.
func filesOf(ctx context.Context, a *manifest.Archive, m *manifest.Manifest) (files []storedFile, here map[string]bool, err error) {
	here = map[string]bool{}
	for _, e := range m.Entries {
		here[e.Path] = true
		if e.Type != manifest.TypeFile || e.Size == 0 {
			continue
		}
		r, err := a.Recipe(ctx, e)
		if err != nil {
			return nil, nil, err
		}
		if !r.Container() {
			if e.Size >= minDerivable {
				files = append(files, storedFile{e, r.Streams[0].Runs})
			}
			continue
		}
		for _, s := range r.Streams {
			if s.Between() {
				continue
			}
			path := e.Path + "!" + s.Name
			here[path] = true
			if s.Size >= minDerivable {
				files = append(files, storedFile{manifest.Entry{Path: path, Type: manifest.TypeFile, Size: s.Size, Digest: s.ID()}, s.Runs})
			}
		}
	}
	return files, here, nil
}

// lineage follows files through the versions of a package.
type lineage struct {
	byPath map[string]*releases // of the file at each path
	gone   map[string][]string  // by shape: paths of the versions before that this one lacks
	stands map[string][]string  // by shape: those that it has
}

// next begins a version that has files at the paths here.
func (l *lineage) next(here map[string]bool) {
	l.gone, l.stands = map[string][]string{}, map[string][]string{}
	for p := range l.byPath {
		paths := l.gone
		if here[p] {
			paths = l.stands
		}
		paths[shape(p)] = append(paths[shape(p)], p)
	}
	for _, byShape := range []map[string][]string{l.gone, l.stands} {
		for _, paths := range byShape {
			slices.Sort(paths)
		}
	}
}

// shape returns a file's name without the numbers in it, which are often of a version.
func shape(p string) string {
	return strings.Map(func(r rune) rune {
		if '0' <= r && r <= '9' {
			return -1
		}
		return r
	}, path.Base(p))
}

// of returns the releases of the file e so far: those of the same path, or those at the
// path most like it whose name is of the same shape: one that is gone, as the file
// moved, or else one that stands beside it. If there are none, known is false.
func (l *lineage) of(e storedFile) (r *releases, known bool) {
	if r, known = l.byPath[e.Path]; known {
		return r, true
	}
	old, known := mostLike(l.gone[shape(e.Path)], e.Path)
	if !known {
		old, known = mostLike(l.stands[shape(e.Path)], e.Path)
	}
	if known {
		r = l.byPath[old]
	} else {
		r = &releases{}
	}
	l.byPath[e.Path] = r
	return r, known
}

// nearPaths is how many paths before and behind a path are compared with it.
const nearPaths = 32

// mostLike returns which of the sorted paths has most bytes in common with p, of those
// that would stand near it.
func mostLike(paths []string, p string) (like string, found bool) {
	at, _ := slices.BinarySearch(paths, p)
	most := -1
	for _, old := range paths[max(0, at-nearPaths):min(len(paths), at+nearPaths)] {
		if n := commonBytes(old, p); n > most {
			like, found, most = old, true, n
		}
	}
	return like, found
}

// optimizeAll codes on all cores, a file in all its releases on one, and stores in order.
func optimizeAll(ctx context.Context, a *manifest.Archive, o *cas.Optimizer, all []*releases, opts OptimizeOptions, report *OptimizeReport) error {
	c := &optimizing{a: a, o: o, opts: opts, memory: semaphore.NewWeighted(optimizeMemory)}
	return inOrder(ctx, all, c.code, func(r *releases) error {
		c.mu.Lock()
		for _, d := range r.derived {
			o.Keep(d.d.Base)
		}
		c.mu.Unlock()
		for _, d := range r.derived {
			if err := c.store(d, report); err != nil {
				return err
			}
		}
		r.derived = nil
		return nil
	})
}

// optimizing is one run of optimizeAll.
type optimizing struct {
	a      *manifest.Archive
	opts   OptimizeOptions
	memory *semaphore.Weighted
	mu     sync.Mutex // of o
	o      *cas.Optimizer
}

const (
	// worthDeriving is the share of what a release takes that its patch may have.
	worthDeriving = 0.5
	// smallShare is the share up to which nothing is gained by keeping a release as it
	// is, for those behind it.
	smallShare = 0.1
	// heldPatches bounds the bytes of patches that a file's releases have before they
	// are stored; the next run goes on behind them.
	heldPatches = 64 << 20
)

// store stores a derived release, unless too many of its chunks have become bases since.
func (c *optimizing) store(d *derivedRelease, report *OptimizeReport) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	gain, err := c.o.Gain(d.d.Base, d.target)
	if err != nil || d.share(gain) > worthDeriving {
		return err
	}
	replaced, err := c.o.Derive(d.d, d.target)
	if replaced > 0 {
		report.Derived++
		report.Replaced += gain
	}
	return err
}

// share is what the patch takes of what could be replaced. The list of its base and the
// derivation itself take something, too.
func (d *derivedRelease) share(gain int64) float64 {
	return float64(len(d.d.Patch)+40*len(d.d.Base)) / float64(gain)
}

// lineup is what is known of the releases of a file while they are gone through.
type lineup struct {
	last  storedFile            // the last that stays as it is
	bases map[string]storedFile // the last such at each path
	mine  map[cas.Digest]bool   // chunks that stay, or that are to be derived
	tried map[cas.Digest]*trial // of releases, ahead of their turn
	held  int                   // bytes of patches
}

// trial is a release coded against another.
type trial struct {
	base  cas.Digest
	share float64
	d     *derivedRelease
}

// stay lets a release be what it is, for others to be derived from.
func (l *lineup) stay(f storedFile) {
	l.last, l.bases[f.Path] = f, f
	for _, run := range f.runs {
		l.mine[run.Key] = true
	}
}

// base returns what a release is coded against.
func (l *lineup) base(f storedFile) storedFile {
	if base, ok := l.bases[f.Path]; ok {
		return base
	}
	return l.last
}

// followers returns the releases that would be coded against f if it stayed: those of its
// path, or of one that is new.
func (l *lineup) followers(f storedFile, later []storedFile) (out []storedFile) {
	for _, next := range later {
		if _, other := l.bases[next.Path]; !other || next.Path == f.Path {
			out = append(out, next)
		}
	}
	return out
}

// code finds out which releases of a file are worth deriving, and of which.
func (c *optimizing) code(ctx context.Context, r *releases) error {
	l := lineup{bases: map[string]storedFile{}, mine: map[cas.Digest]bool{}, tried: map[cas.Digest]*trial{}}
	l.stay(r.releases[0])
	for i, target := range r.releases[1:] {
		if l.held > heldPatches {
			break
		}
		if err := c.place(ctx, r, &l, target, r.releases[i+2:]); err != nil {
			return fmt.Errorf("%s: %w", target.Path, err)
		}
		if c.opts.Progress != nil {
			c.opts.Progress.Add(target.Size)
		}
	}
	return nil
}

// place finds out what becomes of a release, those later being behind it.
func (c *optimizing) place(ctx context.Context, r *releases, l *lineup, target storedFile, later []storedFile) error {
	c.mu.Lock()
	kept := c.o.Kept(target.refs())
	c.mu.Unlock()
	if kept { // by an optimization before this
		l.stay(target)
		return nil
	}
	base := l.base(target)
	t := l.tried[target.Digest]
	if t == nil || t.base != base.Digest {
		var err error
		if t, err = c.derive(ctx, base, target, l.mine); err != nil {
			return err
		}
	}
	follow := l.followers(target, later)
	switch {
	case t.share == 0: // there is nothing to gain
		l.bases[target.Path] = base
		return nil
	case t.d == nil:
		l.stay(target)
		return nil
	case t.share > smallShare && len(follow) > 0:
		// Those that follow may be much more like this one. If they all are as the next is,
		// does it pay to keep it?
		next, err := c.derive(ctx, target, follow[0], l.mine)
		if err != nil {
			return err
		}
		if n := float64(len(follow)); next.d != nil && 1+n*next.share < (1+n)*t.share {
			l.tried[follow[0].Digest] = next
			l.stay(target)
			return nil
		}
	}
	l.bases[target.Path] = base
	r.derived = append(r.derived, t.d)
	l.held += len(t.d.d.Patch)
	for _, ref := range t.d.target {
		l.mine[ref.Key] = true
	}
	return nil
}

// derive codes a release against another. The share is 0 if there is nothing to gain, and
// there is no derived release if it cannot be derived, or that is not worth it.
func (c *optimizing) derive(ctx context.Context, base, target storedFile, mine map[cas.Digest]bool) (*trial, error) {
	t := &trial{base: base.Digest}
	d := &derivedRelease{d: cas.Derivation{Size: target.Size, Base: base.refs()}, target: target.refs()}
	open := slices.DeleteFunc(slices.Clone(d.target), func(r cas.Ref) bool { return mine[r.Key] })
	c.mu.Lock()
	gain, err := c.o.Gain(d.d.Base, open)
	c.mu.Unlock()
	if err != nil || gain < minDerivable/4 {
		return t, err
	}
	need := min(codec.EncodeMemory(target.Size, base.Size, c.opts.Effort), optimizeMemory)
	if err := c.memory.Acquire(ctx, need); err != nil {
		return nil, err
	}
	defer c.memory.Release(need)
	var plain [2][]byte
	for i, f := range []storedFile{base, target} {
		plain[i] = make([]byte, f.Size)
		content := c.a.OpenRuns(ctx, f.runs)
		if n, err := content.ReadAt(plain[i], 0); n < len(plain[i]) {
			return nil, fmt.Errorf("%s: %w", f.Path, err)
		}
		if err := content.Close(); err != nil {
			return nil, err
		}
	}
	d.d.Patch, d.d.Kind = codec.Encode(nil, plain[1], plain[0], c.opts.Effort)
	t.share = d.share(gain)
	if !d.d.Kind.NeedsBase() || t.share > worthDeriving {
		return t, nil
	}
	back, err := codec.Decode(nil, d.d.Patch, plain[0], d.d.Kind, len(plain[1]))
	if err != nil || !bytes.Equal(back, plain[1]) {
		return nil, errors.Join(errors.New("the patch does not give what it was made of: is this machine's memory sound?"), err)
	}
	t.d = d
	return t, nil
}
