//go:build !windows

package durable

import (
	"errors"
	"os"
	"syscall"
)

// Rename renames from to to, replacing what stands there.
func Rename(from, to string) error { return os.Rename(from, to) }

// renameNew renames from to to unless that name is taken. A hard link is the
// one portable call that fails on a taken name; where the file system has no
// links, a check before the rename must do.
func renameNew(from, to string) error {
	err := os.Link(from, to)
	if err == nil {
		return os.Remove(from)
	}
	if errors.Is(err, os.ErrExist) {
		return &os.LinkError{Op: "create", Old: from, New: to, Err: os.ErrExist}
	}
	if _, statErr := os.Lstat(to); statErr == nil {
		return &os.LinkError{Op: "create", Old: from, New: to, Err: os.ErrExist}
	}
	return os.Rename(from, to)
}

// SyncDir makes the names in a folder durable.
func SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		return nil // a file system that cannot sync folders
	}
	return err
}
