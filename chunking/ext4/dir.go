package ext4

import (
	"bytes"
	"cmp"
	"context"
	"slices"
)

// Limits of a walk.
const (
	maxEntries = 8 << 20
	maxLetters = 512 << 20 // bytes of all names
	maxPath    = 64 << 10  // bytes of a path
)

// dirent is an entry of a directory, a used one if inode is not 0.
type dirent struct {
	inode uint32
	size  int // bytes to the next one
	name  []byte
}

// direntAt reads the entry at a place of a block of a directory, or of one of the two
// parts of an inline one.
func (fs *FS) direntAt(b []byte, at int) (dirent, bool) {
	if at < 0 || len(b)-at < 8 {
		return dirent{}, false
	}
	b = b[at:]
	d := dirent{inode: le.Uint32(b), size: int(le.Uint16(b[4:]))}
	if fs.blockSize == 1<<16 { // a size of 17 bits: the lowest two are not needed
		if d.size == 0 || d.size == 1<<16-1 {
			d.size = 1 << 16
		} else {
			d.size = d.size&^3 | d.size&3<<16
		}
	}
	nameSize := int(b[6]) // behind it the type of the file, or 0
	if d.size < 8+nameSize || d.size%4 != 0 || d.size > len(b) {
		return dirent{}, false
	}
	d.name = b[8 : 8+nameSize]
	return d, true
}

// entry is an entry of a directory that Walk goes to.
type entry struct {
	name  string
	inode uint32
}

// listing collects the entries of a directory.
type listing struct {
	letters []byte // of all names
	entries []listed
}

type listed struct {
	end   int // of the name in letters
	inode uint32
}

// listDir returns the entries of a directory by name. extents are its blocks.
// What raw of the inode holds must still be valid.
func (r *reader) listDir(ctx context.Context, in *inode, extents []Extent) ([]entry, error) {
	if _, ok := r.dirs[in.num]; ok {
		return nil, invalid(in.off, "inode %d: a directory in two places", in.num)
	}
	r.dirs[in.num] = struct{}{}
	var l listing
	if in.inline() {
		rest, err := in.inlineRest()
		if err != nil {
			return nil, err
		}
		// The number of the parent stands where "." and ".." would.
		if err := r.addEntries(&l, in, in.blockMap()[4:], in.off+mapOff+4); err != nil {
			return nil, err
		}
		if err := r.addEntries(&l, in, rest, in.off); err != nil {
			return nil, err
		}
		return l.sorted(in)
	}
	err := r.eachDirBlock(ctx, in, extents, func(b []byte, off int64) error {
		return r.addEntries(&l, in, b, off)
	})
	if err != nil {
		return nil, err
	}
	return l.sorted(in)
}

// eachDirBlock reads the blocks of a directory, one after the other.
func (r *reader) eachDirBlock(ctx context.Context, in *inode, extents []Extent, fn func(b []byte, off int64) error) error {
	size := r.fs.blockSize
	for _, e := range extents {
		for at := int64(0); at < e.Size && e.File+at < in.size; at += size {
			if err := ctx.Err(); err != nil {
				return err
			}
			if e.Unwritten {
				return invalid(e.Disk, "inode %d: unwritten blocks of a directory", in.num)
			}
			b, err := r.readBlock(&r.dir, e.Disk+at)
			if err != nil {
				return err
			}
			if err := fn(b, e.Disk+at); err != nil {
				return err
			}
		}
	}
	return nil
}

// addEntries adds the entries in b, which stands at off. Blocks of a hash index look
// as if they had no entries, or those for the directory and its parent.
func (r *reader) addEntries(l *listing, in *inode, b []byte, off int64) error {
	for at := 0; at <= len(b)-8; {
		d, ok := r.fs.direntAt(b, at)
		if !ok {
			return invalid(off+int64(at), "inode %d: entry of a directory", in.num)
		}
		if d.inode != 0 && string(d.name) != "." && string(d.name) != ".." {
			if err := r.addEntry(l, in, d, off+int64(at)); err != nil {
				return err
			}
		}
		at += d.size
	}
	return nil
}

func (r *reader) addEntry(l *listing, in *inode, d dirent, off int64) error {
	if len(d.name) == 0 || bytes.IndexByte(d.name, '/') >= 0 || bytes.IndexByte(d.name, 0) >= 0 {
		if in.flags&flagEncrypted != 0 {
			return unsupported("encrypted directory, inode %d: name %q at %d", in.num, d.name, off)
		}
		return invalid(off, "inode %d: name %q", in.num, d.name)
	}
	if int64(d.inode) > r.fs.inodes || d.inode < r.fs.firstInode && d.inode != rootInode {
		return invalid(off, "inode %d: name %q of inode %d", in.num, d.name, d.inode)
	}
	r.entries++
	r.letters += int64(len(d.name))
	if r.entries > maxEntries || r.letters > maxLetters {
		return invalid(off, "%d entries of directories with %d bytes of names", r.entries, r.letters)
	}
	l.letters = append(l.letters, d.name...)
	l.entries = append(l.entries, listed{len(l.letters), d.inode})
	return nil
}

// sorted returns the entries in the order of their names.
func (l *listing) sorted(in *inode) ([]entry, error) {
	letters := string(l.letters)
	entries := make([]entry, len(l.entries))
	start := 0
	for i, e := range l.entries {
		entries[i] = entry{letters[start:e.end], e.inode}
		start = e.end
	}
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.name, b.name) })
	for i := 1; i < len(entries); i++ {
		if entries[i-1].name == entries[i].name {
			return nil, invalid(in.off, "inode %d: name %q twice", in.num, entries[i].name)
		}
	}
	return entries, nil
}
