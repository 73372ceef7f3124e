package tree

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// StateDir is the folder in the root of an installed tree where Ferry keeps its
// own state. It is no part of the tree.
const StateDir = ".ferry"

// dirTree is a directory.
type dirTree struct{ root string }

func (t *dirTree) Format() string   { return "directory" }
func (t *dirTree) Sequential() bool { return false }
func (t *dirTree) Close() error     { return nil }

func (t *dirTree) Walk(ctx context.Context, fn func(Node, func() (io.ReadCloser, error)) error) error {
	root := filepath.Clean(t.root)
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if path == root {
			return nil
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		n := Node{Path: filepath.ToSlash(rel)}
		if n.Path == StateDir && d.IsDir() {
			return fs.SkipDir
		}
		if err := CheckPath(n.Path); err != nil {
			return err
		}
		if err := describe(&n, path, d); err != nil {
			return err
		}
		return fn(n, func() (io.ReadCloser, error) { return os.Open(path) })
	})
}

// describe fills in what the file system knows.
func describe(n *Node, path string, d fs.DirEntry) error {
	fi, err := d.Info()
	if err != nil {
		return err
	}
	switch mode := fi.Mode(); {
	case mode.IsRegular():
		n.Kind, n.Size, n.ModTime, n.Exec = File, fi.Size(), fi.ModTime().Unix(), mode&0o111 != 0
	case mode.IsDir():
		n.Kind = Dir
	case mode&fs.ModeSymlink != 0:
		target, err := os.Readlink(path)
		if err != nil {
			return err
		}
		n.Kind, n.Link = Link, filepath.ToSlash(target)
	default:
		n.Kind = Special
	}
	return nil
}

func (t *dirTree) open(path string) (*os.File, error) {
	if err := CheckPath(path); err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join(t.root, filepath.FromSlash(path)))
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a regular file: %w", path, fs.ErrNotExist)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (t *dirTree) Open(ctx context.Context, path string) (io.ReadCloser, error) {
	f, err := t.open(path)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (t *dirTree) OpenAt(ctx context.Context, path string) (Content, error) {
	f, err := t.open(path)
	if err != nil {
		return nil, err
	}
	return newFileContent(f)
}

// fileContent is a file read where it stands.
type fileContent struct {
	*os.File
	size int64
}

func newFileContent(f *os.File) (Content, error) {
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &fileContent{f, fi.Size()}, nil
}

func (c *fileContent) Size() int64 { return c.size }

// fileTree is a single file, at its own name.
type fileTree struct {
	f  *os.File
	fi fs.FileInfo
}

func (t *fileTree) Format() string   { return "file" }
func (t *fileTree) Sequential() bool { return false }
func (t *fileTree) Close() error     { return t.f.Close() }

func (t *fileTree) name() string { return strings.ToValidUTF8(filepath.Base(t.f.Name()), "_") }

func (t *fileTree) Walk(ctx context.Context, fn func(Node, func() (io.ReadCloser, error)) error) error {
	n := Node{Path: t.name(), Kind: File, Size: t.fi.Size(), ModTime: t.fi.ModTime().Unix(), Exec: t.fi.Mode()&0o111 != 0}
	if err := CheckPath(n.Path); err != nil {
		return err
	}
	return fn(n, func() (io.ReadCloser, error) { return t.Open(ctx, n.Path) })
}

func (t *fileTree) Open(ctx context.Context, path string) (io.ReadCloser, error) {
	c, err := t.OpenAt(ctx, path)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(io.NewSectionReader(c, 0, c.Size())), nil
}

func (t *fileTree) OpenAt(ctx context.Context, path string) (Content, error) {
	if path != t.name() {
		return nil, fmt.Errorf("%s: %w", path, fs.ErrNotExist)
	}
	return &section{t.f, t.fi.Size()}, nil
}

// section is a part of a file that somebody else closes.
type section struct {
	io.ReaderAt
	size int64
}

func (s *section) Size() int64  { return s.size }
func (s *section) Close() error { return nil }

// OSFile returns the file itself, for copies that share its blocks.
func (c *fileContent) OSFile() *os.File { return c.File }
