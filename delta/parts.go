package delta

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/flate"

	"ferry/manifest/tree"
)

// parts are the entries of a delta: of a zip, or files of the folder that it was
// unpacked to.
type parts interface {
	// names returns the names of all entries.
	names() []string
	// size returns the bytes that the delta takes.
	size() int64
	// open opens an entry, which should have that many bytes; the error matches
	// fs.ErrNotExist when there is none.
	open(name string) (io.ReadCloser, int64, error)
	// stored returns how many bytes an entry has that can be read anywhere.
	stored(name string) (int64, error)
	// readAt reads all of p from an entry that stored knows.
	readAt(name string, p []byte, off int64) error
	close() error
}

// openParts opens the delta at path.
func openParts(path string) (parts, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if fi.IsDir() {
		return openFolder(path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	z, err := openZipParts(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return z, nil
}

// zipParts are those of a zip.
type zipParts struct {
	f       *os.File
	bytes   int64
	entries map[string]*zip.File
}

func openZipParts(f *os.File) (*zipParts, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	zr, err := zip.NewReader(f, fi.Size())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	zr.RegisterDecompressor(zip.Deflate, flate.NewReader)
	z := &zipParts{f: f, bytes: fi.Size(), entries: map[string]*zip.File{}}
	for _, zf := range zr.File {
		z.entries[zf.Name] = zf
	}
	return z, nil
}

func (z *zipParts) names() []string {
	names := make([]string, 0, len(z.entries))
	for name := range z.entries {
		names = append(names, name)
	}
	return names
}

func (z *zipParts) size() int64  { return z.bytes }
func (z *zipParts) close() error { return z.f.Close() }

func (z *zipParts) open(name string) (io.ReadCloser, int64, error) {
	zf := z.entries[name]
	if zf == nil {
		return nil, 0, fs.ErrNotExist
	}
	r, err := zf.Open()
	return r, int64(min(zf.UncompressedSize64, 1<<62)), err
}

func (z *zipParts) stored(name string) (int64, error) {
	zf := z.entries[name]
	if zf == nil || zf.Method != zip.Store {
		return 0, errors.New("missing, or packed")
	}
	_, err := zf.DataOffset()
	return int64(min(zf.UncompressedSize64, 1<<62)), err
}

func (z *zipParts) readAt(name string, p []byte, off int64) error {
	start, err := z.entries[name].DataOffset()
	if err == nil {
		_, err = z.f.ReadAt(p, start+off)
	}
	return err
}

// folderParts are those of a folder.
type folderParts struct {
	root  *os.Root // no entry leads out of it
	sizes map[string]int64
	files *tree.Cache
}

func openFolder(dir string) (*folderParts, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	f := &folderParts{root: root, sizes: map[string]int64{}}
	err = fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		fi, err := d.Info()
		if err == nil {
			f.sizes[path] = fi.Size()
		}
		return err
	})
	if err != nil {
		root.Close()
		return nil, err
	}
	f.files = tree.NewCache(context.Background(), func(_ context.Context, name string) (tree.Content, error) {
		file, err := root.Open(filepath.FromSlash(name))
		if err != nil {
			return nil, err
		}
		return folderFile{file, f.sizes[name]}, nil
	})
	return f, nil
}

// folderFile is an open file of a folder.
type folderFile struct {
	*os.File
	bytes int64
}

func (f folderFile) Size() int64 { return f.bytes }

func (f *folderParts) names() []string {
	names := make([]string, 0, len(f.sizes))
	for name := range f.sizes {
		names = append(names, name)
	}
	return names
}

func (f *folderParts) size() (sum int64) {
	for _, n := range f.sizes {
		sum += n
	}
	return sum
}

func (f *folderParts) close() error {
	f.files.Close()
	return f.root.Close()
}

func (f *folderParts) open(name string) (io.ReadCloser, int64, error) {
	size, ok := f.sizes[name]
	if !ok {
		return nil, 0, fs.ErrNotExist
	}
	file, err := f.root.Open(filepath.FromSlash(name))
	return file, size, err
}

func (f *folderParts) stored(name string) (int64, error) {
	size, ok := f.sizes[name]
	if !ok {
		return 0, errors.New("missing")
	}
	return size, nil
}

func (f *folderParts) readAt(name string, p []byte, off int64) error {
	return f.files.With(context.Background(), name, func(c tree.Content) error {
		_, err := c.ReadAt(p, off)
		return err
	})
}
