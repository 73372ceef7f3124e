package backend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/gofrs/flock"

	"ferry/cas/durable"
)

// Local is a Backend in a folder. Objects are files, leases are locked files
// under locks/. It works on any local file system; on network file systems it is
// as good as their renames and locks.
type Local struct {
	dir string

	mu    sync.Mutex
	files map[string]*os.File // open for reading, by object name
}

var _ Backend = (*Local)(nil)

// maxOpen bounds the files kept open between reads.
const maxOpen = 64

const lockDir = "locks"

// NewLocal returns a Backend in dir, which is created when the first object is.
func NewLocal(dir string) *Local {
	return &Local{dir: dir, files: map[string]*os.File{}}
}

// URL returns the folder.
func (l *Local) URL() string { return l.dir }

func (l *Local) path(name string) string { return filepath.Join(l.dir, filepath.FromSlash(name)) }

// Put implements Backend.
func (l *Local) Put(ctx context.Context, name string, r io.Reader, size int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	path := l.path(name)
	if err := mkdirAll(filepath.Dir(path)); err != nil {
		return err
	}
	f, err := durable.Create(path)
	if err != nil {
		return err
	}
	defer f.Abort()
	n, err := io.Copy(f, r)
	if err != nil {
		return fmt.Errorf("object %s: %w", name, err)
	}
	if n != size {
		return fmt.Errorf("object %s: got %d bytes, want %d", name, n, size)
	}
	if err := f.CommitNew(); err != nil {
		return translate(name, err)
	}
	return nil
}

// mkdirAll makes a folder and those above it, and makes their names durable.
func mkdirAll(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := mkdirAll(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return durable.SyncDir(parent)
}

func translate(name string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("object %s: %w", name, ErrNotFound)
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("object %s: %w", name, ErrExist)
	}
	return err
}

// ReadAt implements Backend. Files stay open between calls.
func (l *Local) ReadAt(ctx context.Context, name string, p []byte, off int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f, err := l.open(name)
	if err != nil {
		return err
	}
	n, err := f.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if errors.Is(err, os.ErrClosed) {
		return l.ReadAt(ctx, name, p, off) // evicted meanwhile
	}
	return fmt.Errorf("object %s: offset %d: %w", name, off, err)
}

func (l *Local) open(name string) (*os.File, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := l.files[name]; f != nil {
		return f, nil
	}
	f, err := os.Open(l.path(name))
	if err != nil {
		return nil, translate(name, err)
	}
	for other, old := range l.files {
		if len(l.files) < maxOpen {
			break
		}
		old.Close()
		delete(l.files, other)
	}
	l.files[name] = f
	return f, nil
}

func (l *Local) forget(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := l.files[name]; f != nil {
		f.Close()
		delete(l.files, name)
	}
}

// Close closes the files kept open for reading.
func (l *Local) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, f := range l.files {
		f.Close()
		delete(l.files, name)
	}
	return nil
}

// Open implements Backend.
func (l *Local) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, err := os.Open(l.path(name))
	if err != nil {
		return nil, translate(name, err)
	}
	return f, nil
}

// Stat implements Backend.
func (l *Local) Stat(ctx context.Context, name string) (Info, error) {
	if err := ctx.Err(); err != nil {
		return Info{}, err
	}
	fi, err := os.Stat(l.path(name))
	if err != nil {
		return Info{}, translate(name, err)
	}
	return Info{Name: name, Size: fi.Size(), Created: fi.ModTime()}, nil
}

// List implements Backend. Temporary files of writers are not objects.
func (l *Local) List(ctx context.Context, prefix string, fn func(Info) error) error {
	root := l.path(prefix)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // deleted while we walk
		}
		if err != nil || d.IsDir() || isTemp(d.Name()) {
			return err
		}
		fi, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		name, err := filepath.Rel(l.dir, path)
		if err != nil {
			return err
		}
		return fn(Info{Name: filepath.ToSlash(name), Size: fi.Size(), Created: fi.ModTime()})
	})
	return err
}

func isTemp(name string) bool {
	ok, err := filepath.Match(durable.TempPattern, name)
	return ok && err == nil
}

// Delete implements Backend.
func (l *Local) Delete(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.forget(name)
	err := os.Remove(l.path(name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Lease implements Backend with a locked file, which the system unlocks when
// the process ends, however it ends.
func (l *Local) Lease(ctx context.Context, name string) (func(), error) {
	path := l.path(lockDir + "/" + name)
	if err := mkdirAll(filepath.Dir(path)); err != nil {
		return nil, err
	}
	lock := flock.New(path)
	ok, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lease %s: %w", name, err)
	}
	if !ok || !stands(lock) {
		lock.Unlock()
		return nil, fmt.Errorf("lease %s: %w", name, ErrBusy)
	}
	return func() { unlock(lock, name) }, nil
}

// stands reports whether the locked file is still the one that has the name:
// another process may have cleared it away between its opening and its locking.
func stands(lock *flock.Flock) bool {
	held, err := lock.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(lock.Path())
	return err == nil && os.SameFile(held, named)
}

// unlock gives a held lock back. The file of a one-off name (one with a slash)
// goes too: where an open file can be removed, before it is unlocked, so that
// whoever opened it meanwhile notices; elsewhere afterwards, which fails while
// anyone has it open.
func unlock(lock *flock.Flock, name string) {
	oneOff := strings.Contains(name, "/")
	if oneOff && runtime.GOOS != "windows" {
		os.Remove(lock.Path())
	}
	lock.Unlock()
	if oneOff && runtime.GOOS == "windows" {
		os.Remove(lock.Path())
	}
}

// Leases implements Backend. Files that nobody holds any more are removed.
func (l *Local) Leases(ctx context.Context) ([]Info, error) {
	var held []Info
	err := l.List(ctx, lockDir+"/", func(info Info) error {
		lock := flock.New(l.path(info.Name))
		ok, err := lock.TryLock()
		if err != nil {
			return fmt.Errorf("lease %s: %w", info.Name, err)
		}
		info.Name = strings.TrimPrefix(info.Name, lockDir+"/")
		if ok {
			unlock(lock, info.Name)
		} else {
			held = append(held, info)
		}
		return nil
	})
	return held, err
}

// RemoveTemp removes temporary files older than the oldest running session, the
// rubbish of crashes, and returns how many bytes they held.
func (l *Local) RemoveTemp(ctx context.Context, olderThan func(Info) bool) (int64, error) {
	var freed int64
	err := filepath.WalkDir(l.dir, func(path string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil || d.IsDir() || !isTemp(d.Name()) {
			return err
		}
		fi, err := d.Info()
		if err != nil || !olderThan(Info{Name: d.Name(), Size: fi.Size(), Created: fi.ModTime()}) {
			return nil
		}
		if os.Remove(path) == nil {
			freed += fi.Size()
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return freed, err
}
