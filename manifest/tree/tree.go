package tree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Kind says what a node is.
type Kind uint8

// The kinds of nodes.
const (
	File     Kind = iota + 1
	Dir           // given for every directory, empty or not, where the source knows them
	Link          // symbolic link
	HardLink      // the same content as the file at Node.Link, which came before
	Special       // device, socket or pipe: has no place in a package
)

// Node is an entry of a tree.
type Node struct {
	Path    string // canonical, see CheckPath
	Kind    Kind
	Exec    bool   // File: somebody may execute it
	ModTime int64  // File: seconds since 1970, UTC
	Size    int64  // File: bytes, as the source declares them
	Link    string // Link: the target as written, with slashes; HardLink: a path
}

// Content is the bytes of a file, for reading anywhere. Close it.
type Content interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// Tree is an open source of nodes. Its methods are not for concurrent use,
// except Open and OpenAt when Sequential is false.
type Tree interface {
	// Walk calls fn for every node, in an order that depends on the source alone.
	// open gives the content of a File; when Sequential is true, it must be called
	// and read before fn returns.
	Walk(ctx context.Context, fn func(n Node, open func() (io.ReadCloser, error)) error) error
	// Sequential reports whether contents can only be had during a walk, or by
	// spooling the whole.
	Sequential() bool
	// Open returns the content of the file at path from front to back. The error
	// matches fs.ErrNotExist when there is none.
	Open(ctx context.Context, path string) (io.ReadCloser, error)
	// OpenAt returns the content of the file at path for reading anywhere, from a
	// temporary copy where the source is compressed.
	OpenAt(ctx context.Context, path string) (Content, error)
	// Format names the source for people: "directory", "zip", "tar.gz", "file".
	Format() string
	Close() error
}

// ErrFormat says that an archive is malformed or of a kind that is not read.
var ErrFormat = errors.New("malformed archive")

// Options say how to open a tree.
type Options struct {
	// Filter leaves nodes out; nil keeps all.
	Filter *Filter
	// AsFile takes an archive as a single file.
	AsFile bool
}

// Open opens what stands at name: a directory, an archive, or any other file,
// which gives a tree of that one file.
func Open(name string, opts Options) (Tree, error) {
	fi, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if fi.IsDir() {
		if real, err := filepath.EvalSymlinks(name); err == nil {
			name = real // a walk follows no link, not even at its start
		}
		return filtered(&dirTree{root: name}, opts.Filter), nil
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: neither a directory nor a regular file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	t, err := openFile(f, fi, opts)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if f := t.Format(); f != "file" {
		t = &stateless{t}
	}
	return filtered(t, opts.Filter), nil
}

// stateless leaves Ferry's own state out of an archive, as it is of a folder.
type stateless struct{ Tree }

func (t *stateless) Walk(ctx context.Context, fn func(Node, func() (io.ReadCloser, error)) error) error {
	return t.Tree.Walk(ctx, func(n Node, open func() (io.ReadCloser, error)) error {
		if n.Path == StateDir || strings.HasPrefix(n.Path, StateDir+"/") {
			return nil
		}
		return fn(n, open)
	})
}

func openFile(f *os.File, fi fs.FileInfo, opts Options) (Tree, error) {
	format := formatFile
	if !opts.AsFile {
		var err error
		if format, err = recognise(f); err != nil {
			return nil, err
		}
	}
	switch format {
	case formatZip:
		return openZip(f, fi.Size())
	case formatTar:
		return &tarTree{f: f, size: fi.Size()}, nil
	case formatFile:
		return &fileTree{f: f, fi: fi}, nil
	default:
		return &packedTar{f: f, format: format}, nil
	}
}

// filtered wraps t so that its walk leaves out what the filter excludes.
func filtered(t Tree, filter *Filter) Tree {
	if filter == nil {
		return t
	}
	return &filterTree{t, filter}
}

type filterTree struct {
	Tree
	filter *Filter
}

func (t *filterTree) Walk(ctx context.Context, fn func(Node, func() (io.ReadCloser, error)) error) error {
	return t.Tree.Walk(ctx, func(n Node, open func() (io.ReadCloser, error)) error {
		if t.filter.Excludes(n.Path, n.Kind == Dir) {
			if n.Kind == Dir && t.filter.closed() && t.Format() == "directory" {
				return fs.SkipDir // which need not be readable
			}
			return nil
		}
		return fn(n, open)
	})
}
