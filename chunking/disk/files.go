package disk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"ferry/chunking/ext4"
	"ferry/chunking/fat"
)

// maxLinks bounds the links that a path leads through.
const maxLinks = 40

// maxHeld bounds the memory of a tree of files in bytes, about.
const maxHeld = 512 << 20

// Files is the tree of a volume. It implements [fs.FS], [fs.ReadDirFS], [fs.StatFS] and
// [fs.ReadLinkFS]; links are followed within the volume. It is safe for concurrent use
// as far as the image's reader is. Memory is about 300 bytes for each file.
type Files struct {
	nodes map[string]*node // by path; "." is the root
	held  int64            // bytes, about
}

var _ interface {
	fs.ReadDirFS
	fs.StatFS
	fs.ReadLinkFS
} = (*Files)(nil)

// node is a file or folder.
type node struct {
	info
	link     string
	open     func() io.ReaderAt
	children []string // names, sorted
}

// info implements fs.FileInfo and fs.DirEntry.
type info struct {
	name string
	mode fs.FileMode
	size int64
	time time.Time
}

func (i info) Name() string               { return i.name }
func (i info) Size() int64                { return i.size }
func (i info) Mode() fs.FileMode          { return i.mode }
func (i info) ModTime() time.Time         { return i.time }
func (i info) IsDir() bool                { return i.mode.IsDir() }
func (i info) Sys() any                   { return nil }
func (i info) Type() fs.FileMode          { return i.mode.Type() }
func (i info) Info() (fs.FileInfo, error) { return i, nil }

// Files reads the tree of a volume. Errors are those of packages ext4 and fat, or say
// that the volume holds no file system that is known.
func (v *Volume) Files(ctx context.Context) (*Files, error) {
	if v.Err != nil {
		return nil, v.Err
	}
	f := &Files{nodes: map[string]*node{}}
	var err error
	switch {
	case v.Ext4 != nil:
		err = v.Ext4.Walk(ctx, func(n *ext4.Node) error {
			if f.held += int64(300 + len(n.Path) + len(n.Link) + 32*(len(n.Extents)+len(n.Meta)) + len(n.Inline)); f.held > maxHeld {
				return fmt.Errorf("volume %d: %w: files", v.Number, errTooMany)
			}
			kept := *n
			size := n.Size
			if n.IsDir() {
				size = 0
			}
			f.add(n.Path, &node{
				info: info{mode: fileMode(n.Mode), size: size, time: n.ModTime},
				link: n.Link, open: func() io.ReaderAt { return v.Ext4.Open(&kept) },
			})
			return nil
		})
	case v.FAT != nil:
		err = v.FAT.Walk(ctx, func(n *fat.Node) error {
			if f.held += int64(300 + len(n.Path) + 24*len(n.Extents)); f.held > maxHeld {
				return fmt.Errorf("volume %d: %w: files", v.Number, errTooMany)
			}
			mode := fs.FileMode(0o644)
			if n.IsDir {
				mode = fs.ModeDir | 0o755
			}
			extents := slices.Clone(n.Extents)
			f.add(n.Path, &node{
				info: info{mode: mode, size: n.Size, time: n.ModTime},
				open: func() io.ReaderAt { return &fatFile{v.raw, extents, n.Size} },
			})
			return nil
		})
	default:
		return nil, fmt.Errorf("volume %d: %w", v.Number, ErrFormat)
	}
	if err != nil {
		return nil, err
	}
	for _, n := range f.nodes {
		slices.Sort(n.children)
	}
	return f, nil
}

func (f *Files) add(name string, n *node) {
	name = path.Clean("./" + name)
	n.name = path.Base(name)
	f.nodes[name] = n
	if name == "." {
		return
	}
	if dir := f.nodes[path.Dir(name)]; dir != nil { // it was walked before
		dir.children = append(dir.children, n.name)
	}
}

// fileMode turns a mode as inodes have it into Go's; stat(2).
func fileMode(mode uint16) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	for _, bit := range []struct {
		on uint16
		is fs.FileMode
	}{{0o4000, fs.ModeSetuid}, {0o2000, fs.ModeSetgid}, {0o1000, fs.ModeSticky}} {
		if mode&bit.on != 0 {
			m |= bit.is
		}
	}
	switch mode & 0xf000 {
	case 0x4000:
		m |= fs.ModeDir
	case 0xa000:
		m |= fs.ModeSymlink
	case 0x8000:
	case 0x2000:
		m |= fs.ModeDevice | fs.ModeCharDevice
	case 0x6000:
		m |= fs.ModeDevice
	case 0x1000:
		m |= fs.ModeNamedPipe
	case 0xc000:
		m |= fs.ModeSocket
	default:
		m |= fs.ModeIrregular
	}
	return m
}

// find returns the node at name; the last link is followed if follow says so.
func (f *Files) find(op, name string, follow bool) (string, *node, error) {
	bad := func(err error) (string, *node, error) { return "", nil, &fs.PathError{Op: op, Path: name, Err: err} }
	at, rest := ".", strings.Split(name, "/")
	for _, part := range rest { // as fs.ValidPath, but names may be of any bytes
		if part == "" || part == ".." || part == "." && len(rest) > 1 {
			return bad(fs.ErrInvalid)
		}
	}
	for links := 0; len(rest) > 0; {
		next := path.Join(at, rest[0])
		n := f.nodes[next]
		switch {
		case n == nil:
			return bad(fs.ErrNotExist)
		case n.mode&fs.ModeSymlink != 0 && (len(rest) > 1 || follow):
			if links++; links > maxLinks {
				return bad(errors.New("too many links"))
			}
			// A rooted path, cleaned, never leads out of the root.
			target := path.Join("/", at, n.link)
			if path.IsAbs(n.link) {
				target = path.Clean(n.link)
			}
			parts := strings.FieldsFunc(target, func(r rune) bool { return r == '/' })
			at, rest = ".", append(parts, rest[1:]...)
		default:
			at, rest = next, rest[1:]
		}
	}
	return at, f.nodes[at], nil
}

// Open implements [fs.FS]. What it opens also implements [io.ReaderAt], if it is a
// regular file.
func (f *Files) Open(name string) (fs.File, error) {
	at, n, err := f.find("open", name, true)
	if err != nil {
		return nil, err
	}
	if n.IsDir() {
		return &folder{f, at, n, 0}, nil
	}
	if !n.mode.IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: name, Err: errors.New("not a regular file")}
	}
	return &file{io.NewSectionReader(n.open(), 0, n.size), n}, nil
}

// Stat implements [fs.StatFS].
func (f *Files) Stat(name string) (fs.FileInfo, error) {
	_, n, err := f.find("stat", name, true)
	if err != nil {
		return nil, err
	}
	return n.info, nil
}

// Lstat implements [fs.ReadLinkFS].
func (f *Files) Lstat(name string) (fs.FileInfo, error) {
	_, n, err := f.find("lstat", name, false)
	if err != nil {
		return nil, err
	}
	return n.info, nil
}

// ReadLink implements [fs.ReadLinkFS].
func (f *Files) ReadLink(name string) (string, error) {
	_, n, err := f.find("readlink", name, false)
	if err == nil && n.mode&fs.ModeSymlink == 0 {
		err = &fs.PathError{Op: "readlink", Path: name, Err: errors.New("not a link")}
	}
	if err != nil {
		return "", err
	}
	return n.link, nil
}

// ReadDir implements [fs.ReadDirFS].
func (f *Files) ReadDir(name string) ([]fs.DirEntry, error) {
	at, n, err := f.find("readdir", name, true)
	if err == nil && !n.IsDir() {
		err = &fs.PathError{Op: "readdir", Path: name, Err: errors.New("not a folder")}
	}
	if err != nil {
		return nil, err
	}
	return f.list(at, n.children), nil
}

func (f *Files) list(at string, names []string) []fs.DirEntry {
	list := make([]fs.DirEntry, len(names))
	for i, name := range names {
		list[i] = f.nodes[path.Join(at, name)].info
	}
	return list
}

// file is an open regular file.
type file struct {
	*io.SectionReader
	n *node
}

func (f *file) Stat() (fs.FileInfo, error) { return f.n.info, nil }
func (f *file) Close() error               { return nil }

// folder is an open folder.
type folder struct {
	f  *Files
	at string
	n  *node
	i  int // children read
}

func (d *folder) Stat() (fs.FileInfo, error) { return d.n.info, nil }
func (d *folder) Close() error               { return nil }

func (d *folder) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.at, Err: errors.New("is a folder")}
}

// ReadDir implements [fs.ReadDirFile].
func (d *folder) ReadDir(n int) ([]fs.DirEntry, error) {
	left := d.n.children[d.i:]
	if n > 0 {
		if len(left) == 0 {
			return nil, io.EOF
		}
		left = left[:min(n, len(left))]
	}
	d.i += len(left)
	return d.f.list(d.at, left), nil
}

// fatFile reads a file of a FAT volume.
type fatFile struct {
	volume  io.ReaderAt
	extents []fat.Extent
	size    int64
}

func (f *fatFile) ReadAt(p []byte, off int64) (int, error) {
	i, _ := slices.BinarySearchFunc(f.extents, off, func(e fat.Extent, off int64) int {
		return cmp.Compare(e.File+e.Size, off+1)
	})
	n := 0
	for ; i < len(f.extents) && n < len(p); i++ {
		e := f.extents[i]
		skip := off + int64(n) - e.File
		part := p[n:min(int64(len(p)), int64(n)+e.Size-skip)]
		m, err := f.volume.ReadAt(part, e.Disk+skip)
		if n += m; m < len(part) {
			return n, cmp.Or(err, io.ErrUnexpectedEOF)
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Count returns how many regular files a volume has.
func (v *Volume) Count(ctx context.Context) (n int, err error) {
	files, err := v.Files(ctx)
	if err != nil {
		return 0, err
	}
	for _, f := range files.nodes {
		if f.mode.IsRegular() {
			n++
		}
	}
	return n, nil
}
