package durable

import (
	"errors"
	"io"
	"os"
	"path/filepath"
)

// File is a file being written that nobody sees until it is committed.
type File struct {
	*os.File
	final string
	done  bool
}

// TempPattern is the pattern of temporary names, as os.CreateTemp takes it. A
// file of such a name that no process writes is rubbish from a crash.
const TempPattern = ".ferry-tmp-*"

// Create starts a file that will be called path. End it with exactly one of
// Commit or CommitNew, or with Abort.
func Create(path string) (*File, error) {
	f, err := os.CreateTemp(filepath.Dir(path), TempPattern)
	if err != nil {
		return nil, err
	}
	return &File{File: f, final: path}, nil
}

// Commit makes the file durable and visible, replacing an older one.
func (f *File) Commit() error { return f.commit(Rename) }

// CommitNew makes the file durable and visible. When the name is taken it
// returns an error matching os.ErrExist and leaves the standing file alone.
func (f *File) CommitNew() error { return f.commit(renameNew) }

func (f *File) commit(rename func(from, to string) error) (err error) {
	f.done = true
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := rename(f.Name(), f.final); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(f.final))
}

// Abort drops the file. After a commit it does nothing, so it can be deferred.
func (f *File) Abort() {
	if f.done {
		return
	}
	f.done = true
	f.Close()
	os.Remove(f.Name())
}

// WriteFile writes data to path, durably, replacing an older file.
func WriteFile(path string, data []byte) error {
	f, err := Create(path)
	if err != nil {
		return err
	}
	defer f.Abort()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Commit()
}

// WriteNew writes what r gives to path, durably. When the name is taken it
// returns an error matching os.ErrExist.
func WriteNew(path string, r io.Reader) error {
	f, err := Create(path)
	if err != nil {
		return err
	}
	defer f.Abort()
	if _, err := io.Copy(f, r); err != nil {
		return err
	}
	return f.CommitNew()
}
