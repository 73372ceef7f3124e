package ext4

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"slices"
	"strings"
	"time"
)

// Node is a file, a directory, a symbolic link or a special file, at one of its
// paths. It is the caller's.
type Node struct {
	// Path has slashes between names, none in front; it is empty for the root. Names
	// are any bytes but "/" and NUL.
	Path  string
	Inode uint32 // the same for all hard links of a file
	Mode  uint16 // as on disk: the type (S_IFMT) and the permissions
	Size  int64  // bytes of the contents
	// ModTime is in UTC, with nanoseconds where the inode has room for them.
	ModTime  time.Time
	UID, GID uint32
	Links    uint32 // names of the inode
	// Link is where a symbolic link points to, as it stands on disk.
	Link string
	// Extents are the blocks of a regular file, a directory or a long symbolic link,
	// by File, neighbours as one. Blocks without any are holes; extents may reach
	// beyond Size.
	Extents []Extent
	// Inline is the contents of a regular file that are in the inode: not nil, and of
	// Size bytes. Extents is then nil.
	Inline []byte
	// Meta are the blocks of the file's tree of extents or block map, and that of its
	// extended attributes, which several files may share. File is 0.
	Meta []Extent
}

// IsDir reports whether n is a directory.
func (n *Node) IsDir() bool { return n.Mode&modeType == modeDir }

// IsRegular reports whether n is a regular file.
func (n *Node) IsRegular() bool { return n.Mode&modeType == modeRegular }

// IsLink reports whether n is a symbolic link.
func (n *Node) IsLink() bool { return n.Mode&modeType == modeLink }

// Walk calls fn for the root and then for every path, depth first, the names of a
// directory in the order of their bytes. A file with hard links comes at each of its
// paths. Walk ends with the first error: that of fn or of ctx as it is, one that
// wraps [ErrInvalid] or [ErrUnsupported], or that of a read, with the path.
func (fs *FS) Walk(ctx context.Context, fn func(n *Node) error) error {
	return fs.reader().walk(ctx, "", rootInode, fn)
}

func (r *reader) walk(ctx context.Context, path string, num uint32, fn func(n *Node) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	n, entries, err := r.load(ctx, path, num)
	if err != nil {
		return err
	}
	if err := fn(n); err != nil {
		return err
	}
	for _, e := range entries {
		if err := r.walk(ctx, join(path, e.name), e.inode, fn); err != nil {
			return err
		}
	}
	return nil
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// Lookup returns what stands at a path, given as in [Node]. It follows no symbolic
// links. The error wraps [io/fs.ErrNotExist] where there is nothing.
func (fs *FS) Lookup(path string) (*Node, error) {
	ctx := context.Background()
	r := fs.reader()
	n, entries, err := r.load(ctx, "", rootInode)
	if err != nil || path == "" {
		return n, err
	}
	for name := range strings.SplitSeq(path, "/") {
		i, ok := slices.BinarySearchFunc(entries, name, func(e entry, name string) int {
			return cmp.Compare(e.name, name)
		})
		if !ok {
			return nil, fmt.Errorf("ext4: %q: %w", path, iofs.ErrNotExist)
		}
		n, entries, err = r.load(ctx, join(n.Path, name), entries[i].inode)
		if err != nil {
			return nil, err
		}
	}
	return n, nil
}

// load reads what an inode is, and the entries if it is a directory.
func (r *reader) load(ctx context.Context, path string, num uint32) (*Node, []entry, error) {
	n, entries, err := r.loadInode(ctx, path, num)
	if err == nil || errors.Is(err, ctx.Err()) {
		return n, entries, err
	}
	return nil, nil, fmt.Errorf("%q: %w", path, err)
}

func (r *reader) loadInode(ctx context.Context, path string, num uint32) (*Node, []entry, error) {
	in, err := r.inode(num)
	if err != nil {
		return nil, nil, err
	}
	if len(path) > maxPath {
		return nil, nil, invalid(in.off, "a path of %d bytes", len(path))
	}
	if in.kind() == 0 || in.links == 0 {
		return nil, nil, invalid(in.off, "inode %d is not in use", num)
	}
	if num == rootInode && in.kind() != modeDir {
		return nil, nil, invalid(in.off, "inode %d, the root, is no directory", num)
	}
	n, err := r.node(path, &in)
	if err != nil || in.kind() != modeDir {
		return n, nil, err
	}
	entries, err := r.listDir(ctx, &in, n.Extents)
	if err != nil {
		return nil, nil, err
	}
	return n, entries, nil
}

// node makes the node of an inode.
func (r *reader) node(path string, in *inode) (*Node, error) {
	n := &Node{
		Path:    path,
		Inode:   in.num,
		Mode:    in.mode,
		Size:    in.size,
		ModTime: in.modTime(),
		UID:     in.uid(),
		GID:     in.gid(),
		Links:   uint32(in.links),
	}
	r.extents, r.meta = r.extents[:0], r.meta[:0]
	if in.mapped() {
		if err := r.mapBlocks(in); err != nil {
			return nil, err
		}
	}
	if in.attributes != 0 {
		r.addMeta(in.attributes * r.fs.blockSize)
	}
	if len(r.extents) > 0 {
		n.Extents = slices.Clone(r.extents)
	}
	if len(r.meta) > 0 {
		n.Meta = slices.Clone(r.meta)
	}
	var err error
	switch {
	case n.IsLink():
		n.Link, err = r.link(in, n)
	case n.IsRegular() && in.inline():
		n.Inline, err = in.inlineData()
	}
	if err != nil {
		return nil, err
	}
	return n, nil
}

// link returns where a symbolic link points to.
func (r *reader) link(in *inode, n *Node) (string, error) {
	if in.size == 0 || in.size > r.fs.blockSize {
		return "", invalid(in.off, "inode %d: a link of %d bytes", in.num, in.size)
	}
	var target []byte
	switch {
	case in.short():
		target = in.blockMap()[:in.size]
	case in.inline():
		var err error
		if target, err = in.inlineData(); err != nil {
			return "", err
		}
	default:
		target = make([]byte, in.size)
		if _, err := r.fs.Open(n).ReadAt(target, 0); err != nil {
			return "", err
		}
	}
	if in.flags&flagEncrypted == 0 && bytes.IndexByte(target, 0) >= 0 {
		return "", invalid(in.off, "inode %d: a link with a NUL", in.num)
	}
	return string(target), nil
}
