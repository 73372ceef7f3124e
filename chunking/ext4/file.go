package ext4

import (
	"io"
	"sort"
)

// File reads the contents of a [Node].
type File struct {
	fs      *FS
	size    int64
	extents []Extent
	data    []byte // in place of extents, if it is not nil
}

var _ io.ReaderAt = (*File)(nil)

// Open returns the contents of a node of this file system: those of a regular file,
// the target of a symbolic link, or the blocks of a directory as they stand. Nothing
// has to be closed.
func (fs *FS) Open(n *Node) *File {
	f := &File{fs: fs, size: n.Size, extents: n.Extents, data: n.Inline}
	if n.IsLink() && n.Extents == nil {
		f.data = []byte(n.Link)
	}
	return f
}

// Size returns the bytes of the contents.
func (f *File) Size() int64 { return f.size }

// ReadAt implements [io.ReaderAt]. Holes and unwritten blocks are zeros.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, invalid(off, "read before the start of a file")
	}
	if off >= f.size {
		return 0, io.EOF
	}
	var end error
	if int64(len(p)) > f.size-off {
		p, end = p[:f.size-off], io.EOF
	}
	if f.data != nil {
		if off < int64(len(f.data)) {
			clear(p[copy(p, f.data[off:]):])
		} else {
			clear(p)
		}
		return len(p), end
	}
	for done := 0; done < len(p); {
		n, err := f.piece(p[done:], off+int64(done))
		if err != nil {
			return done, err
		}
		done += n
	}
	return len(p), end
}

// piece reads what stands in one extent, or in one hole, from off on.
func (f *File) piece(p []byte, off int64) (int, error) {
	i := sort.Search(len(f.extents), func(i int) bool {
		return f.extents[i].File+f.extents[i].Size > off
	})
	if i == len(f.extents) {
		clear(p)
		return len(p), nil
	}
	e := f.extents[i]
	if off < e.File {
		p = p[:min(int64(len(p)), e.File-off)]
		clear(p)
		return len(p), nil
	}
	p = p[:min(int64(len(p)), e.File+e.Size-off)]
	if e.Unwritten {
		clear(p)
		return len(p), nil
	}
	return len(p), f.fs.read(p, e.Disk+off-e.File)
}
