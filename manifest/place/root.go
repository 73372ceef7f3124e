package place

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// Exists reports whether anything stands at a path in root, which has the system's
// separators. Nothing does where the path goes through something that is no folder.
func Exists(root *os.Root, name string) (bool, error) {
	_, err := root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) || IsNotDir(err) {
		return false, nil
	}
	return err == nil, err
}

// RemoveEmpty removes the folder p in root and those above it, as far as they are empty. One
// that is not there, or not any more, counts as removed.
func RemoveEmpty(root *os.Root, p string) {
	for ; p != "."; p = path.Dir(p) {
		if there, err := Exists(root, filepath.FromSlash(p)); err != nil || there && !RemoveDir(root, p) {
			return
		}
	}
}

// RemoveDir removes p in root if it is a folder and empty, and reports whether it did.
func RemoveDir(root *os.Root, p string) bool {
	name := filepath.FromSlash(p)
	fi, err := root.Lstat(name)
	return err == nil && fi.IsDir() && root.Remove(name) == nil
}
