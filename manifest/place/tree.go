package place

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/dustin/go-humanize"

	"ferry/cas"
	"ferry/cas/durable"
	"ferry/manifest"
)

// ErrExists says that something stands where the target should be.
var ErrExists = errors.New("already exists")

// SpaceError says that a disk is too full.
type SpaceError struct {
	Dir        string
	Need, Free int64 // bytes
}

func (e *SpaceError) Error() string {
	return fmt.Sprintf("%s: needs %s, only %s are free", e.Dir, humanize.IBytes(uint64(e.Need)), humanize.IBytes(uint64(max(e.Free, 0))))
}

// Options say how to place a tree.
type Options struct {
	// Progress is told the bytes written; nil is allowed.
	Progress cas.Counter
	// SkipLinks leaves symbolic links out, with a warning.
	SkipLinks bool
	// Warn is told of what was left out; nil is allowed.
	Warn func(manifest.Warning)
	// Agrees compares a file's digest with that of the manifest, of which only the front
	// may be there; nil wants them to be equal.
	Agrees func(have, want cas.Digest) bool
	// Verify is told the digests of all files before any of them is visible; nil is allowed.
	Verify func(digests map[string]cas.Digest) error
}

// Stats says what was placed.
type Stats struct {
	Files   int   `json:"files"`
	Size    int64 `json:"size_bytes"`
	Resumed int   `json:"resumed_files"` // stood from an earlier, interrupted try
	Skipped int   `json:"skipped"`
}

// slack is what a disk must have free beyond the files' sizes, in bytes: for
// folders, and the file system's own tables.
const slack = 1 << 20

// Tree places all of m at target, which must not exist or be an empty folder.
// Interrupted, it leaves a staging folder beside target and goes on from there
// when called again; on any other error it leaves nothing.
func Tree(ctx context.Context, target string, m *manifest.Manifest, fill Fill, opts Options) (Stats, error) {
	var stats Stats
	target, err := filepath.Abs(target)
	if err != nil {
		return stats, err
	}
	if real, err := filepath.EvalSymlinks(target); err == nil {
		target = real // an empty folder that a link leads to
	}
	if err := checkVacant(target); err != nil {
		return stats, err
	}
	dir := StagingDir(target, m)
	if err := CheckSpace(filepath.Dir(target), dir, m.Size()); err != nil {
		return stats, err
	}
	s, err := OpenStage(dir)
	if err != nil {
		return stats, err
	}
	err = s.Fill(ctx, m, fill, opts, &stats)
	if err == nil {
		err = s.commit(target)
	}
	if err != nil && ctx.Err() == nil {
		s.Remove()
	}
	return stats, err
}

// StagingDir returns the folder in which a tree is put together: beside the
// target, named after both, so that only the same work is resumed.
func StagingDir(target string, m *manifest.Manifest) string {
	return filepath.Join(filepath.Dir(target), "."+filepath.Base(target)+".ferry-"+m.ID().Short())
}

func checkVacant(target string) error {
	fi, err := os.Stat(target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && !fi.IsDir() { // ReadDir's error for that matches ErrNotExist on Windows
		return fmt.Errorf("%s: %w, and is no folder", target, ErrExists)
	}
	names, err := os.ReadDir(target)
	switch {
	case err != nil:
		return err
	case len(names) > 0:
		return fmt.Errorf("%s: %w and is not empty; name a new folder", target, ErrExists)
	}
	return nil
}

// CheckSpace returns a [*SpaceError] when need bytes do not fit beside what
// stands in the folder staged already.
func CheckSpace(dir, staged string, need int64) error {
	for { // the folder itself may not exist yet
		if _, err := os.Stat(dir); err == nil || filepath.Dir(dir) == dir {
			break
		}
		dir = filepath.Dir(dir)
	}
	free, err := freeBytes(dir)
	if err != nil {
		return nil // unknown: the disk will tell
	}
	filepath.WalkDir(staged, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if fi, err := d.Info(); err == nil && fi.Mode().IsRegular() {
			need -= fi.Size()
		}
		return nil
	})
	if need > 0 && free-slack < need {
		return &SpaceError{Dir: dir, Need: need + slack, Free: free}
	}
	return nil
}

// Fill puts all of m into the stage, on all cores, and makes it durable.
func (s *Stage) Fill(ctx context.Context, m *manifest.Manifest, fill Fill, opts Options, stats *Stats) error {
	if err := s.CheckNames(m); err != nil {
		return err
	}
	if opts.Agrees != nil {
		s.agrees = opts.Agrees
	}
	if err := s.files(ctx, m, fill, opts, stats); err != nil {
		return err
	}
	for _, e := range m.Entries {
		var err error
		switch {
		case e.Type == manifest.TypeDir:
			err = s.Dir(e)
		case e.Type == manifest.TypeLink && !opts.SkipLinks:
			err = s.Link(e)
		case e.Type == manifest.TypeLink:
			stats.Skipped++
			if opts.Warn != nil {
				opts.Warn(manifest.Warning{Path: e.Path, Text: "symbolic link to " + e.Link + " left out", Skipped: true})
			}
		}
		if err != nil {
			return fmt.Errorf("%s: %w", e.Path, err)
		}
	}
	if err := s.sweep(m); err != nil {
		return err
	}
	return s.Sync()
}

// files writes the files on all cores.
func (s *Stage) files(ctx context.Context, m *manifest.Manifest, fill Fill, opts Options, stats *Stats) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work := make(chan manifest.Entry)
	var wg sync.WaitGroup
	var mu sync.Mutex
	digests := map[string]cas.Digest{}
	for range runtime.GOMAXPROCS(0) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for e := range work {
				stood, digest, err := s.file(ctx, e, fill)
				if err != nil {
					cancel(err)
					return
				}
				mu.Lock()
				digests[e.Path] = digest
				stats.Files++
				stats.Size += e.Size
				if stood {
					stats.Resumed++
				}
				mu.Unlock()
				if opts.Progress != nil {
					opts.Progress.Add(e.Size)
				}
			}
		}()
	}
feed:
	for _, e := range m.Entries {
		if e.Type != manifest.TypeFile {
			continue
		}
		select {
		case work <- e:
		case <-ctx.Done():
			break feed
		}
	}
	close(work)
	wg.Wait()
	if err := context.Cause(ctx); err != nil || opts.Verify == nil {
		return err
	}
	return opts.Verify(digests)
}

// sweep removes what an earlier try left in the stage and m does not have.
func (s *Stage) sweep(m *manifest.Manifest) error {
	wanted := map[string]bool{}
	for _, e := range m.Entries {
		for p := filepath.FromSlash(e.Path); p != "." && !wanted[p]; p = filepath.Dir(p) {
			wanted[p] = true
		}
	}
	return filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(s.dir, path)
		if err != nil || rel == "." || wanted[rel] {
			return err
		}
		if err := os.RemoveAll(path); err != nil {
			return err
		}
		if d.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
}

// commit makes the stage the target.
func (s *Stage) commit(target string) error {
	if fi, err := os.Lstat(target); err == nil && !fi.IsDir() {
		return fmt.Errorf("%s: %w, and is no folder", target, ErrExists) // since we looked
	}
	if err := os.Remove(target); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := durable.Rename(s.dir, target); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(target))
}
