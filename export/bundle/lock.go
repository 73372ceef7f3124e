package bundle

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/gofrs/flock"

	"ferry/cas"
	"ferry/manifest/tree"
)

// lockTries is how often a lock file may vanish while it is being locked.
const lockTries = 100

// takeLock locks the tree. Who held the lock removes its file: what was locked then
// is a file that nobody else will find, and the lock is taken again.
func (f *folder) takeLock() error {
	for range lockTries {
		if err := f.root.MkdirAll(tree.StateDir, 0o777); err != nil { // refuses a link that leads out
			return err
		}
		f.lock = flock.New(filepath.Join(f.dir, filepath.FromSlash(lockPath)))
		ok, err := f.lock.TryLock()
		if errors.Is(err, fs.ErrNotExist) {
			continue // the folder went, too
		}
		if err != nil {
			return err
		}
		if !ok {
			return f.lockedError()
		}
		ours, err := f.holdsLock()
		if ours {
			return nil
		}
		f.lock.Unlock()
		if err != nil {
			return err
		}
	}
	return f.lockedError()
}

func (f *folder) lockedError() error {
	return fmt.Errorf("%s: another command works on this folder: %w", f.dir, cas.ErrLocked)
}

// holdsLock reports whether the file that is locked stands where others look for it.
func (f *folder) holdsLock() (bool, error) {
	locked, err := f.lock.Stat()
	if err != nil {
		return false, err
	}
	there, err := os.Lstat(f.lock.Path())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(locked, there), err
}

// close unlocks the tree, and clears the state folder away if nothing is in it. The
// lock file goes while it is locked; Windows does not allow that, and there the file
// cannot go either when another command has it open.
func (f *folder) close() {
	f.root.Remove(filepath.FromSlash(stateFolder)) // fails unless empty
	f.root.Remove(filepath.FromSlash(lockPath))
	f.lock.Unlock()
	if runtime.GOOS == "windows" {
		f.root.Remove(filepath.FromSlash(lockPath))
	}
	f.root.Remove(tree.StateDir) // fails unless empty
	f.root.Close()
}
