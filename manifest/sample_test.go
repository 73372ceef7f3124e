package manifest

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"ferry/manifest/tree"
)

// seeded returns n bytes that depend on seed alone.
func seeded(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// holes returns seeded bytes, of which every other of eight parts is zeros.
func holes(seed byte, n int) []byte {
	b := seeded(seed, n)
	for i := 1; i < 8; i += 2 {
		clear(b[n*i/8 : n*(i+1)/8])
	}
	return b
}

// node is a node of a sample tree, with its content.
type node struct {
	tree.Node
	data []byte
	// open gives the content instead of data, if it is set.
	open func() (io.ReadCloser, error)
}

func fileNode(path string, data []byte) node {
	return node{Node: tree.Node{Path: path, Kind: tree.File, Size: int64(len(data)), ModTime: 1_700_000_000}, data: data}
}

func execNode(path string, data []byte) node {
	n := fileNode(path, data)
	n.Exec = true
	return n
}

func dirNode(path string) node { return node{Node: tree.Node{Path: path, Kind: tree.Dir}} }

func linkNode(path, target string) node {
	return node{Node: tree.Node{Path: path, Kind: tree.Link, Link: target}}
}

// sampleTree has files of all sorts, in a few megabytes. Its program starts like
// one, so that it is told on Windows too. Links are left out where the system
// does not let us make them.
func sampleTree(t testing.TB) []node {
	t.Helper()
	old := fileNode("docs/old.txt", []byte("old\n"))
	old.ModTime = 500_000_000
	nodes := []node{
		execNode("bin/run", []byte("#!/bin/sh\necho hello\n")),
		fileNode("data/empty", nil),
		fileNode("data/large.img", slices.Concat(bytes.Repeat(seeded(1, 50_000), 80), make([]byte, 1<<20), []byte("end"))),
		fileNode("data/medium.bin", seeded(2, 300_000)),
		fileNode("data/same.bin", seeded(2, 300_000)),
		fileNode("data/zeros", make([]byte, 100_000)),
		dirNode("docs/empty folder"),
		fileNode("docs/gr\u00fc\u00df dich.txt", []byte("gr\u00fc\u00df dich\n")),
		old,
		fileNode("readme", bytes.Repeat([]byte("read me\n"), 1000)),
	}
	probe := filepath.Join(t.TempDir(), "probe")
	if err := os.Symlink("nowhere", probe); err != nil {
		t.Logf("without symbolic links: %v", err)
		return nodes
	}
	return append(nodes, linkNode("docs/to readme", "../readme"), linkNode("nowhere", "no/such/file"))
}

// memTree is a tree in memory.
type memTree struct {
	nodes      []node
	sequential bool
	failed     error // of the walk, at its end
}

func (m *memTree) Sequential() bool { return m.sequential }
func (m *memTree) Format() string   { return "test" }
func (m *memTree) Close() error     { return nil }

func (m *memTree) Walk(ctx context.Context, fn func(tree.Node, func() (io.ReadCloser, error)) error) error {
	for _, n := range m.nodes {
		if err := ctx.Err(); err != nil {
			return err
		}
		walkedOn := make(chan struct{})
		err := fn(n.Node, func() (io.ReadCloser, error) {
			r, err := n.content()
			if err != nil || !m.sequential {
				return r, err
			}
			return &sequentialReader{r, walkedOn}, nil
		})
		close(walkedOn)
		if err != nil {
			return err
		}
	}
	return m.failed
}

func (n node) content() (io.ReadCloser, error) {
	if n.open != nil {
		return n.open()
	}
	return io.NopCloser(bytes.NewReader(n.data)), nil
}

// sequentialReader panics when it is read after the walk went on.
type sequentialReader struct {
	io.ReadCloser
	walkedOn chan struct{}
}

func (r *sequentialReader) Read(p []byte) (int, error) {
	select {
	case <-r.walkedOn:
		panic("content of a sequential tree was read after the walk went on")
	default:
		return r.ReadCloser.Read(p)
	}
}

func (m *memTree) Open(_ context.Context, path string) (io.ReadCloser, error) {
	for _, n := range m.nodes {
		if n.Path == path {
			return n.content()
		}
	}
	return nil, fs.ErrNotExist
}

func (m *memTree) OpenAt(context.Context, string) (tree.Content, error) {
	return nil, errors.ErrUnsupported
}

// openTree opens what stands at name, until the test ends.
func openTree(t testing.TB, name string) tree.Tree {
	t.Helper()
	tr, err := tree.Open(name, tree.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.Close() })
	return tr
}

// writeDir makes a directory of nodes.
func writeDir(t testing.TB, nodes []node) string {
	t.Helper()
	dir := t.TempDir()
	for _, n := range nodes {
		if err := writeNode(filepath.Join(dir, filepath.FromSlash(n.Path)), n); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func writeNode(path string, n node) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	switch n.Kind {
	case tree.Dir:
		return os.MkdirAll(path, 0o777)
	case tree.Link:
		return os.Symlink(filepath.FromSlash(n.Link), path)
	}
	perm := fs.FileMode(0o644)
	if n.Exec {
		perm = 0o755
	}
	if err := os.WriteFile(path, n.data, perm); err != nil {
		return err
	}
	mtime := time.Unix(n.ModTime, 0)
	return os.Chtimes(path, mtime, mtime)
}

// writeArchive makes a file of nodes: a zip, a tar, or a compressed tar.
func writeArchive(t testing.TB, format string, nodes []node) string {
	t.Helper()
	var b bytes.Buffer
	var err error
	if format == "zip" {
		err = zipNodes(&b, nodes)
	} else {
		err = packedTar(&b, format, nodes)
	}
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "sample."+format)
	if err := os.WriteFile(name, b.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
	return name
}

func packedTar(w io.Writer, format string, nodes []node) (err error) {
	var packed io.WriteCloser
	switch strings.TrimPrefix(format, "tar") {
	case "":
		return tarNodes(w, nodes)
	case ".gz":
		packed = gzip.NewWriter(w)
	case ".zst":
		packed, err = zstd.NewWriter(w)
	case ".xz":
		packed, err = xz.WriterConfig{DictCap: 64 << 10}.NewWriter(w)
	}
	if err != nil {
		return err
	}
	return errors.Join(tarNodes(packed, nodes), packed.Close())
}

func tarNodes(w io.Writer, nodes []node) error {
	tw := tar.NewWriter(w)
	for _, n := range nodes {
		h := &tar.Header{Name: n.Path, Mode: 0o644, ModTime: time.Unix(n.ModTime, 0), Size: int64(len(n.data)), Typeflag: tar.TypeReg}
		switch {
		case n.Kind == tree.Dir:
			h.Typeflag, h.Name = tar.TypeDir, n.Path+"/"
		case n.Kind == tree.Link:
			h.Typeflag, h.Linkname = tar.TypeSymlink, n.Link
		case n.Kind == tree.HardLink:
			h.Typeflag, h.Linkname = tar.TypeLink, n.Link
		case n.Exec:
			h.Mode = 0o755
		}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := tw.Write(n.data); err != nil {
			return err
		}
	}
	return tw.Close()
}

func zipNodes(w io.Writer, nodes []node) error {
	zw := zip.NewWriter(w)
	for _, n := range nodes {
		h := &zip.FileHeader{Name: n.Path, Method: zip.Deflate, Modified: time.Unix(n.ModTime, 0)}
		data := n.data
		switch {
		case n.Kind == tree.Dir:
			h.Name += "/"
			h.SetMode(fs.ModeDir | 0o755)
		case n.Kind == tree.Link:
			h.SetMode(fs.ModeSymlink | 0o777)
			data = []byte(n.Link)
		case n.Exec:
			h.SetMode(0o755)
		default:
			h.SetMode(0o644)
		}
		fw, err := zw.CreateHeader(h)
		if err != nil {
			return err
		}
		if _, err := fw.Write(data); err != nil {
			return err
		}
	}
	return zw.Close()
}
