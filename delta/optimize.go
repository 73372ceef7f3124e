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
	jobs, err := lineages(ctx, a)
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

// releases is a file in its releases, the oldest first. Some stay what they are; each of
// the others is derived from the last before it that does, so that reading any needs no
// chain of patches. A release also has chunks of those between.
type releases struct {
	releases []storedFile
	derived  []*derivedRelease // what is to be derived, in order
}

// derivedRelease is a release that pays to be derived.
type derivedRelease struct {
	d      cas.Derivation
	target []cas.Ref
	gain   int64
}

// lineages finds the releases of each file that has several.
func lineages(ctx context.Context, a *manifest.Archive) ([]*releases, error) {
	versions, err := a.Versions(ctx)
	if err != nil {
		return nil, err
	}
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
		files, err := filesOf(ctx, a, m)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", v.Ref, err)
		}
		l.next()
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
// members.
func filesOf(ctx context.Context, a *manifest.Archive, m *manifest.Manifest) (files []storedFile, err error) {
	for _, e := range m.Entries {
		if e.Type != manifest.TypeFile || e.Size == 0 {
			continue
		}
		r, err := a.Recipe(ctx, e)
		if err != nil {
			return nil, err
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
			if s.Size >= minDerivable {
				files = append(files, storedFile{manifest.Entry{Path: e.Path + "!" + s.Name, Type: manifest.TypeFile, Size: s.Size, Digest: s.ID()}, s.Runs})
			}
		}
	}
	return files, nil
}

// lineage follows files through the versions of a package.
type lineage struct {
	byPath map[string]*releases // of the file at each path
	byName map[string][]string  // paths that the versions before have, by their shape
}

// next begins a version.
func (l *lineage) next() {
	l.byName = map[string][]string{}
	for p := range l.byPath {
		l.byName[shape(p)] = append(l.byName[shape(p)], p)
	}
	for _, paths := range l.byName {
		slices.Sort(paths)
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
// path most like it whose name is of the same shape, as it moved, or stands beside the
// old one. If there are none, known is false.
func (l *lineage) of(e storedFile) (r *releases, known bool) {
	if r, known = l.byPath[e.Path]; known {
		return r, true
	}
	most := -1
	for _, old := range l.byName[shape(e.Path)] {
		if n := commonBytes(old, e.Path); n > most {
			r, known, most = l.byPath[old], true, n
		}
	}
	if !known {
		r = &releases{}
	}
	l.byPath[e.Path] = r
	return r, known
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
			c.mu.Lock()
			replaced, err := o.Derive(d.d, d.target)
			c.mu.Unlock()
			if err != nil {
				return err
			}
			if replaced > 0 {
				report.Derived++
				report.Replaced += d.gain
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

// code finds out which releases of a file are worth deriving, and of which.
func (c *optimizing) code(ctx context.Context, r *releases) error {
	base := r.releases[0]
	mine := map[cas.Digest]bool{} // chunks that are to be derived
	held := 0
	var next *derivedRelease // the release at hand, derived of the one before, if that is known
	nextShare := 0.0
	for i, target := range r.releases[1:] {
		if held > heldPatches {
			break
		}
		share, d := nextShare, next
		next = nil
		if d == nil {
			var err error
			if share, d, err = c.derive(ctx, base, target, mine); err != nil {
				return fmt.Errorf("%s: %w", target.Path, err)
			}
		}
		follow := r.releases[i+2:]
		keep := d == nil && share > 0
		if d != nil && share > smallShare && len(follow) > 0 {
			// Those that follow may be much more like this one. If they all are as the next is,
			// does it pay to keep it?
			var err error
			if nextShare, next, err = c.derive(ctx, target, follow[0], mine); err != nil {
				return fmt.Errorf("%s: %w", follow[0].Path, err)
			}
			n := float64(len(follow))
			if keep = next != nil && 1+n*nextShare < (1+n)*share; !keep {
				next = nil
			}
		}
		switch {
		case keep:
			base = target
		case d != nil:
			r.derived = append(r.derived, d)
			held += len(d.d.Patch)
			for _, ref := range d.target {
				mine[ref.Key] = true
			}
		}
		if c.opts.Progress != nil {
			c.opts.Progress.Add(target.Size)
		}
	}
	return nil
}

// derive codes a release against another. share is what its patch takes of what it takes
// now; 0 if there is nothing to gain. d is nil if it cannot be derived.
func (c *optimizing) derive(ctx context.Context, base, target storedFile, mine map[cas.Digest]bool) (share float64, d *derivedRelease, err error) {
	var refs [2][]cas.Ref
	for i, f := range []storedFile{base, target} {
		for _, run := range f.runs {
			refs[i] = append(refs[i], cas.Ref{Key: run.Key, Size: run.Size})
		}
	}
	open := slices.DeleteFunc(slices.Clone(refs[1]), func(r cas.Ref) bool { return mine[r.Key] })
	c.mu.Lock()
	gain, err := c.o.Gain(refs[0], open)
	c.mu.Unlock()
	if err != nil || gain < minDerivable/4 {
		return 0, nil, err
	}
	need := min(codec.EncodeMemory(target.Size, base.Size, c.opts.Effort), optimizeMemory)
	if err := c.memory.Acquire(ctx, need); err != nil {
		return 0, nil, err
	}
	defer c.memory.Release(need)
	var plain [2][]byte
	for i, f := range []storedFile{base, target} {
		plain[i] = make([]byte, f.Size)
		content := c.a.OpenRuns(ctx, f.runs)
		if n, err := content.ReadAt(plain[i], 0); n < len(plain[i]) {
			return 0, nil, fmt.Errorf("%s: %w", f.Path, err)
		}
		if err := content.Close(); err != nil {
			return 0, nil, err
		}
	}
	patch, kind := codec.Encode(nil, plain[1], plain[0], c.opts.Effort)
	// The list of its base and the derivation itself take something, too.
	share = float64(len(patch)+40*len(refs[0])) / float64(gain)
	if !kind.NeedsBase() || share > worthDeriving {
		return share, nil, nil
	}
	back, err := codec.Decode(nil, patch, plain[0], kind, len(plain[1]))
	if err != nil || !bytes.Equal(back, plain[1]) {
		return 0, nil, errors.Join(errors.New("the patch does not give what it was made of: is this machine's memory sound?"), err)
	}
	return share, &derivedRelease{cas.Derivation{Kind: kind, Size: target.Size, Base: refs[0], Patch: patch}, refs[1], gain}, nil
}
