package place

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"ferry/cas"
	"ferry/manifest"
	"ferry/manifest/tree"
)

// Fill writes the content of e to w. Where w is a [Cloner], it may offer a file
// that holds just that content.
type Fill func(ctx context.Context, e manifest.Entry, w io.Writer) error

// Cloner is a destination that may share the blocks of another file.
type Cloner interface {
	// Clone reports whether it took all of src's content. When it did not,
	// nothing was written.
	Clone(src *os.File) bool
}

// Stage is a folder in which files are put together. It is Ferry's own: nothing
// in it was put there by others, and its paths come from a validated manifest.
type Stage struct {
	dir     string
	fresh   bool // made just now: nothing is in it from an earlier try
	noClone atomic.Bool
	agrees  func(have, want cas.Digest) bool
	mu      sync.Mutex
	dirs    map[string]bool // that exist
}

// OpenStage opens the staging folder dir, making it if need be. One that stands
// must be a folder of this user's own; links in it are removed, so that nothing
// planted there leads a write elsewhere.
func OpenStage(dir string) (*Stage, error) {
	s := &Stage{dir: dir, agrees: equal, dirs: map[string]bool{".": true}}
	if err := os.MkdirAll(filepath.Dir(dir), 0o777); err != nil {
		return nil, err
	}
	err := os.Mkdir(dir, 0o777)
	if err == nil {
		s.fresh = true
		return s, nil
	}
	if !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	fi, err := os.Lstat(dir)
	if err != nil {
		return nil, err
	}
	if !fi.IsDir() || ownedByOther(fi) {
		return nil, fmt.Errorf("%s: stands in the way of the staging folder, and is not ours; remove it", dir)
	}
	return s, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type()&fs.ModeSymlink != 0 {
			return os.Remove(p)
		}
		return err
	})
}

func equal(have, want cas.Digest) bool { return have == want }

// path returns where an entry stands in the stage.
func (s *Stage) path(p string) string { return filepath.Join(s.dir, filepath.FromSlash(p)) }

// Remove deletes the folder and all that is in it.
func (s *Stage) Remove() error { return removeAll(s.dir) }

// removeAll is os.RemoveAll, also for folders without write permission.
func removeAll(dir string) error {
	err := os.RemoveAll(dir)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			os.Chmod(p, 0o777)
		}
		return nil
	})
	return os.RemoveAll(dir)
}

// CheckNames returns an error when the file system cannot hold all entries apart:
// names that it forbids, or takes for one. It tries the stage to find out.
func (s *Stage) CheckNames(m *manifest.Manifest) error {
	if runtime.GOOS == "windows" {
		for _, e := range m.Entries {
			if err := tree.CheckWindows(e.Path); err != nil {
				return err
			}
		}
	}
	folds, err := s.foldsCase()
	if err != nil || !folds {
		return err
	}
	seen := map[string]string{}
	folder := cases.Fold()
	for _, e := range m.Entries {
		for p := e.Path; p != "."; p = path.Dir(p) {
			key := folder.String(norm.NFC.String(p))
			if first, ok := seen[key]; ok && first != p {
				return &tree.UnsafePathError{Path: p, Reason: fmt.Sprintf("this file system takes it and %q for one file", first)}
			}
			seen[key] = p
		}
	}
	return nil
}

// foldsCase reports whether the stage's file system takes names that differ in
// case for one.
func (s *Stage) foldsCase() (bool, error) {
	const probe = ".ferry-tmp-probe"
	os.Remove(s.path(probe))
	f, err := os.OpenFile(s.path(probe), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return false, err
	}
	f.Close()
	defer os.Remove(s.path(probe))
	_, err = os.Lstat(s.path(strings.ToUpper(probe)))
	return err == nil, nil
}

// mkdir makes a folder and those above it.
func (s *Stage) mkdir(dir string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dirs[dir] {
		return nil
	}
	if err := os.MkdirAll(s.path(dir), 0o777); err != nil {
		return err
	}
	s.dirs[dir] = true
	return nil
}

// file makes sure that the file e stands in the stage, calling fill unless it
// stood there already. It reports whether it did, and returns its digest.
func (s *Stage) file(ctx context.Context, e manifest.Entry, fill Fill) (stood bool, digest cas.Digest, err error) {
	if err := s.mkdir(path.Dir(e.Path)); err != nil {
		return false, digest, err
	}
	name := s.path(e.Path)
	if !s.fresh {
		if stood, digest, err = s.stands(ctx, name, e); stood || err != nil {
			return stood, digest, err
		}
	}
	temp := filepath.Join(filepath.Dir(name), ".ferry-tmp-"+cas.Sum([]byte(e.Path)).Short())
	if digest, err = s.write(ctx, temp, e, fill); err != nil {
		os.Remove(temp)
		return false, digest, fmt.Errorf("%s: %w", e.Path, err)
	}
	return false, digest, Retry(func() error { return os.Rename(temp, name) })
}

// stands reports whether the file is there from an earlier try, whole.
func (s *Stage) stands(ctx context.Context, name string, e manifest.Entry) (ok bool, digest cas.Digest, err error) {
	fi, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, digest, nil
	}
	if err != nil {
		return false, digest, err
	}
	if fi.Mode().IsRegular() && fi.Size() == e.Size {
		if digest, err = fileDigest(ctx, name); err != nil {
			return false, digest, err
		}
		if s.agrees(digest, e.Digest) {
			return true, digest, setMeta(name, e)
		}
	}
	return false, digest, os.RemoveAll(name)
}

func fileDigest(ctx context.Context, name string) (cas.Digest, error) {
	f, err := os.Open(name)
	if err != nil {
		return cas.Digest{}, err
	}
	defer f.Close()
	return Digest(ctx, f)
}

// Digest returns the digest of all that r gives.
func Digest(ctx context.Context, r io.Reader) (cas.Digest, error) {
	h := cas.NewHasher()
	buf := make([]byte, 256<<10)
	for {
		if err := ctx.Err(); err != nil {
			return cas.Digest{}, err
		}
		n, err := r.Read(buf)
		h.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			return h.Digest(), nil
		}
		if err != nil {
			return cas.Digest{}, err
		}
	}
}

// write writes and verifies a file under a temporary name, and returns its digest.
func (s *Stage) write(ctx context.Context, temp string, e manifest.Entry, fill Fill) (digest cas.Digest, err error) {
	perm := fs.FileMode(0o666)
	if e.Exec {
		perm = 0o777
	}
	f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
	if errors.Is(err, fs.ErrExist) { // left by an interrupted try
		if err := os.Remove(temp); err != nil {
			return digest, err
		}
		f, err = os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
	}
	if err != nil {
		return digest, err
	}
	defer f.Close()
	w := &fileWriter{ctx: ctx, s: s, f: f, h: cas.NewHasher(), want: e.Digest, left: e.Size}
	if err := fill(ctx, e, w); err != nil {
		return digest, err
	}
	if digest, err = w.finish(); err != nil {
		return digest, err
	}
	if !s.agrees(digest, e.Digest) {
		return digest, fmt.Errorf("%w: digest %s, manifest says %s", ErrContent, digest.Short(), e.Digest.Short())
	}
	if err := syncFile(f); err != nil {
		return digest, err
	}
	if err := f.Close(); err != nil {
		return digest, err
	}
	return digest, setMeta(temp, e)
}

// ErrContent says that what was put together is not what the manifest wants.
var ErrContent = errors.New("content is not what the manifest says")

func setMeta(name string, e manifest.Entry) error {
	const last = min(math.MaxInt64/1_000_000_000, math.MaxInt) // second that os.Chtimes can set
	t := time.Unix(min(max(e.ModTime, -last), last), 0)
	return os.Chtimes(name, t, t)
}

// fileWriter writes a file and its digest. Long runs of zeros become holes.
type fileWriter struct {
	ctx    context.Context
	s      *Stage
	f      *os.File
	h      *cas.Hasher
	want   cas.Digest
	left   int64 // bytes that the manifest leaves room for
	hole   int64 // zeros not yet written
	cloned bool
	sum    cas.Digest // of a cloned file, once read
}

var _ Cloner = (*fileWriter)(nil)

// holeSize is the least run of zeros that is left out of a file: holes are made
// in whole blocks, and small ones cost more than they save.
const holeSize = 64 << 10

var zeros [holeSize]byte

func (w *fileWriter) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	if int64(len(p)) > w.left {
		return 0, fmt.Errorf("%w: more bytes than the manifest says", ErrContent)
	}
	w.h.Write(p)
	w.left -= int64(len(p))
	if len(p) >= holeSize && len(p)%holeSize == 0 && isZero(p) {
		w.hole += int64(len(p))
		return len(p), nil
	}
	if err := w.skip(); err != nil {
		return 0, err
	}
	return w.f.Write(p)
}

func isZero(p []byte) bool {
	for len(p) > 0 {
		n := min(len(p), len(zeros))
		if string(p[:n]) != string(zeros[:n]) {
			return false
		}
		p = p[n:]
	}
	return true
}

// skip moves behind a hole.
func (w *fileWriter) skip() error {
	if w.hole == 0 {
		return nil
	}
	_, err := w.f.Seek(w.hole, io.SeekCurrent)
	w.hole = 0
	return err
}

func (w *fileWriter) Clone(src *os.File) bool {
	if w.left == 0 || w.s.noClone.Load() {
		return false
	}
	if w.cloned = clone(w.f, src); !w.cloned {
		w.s.noClone.Store(true) // the disk cannot: it is not asked for each file
	}
	return w.cloned
}

// Matches reports whether what was written is what the manifest says, so that
// a Fill can find out why not while it still knows what it read.
func (w *fileWriter) Matches() bool {
	digest, err := w.digest()
	return err == nil && w.s.agrees(digest, w.want)
}

func (w *fileWriter) digest() (cas.Digest, error) {
	if !w.cloned {
		return w.h.Digest(), nil
	}
	if !w.sum.IsZero() {
		return w.sum, nil
	}
	if _, err := w.f.Seek(0, io.SeekStart); err != nil {
		return cas.Digest{}, err
	}
	var err error
	w.sum, err = Digest(w.ctx, w.f)
	return w.sum, err
}

// finish completes the file and returns its digest.
func (w *fileWriter) finish() (cas.Digest, error) {
	if w.hole > 0 {
		end, err := w.f.Seek(w.hole, io.SeekCurrent)
		if err != nil {
			return cas.Digest{}, err
		}
		if err := w.f.Truncate(end); err != nil {
			return cas.Digest{}, err
		}
	}
	return w.digest()
}

// Link makes a symbolic link in the stage.
func (s *Stage) Link(e manifest.Entry) error {
	if err := s.mkdir(path.Dir(e.Path)); err != nil {
		return err
	}
	name := s.path(e.Path)
	if have, err := os.Readlink(name); err == nil {
		if filepath.ToSlash(have) == e.Link {
			return nil
		}
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	err := os.Symlink(filepath.FromSlash(e.Link), name)
	if err != nil && runtime.GOOS == "windows" {
		return fmt.Errorf("%w (symbolic links need Developer Mode or administrator rights on Windows; --links skip leaves them out)", err)
	}
	return err
}

// Dir makes an empty folder in the stage.
func (s *Stage) Dir(e manifest.Entry) error { return s.mkdir(e.Path) }

// Sync makes all that is in the stage durable.
func (s *Stage) Sync() error { return syncTree(s.dir) }

// errSharing is Windows' ERROR_SHARING_VIOLATION: another program has the file open.
const errSharing = syscall.Errno(32)

// Retry calls fn again for a moment what virus scanners on Windows make fail.
func Retry(fn func() error) error {
	pause := time.Millisecond
	for try := 0; ; try++ {
		err := fn()
		if err == nil || runtime.GOOS != "windows" || !errors.Is(err, fs.ErrPermission) && !errors.Is(err, errSharing) || try == 10 {
			return err
		}
		time.Sleep(pause)
		pause *= 2
	}
}
