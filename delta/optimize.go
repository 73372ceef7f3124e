package delta

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
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
	report.Files = len(jobs)
	if opts.Total != nil {
		total := int64(0)
		for _, j := range jobs {
			total += j.target.Size
		}
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
const minDerivable, maxDerivable = 64 << 10, codec.MaxSize

// storedFile is a file, or a member of a container file, as a store holds it.
type storedFile struct {
	manifest.Entry
	runs []manifest.Run
}

// optimizeJob is a file to be derived from another.
type optimizeJob struct {
	base, target storedFile
	refs         [2][]cas.Ref // of base and target
	gain         int64
	d            *cas.Derivation // nil if it does not pay
}

// lineages pairs each release of a file with its first, which stays what it is: so
// reading any needs no chain of patches. A release also has chunks of those between,
// each made from the first as well.
func lineages(ctx context.Context, a *manifest.Archive) ([]*optimizeJob, error) {
	versions, err := a.Versions(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(versions, func(x, y manifest.Version) int {
		return cmp.Or(cmp.Compare(x.Ref.Name, y.Ref.Name), x.Added.Compare(y.Added), cmp.Compare(x.Ref.Version, y.Ref.Version))
	})
	var jobs []*optimizeJob
	done := map[cas.Digest]bool{} // files that have their place
	var l lineage
	name := ""
	for _, v := range versions {
		m, err := a.Manifest(ctx, v.Manifest)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", v.Ref, err)
		}
		if name != v.Ref.Name {
			name, l = v.Ref.Name, lineage{byPath: map[string]storedFile{}}
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
			if first, ok := l.first(f); ok {
				jobs = append(jobs, &optimizeJob{base: first, target: f})
			}
		}
	}
	return jobs, nil
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
			if e.Size >= minDerivable {
				files = append(files, storedFile{manifest.Entry{Path: path, Type: manifest.TypeFile, Size: s.Size, Digest: s.ID()}, s.Runs})
			}
		}
	}
	return files, here, nil
}

// lineage follows files through the versions of a package.
type lineage struct {
	byPath map[string]storedFile // the first release of the file at each path
	gone   map[string][]string   // by base name: paths of the versions before that this one lacks
}

// next begins a version that has files at the paths here.
func (l *lineage) next(here map[string]bool) {
	l.gone = map[string][]string{}
	for p := range l.byPath {
		if !here[p] {
			l.gone[path.Base(p)] = append(l.gone[path.Base(p)], p)
		}
	}
	for _, paths := range l.gone {
		slices.Sort(paths)
	}
}

// first returns the first release of the file e, of the same path, or of the same
// name where that has gone from its path. If there is none, e is the first.
func (l *lineage) first(e storedFile) (first storedFile, ok bool) {
	if first, ok = l.byPath[e.Path]; ok {
		return first, true
	}
	most := -1
	for _, old := range l.gone[path.Base(e.Path)] {
		if n := commonBytes(old, e.Path); n > most {
			first, ok, most = l.byPath[old], true, n
		}
	}
	if !ok {
		first = e
	}
	l.byPath[e.Path] = first
	return first, ok
}

// optimizeAll codes on all cores, and stores in order.
func optimizeAll(ctx context.Context, a *manifest.Archive, o *cas.Optimizer, jobs []*optimizeJob, opts OptimizeOptions, report *OptimizeReport) error {
	memory := semaphore.NewWeighted(optimizeMemory)
	var mu sync.Mutex // of o
	return inOrder(ctx, jobs, func(ctx context.Context, j *optimizeJob) error {
		if err := j.code(ctx, a, o, &mu, memory, opts.Effort); err != nil {
			return fmt.Errorf("%s: %w", j.target.Path, err)
		}
		return nil
	}, func(j *optimizeJob) error {
		if j.d != nil {
			mu.Lock()
			replaced, err := o.Derive(*j.d, j.refs[1])
			mu.Unlock()
			if err != nil {
				return err
			}
			if replaced > 0 {
				report.Derived++
				report.Replaced += j.gain
			}
		}
		if opts.Progress != nil {
			opts.Progress.Add(j.target.Size)
		}
		j.d, j.refs = nil, [2][]cas.Ref{}
		return nil
	})
}

// code finds out whether a file is worth deriving, and how.
func (j *optimizeJob) code(ctx context.Context, a *manifest.Archive, o *cas.Optimizer, mu *sync.Mutex, memory *semaphore.Weighted, effort codec.Effort) error {
	for i, f := range []storedFile{j.base, j.target} {
		for _, run := range f.runs {
			j.refs[i] = append(j.refs[i], cas.Ref{Key: run.Key, Size: run.Size})
		}
	}
	mu.Lock()
	gain, err := o.Gain(j.refs[0], j.refs[1])
	mu.Unlock()
	if err != nil || gain < minDerivable/4 {
		return err
	}
	need := min(codec.EncodeMemory(j.target.Size, j.base.Size, effort), optimizeMemory)
	if err := memory.Acquire(ctx, need); err != nil {
		return err
	}
	defer memory.Release(need)
	var plain [2][]byte
	for i, f := range []storedFile{j.base, j.target} {
		plain[i] = make([]byte, f.Size)
		c := a.OpenRuns(ctx, f.runs)
		if n, err := c.ReadAt(plain[i], 0); n < len(plain[i]) {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
		if err := c.Close(); err != nil {
			return err
		}
	}
	patch, kind := codec.Encode(nil, plain[1], plain[0], effort)
	// The list of its base and the derivation itself take something, too.
	if !kind.NeedsBase() || int64(len(patch)+40*len(j.refs[0])) > gain/2 {
		return nil
	}
	back, err := codec.Decode(nil, patch, plain[0], kind, len(plain[1]))
	if err != nil || !bytes.Equal(back, plain[1]) {
		return errors.Join(errors.New("the patch does not give what it was made of: is this machine's memory sound?"), err)
	}
	j.gain = gain
	j.d = &cas.Derivation{Kind: kind, Size: j.target.Size, Base: j.refs[0], Patch: patch}
	return nil
}
