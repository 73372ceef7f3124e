package tree

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"

	"ferry/chunking/container"
)

// tarTree is a tar that is not compressed: its members can be read at random.
type tarTree struct {
	f    io.ReaderAt
	size int64
	done func() error // closes what f reads; nil for an *os.File

	mu      sync.Mutex
	members map[string]tarMember // by path; nil before the first Open
}

// tarMember is where a file's bytes stand. A sparse member's do not stand in
// one piece.
type tarMember struct {
	off, size int64
	sparse    bool
	link      string // of a hard link
}

func (t *tarTree) Format() string   { return formatTar }
func (t *tarTree) Sequential() bool { return false }

func (t *tarTree) Close() error {
	if t.done != nil {
		return t.done()
	}
	if f, ok := t.f.(*os.File); ok {
		return f.Close()
	}
	return nil
}

func (t *tarTree) Walk(ctx context.Context, fn func(Node, func() (io.ReadCloser, error)) error) error {
	return t.walk(ctx, func(n Node, m tarMember, _ io.Reader) error {
		return fn(n, func() (io.ReadCloser, error) { return t.openMember(ctx, n.Path, m) })
	})
}

func (t *tarTree) walk(ctx context.Context, fn func(Node, tarMember, io.Reader) error) error {
	r := io.NewSectionReader(t.f, 0, t.size)
	return walkTar(ctx, r, func(n Node, h *tar.Header, content io.Reader) error {
		off, err := r.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		m := tarMember{off: off, size: h.Size, sparse: container.Sparse(h)}
		if n.Kind == HardLink {
			m.link = n.Link
		}
		return fn(n, m, content)
	})
}

func (t *tarTree) Open(ctx context.Context, path string) (io.ReadCloser, error) {
	m, err := t.find(ctx, path)
	if err != nil {
		return nil, err
	}
	return t.openMember(ctx, path, m)
}

func (t *tarTree) openMember(ctx context.Context, path string, m tarMember) (io.ReadCloser, error) {
	if !m.sparse {
		return io.NopCloser(io.NewSectionReader(t.f, m.off, m.size)), nil
	}
	// A sparse member is put together by the tar reader, walking up to it anew.
	r, w := io.Pipe()
	go func() {
		err := t.walk(ctx, func(n Node, other tarMember, content io.Reader) error {
			if other.off != m.off || n.Path != path {
				return nil
			}
			if _, err := io.Copy(w, content); err != nil {
				return err
			}
			return errStop
		})
		if errors.Is(err, errStop) {
			err = nil
		}
		w.CloseWithError(err)
	}()
	return r, nil
}

var errStop = errors.New("stop")

func (t *tarTree) OpenAt(ctx context.Context, path string) (Content, error) {
	m, err := t.find(ctx, path)
	if err != nil {
		return nil, err
	}
	if !m.sparse {
		return &section{io.NewSectionReader(t.f, m.off, m.size), m.size}, nil
	}
	r, err := t.openMember(ctx, path, m)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return Spool(r, m.size)
}

// find looks a file up, following hard links to where the bytes are.
func (t *tarTree) find(ctx context.Context, path string) (tarMember, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.members == nil {
		members := map[string]tarMember{}
		err := t.walk(ctx, func(n Node, m tarMember, _ io.Reader) error {
			ok := n.Kind == File
			if n.Kind == HardLink {
				m, ok = members[m.link]
			}
			if ok {
				members[n.Path] = m
			}
			return nil
		})
		if err != nil {
			return tarMember{}, err
		}
		t.members = members
	}
	m, ok := t.members[path]
	if !ok {
		return m, fmt.Errorf("%s: %w", path, fs.ErrNotExist)
	}
	return m, nil
}

// walkTar reads a tar from front to back. The content of a file is valid until
// fn returns.
func walkTar(ctx context.Context, r io.Reader, fn func(Node, *tar.Header, io.Reader) error) error {
	tr := tar.NewReader(r)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return fmt.Errorf("%w: %w", ErrFormat, err)
		}
		n, ok, err := tarNode(h)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if err := fn(n, h, formatReader{tr}); err != nil {
			return err
		}
	}
}

// formatReader makes what a decoder finds wrong match ErrFormat, unless it is
// the disk that failed.
type formatReader struct{ io.Reader }

func (r formatReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	var disk *fs.PathError
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, ErrFormat) && !errors.As(err, &disk) {
		err = fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return n, err
}

// tarNode translates a header; ok is false for what is no member of the tree.
func tarNode(h *tar.Header) (n Node, ok bool, err error) {
	name := cleanName(h.Name)
	if name == "" || h.Typeflag == tar.TypeXGlobalHeader { // "" is "./", the root itself
		return n, false, nil
	}
	if err := CheckPath(name); err != nil {
		return n, false, err
	}
	n = Node{Path: name}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		n.Kind, n.Size, n.ModTime, n.Exec = File, h.Size, h.ModTime.Unix(), h.Mode&0o111 != 0
	case tar.TypeDir:
		n.Kind = Dir
	case tar.TypeSymlink:
		n.Kind, n.Link = Link, h.Linkname
	case tar.TypeLink:
		n.Kind, n.Link = HardLink, cleanName(h.Linkname)
	default:
		n.Kind = Special
	}
	return n, true, nil
}

// cleanName takes off what tars put around names: "./" in front, "/" behind.
func cleanName(name string) string {
	for strings.HasPrefix(name, "./") {
		name = strings.TrimLeft(name[2:], "/")
	}
	name = strings.TrimRight(name, "/")
	if name == "." {
		return ""
	}
	return name
}

// packedTar is a compressed tar. It is read from front to back, and unpacked to
// a temporary file when somebody wants a member out of order.
type packedTar struct {
	f      *os.File
	format string

	mu    sync.Mutex
	plain *tarTree
}

func (t *packedTar) Format() string   { return t.format }
func (t *packedTar) Sequential() bool { return true }

func (t *packedTar) Close() error {
	if t.plain != nil {
		t.plain.Close()
	}
	return t.f.Close()
}

func (t *packedTar) unpacked() (io.ReadCloser, error) {
	r, err := decompress(io.NewSectionReader(t.f, 0, 1<<62), t.format)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return struct {
		formatReader
		io.Closer
	}{formatReader{r}, r}, nil
}

func (t *packedTar) Walk(ctx context.Context, fn func(Node, func() (io.ReadCloser, error)) error) error {
	r, err := t.unpacked()
	if err != nil {
		return err
	}
	defer r.Close()
	err = walkTar(ctx, r, func(n Node, _ *tar.Header, content io.Reader) error {
		return fn(n, func() (io.ReadCloser, error) { return io.NopCloser(content), nil })
	})
	// The checksum of what was unpacked stands at the very end.
	for buf := make([]byte, 32<<10); err == nil; {
		if err = ctx.Err(); err == nil {
			_, err = r.Read(buf)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
	}
	return err
}

// spool unpacks the tar, once.
func (t *packedTar) spool() (*tarTree, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.plain != nil {
		return t.plain, nil
	}
	r, err := t.unpacked()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	c, err := Spool(r, spoolInMemory+1)
	if err != nil {
		return nil, err
	}
	t.plain = &tarTree{f: c, size: c.Size(), done: c.Close}
	return t.plain, nil
}

func (t *packedTar) Open(ctx context.Context, path string) (io.ReadCloser, error) {
	plain, err := t.spool()
	if err != nil {
		return nil, err
	}
	return plain.Open(ctx, path)
}

func (t *packedTar) OpenAt(ctx context.Context, path string) (Content, error) {
	plain, err := t.spool()
	if err != nil {
		return nil, err
	}
	return plain.OpenAt(ctx, path)
}
