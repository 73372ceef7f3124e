//go:build !linux

package place

import (
	"io/fs"
	"os"
	"path/filepath"

	"ferry/cas/durable"
)

// clone is not tried on this system.
func clone(dst, src *os.File) bool { return false }

// syncFile makes a file's bytes durable.
func syncFile(f *os.File) error { return f.Sync() }

// syncTree makes the names in all folders durable; the files are already.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return durable.SyncDir(path)
	})
}
