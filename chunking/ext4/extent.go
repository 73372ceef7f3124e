package ext4

const extentMagic = 0xF30A

const (
	maxDepth      = 5       // of an extent tree
	maxTreeBlocks = 1 << 20 // of a file; a block map of 4 TiB at 4 KiB needs as many
	maxExtents    = 4 << 20 // of a file
)

// Extent is a run of a file's blocks that stands in one piece. Offsets and sizes are
// bytes, and whole blocks.
type Extent struct {
	File int64 // in the file
	Disk int64 // in the partition
	Size int64
	// Unwritten says that the blocks belong to the file but read as zeros.
	Unwritten bool
}

// mapBlocks finds the blocks of a file: r.extents is then those of its data, by
// place in the file, r.meta those of the tree.
func (r *reader) mapBlocks(in *inode) error {
	r.extents, r.meta, r.next = r.extents[:0], r.meta[:0], 0
	if len(r.seen) > 0 {
		r.seen = nil // to clear it takes as long as it ever was
	}
	m := in.blockMap()
	if in.flags&flagExtents != 0 {
		depth := int(le.Uint16(m[6:]))
		if depth > maxDepth {
			return invalid(in.off, "inode %d: extent tree of depth %d", in.num, depth)
		}
		return r.extentNode(in, m, in.off+mapOff, depth)
	}
	file, span := int64(0), int64(1)
	for i := range 15 {
		level := max(0, i-11)
		if level > 0 {
			span *= r.fs.blockSize / 4
		}
		if block := le.Uint32(m[4*i:]); block != 0 {
			if err := r.indirect(in, int64(block), level, file); err != nil {
				return err
			}
		}
		file += span
	}
	return nil
}

// indirect follows a pointer of a block map: to data at level 0, else to a block of
// pointers. file is the first block of the file that is mapped.
func (r *reader) indirect(in *inode, block int64, level int, file int64) error {
	if level == 0 {
		return r.addExtent(in, file, block, 1, false)
	}
	b, err := r.treeBlock(in, block, level)
	if err != nil {
		return err
	}
	span := int64(1)
	for range level - 1 {
		span *= r.fs.blockSize / 4
	}
	for ; len(b) > 0; b = b[4:] {
		if next := le.Uint32(b); next != 0 {
			if err := r.indirect(in, int64(next), level-1, file); err != nil {
				return err
			}
		}
		file += span
	}
	return nil
}

// extentNode reads a node of an extent tree, in an inode or a block, that stands at
// off.
func (r *reader) extentNode(in *inode, b []byte, off int64, depth int) error {
	n, room := int(le.Uint16(b[2:])), int(le.Uint16(b[4:]))
	if le.Uint16(b) != extentMagic || int(le.Uint16(b[6:])) != depth || n > room || 12+12*room > len(b) {
		return invalid(off, "inode %d: node of the extent tree", in.num)
	}
	for i := range n {
		e := b[12+12*i:][:12]
		if depth == 0 {
			if err := r.leafEntry(in, e, off); err != nil {
				return err
			}
			continue
		}
		child := int64(le.Uint32(e[4:])) | int64(le.Uint16(e[8:]))<<32
		c, err := r.treeBlock(in, child, depth)
		if err != nil {
			return err
		}
		if err := r.extentNode(in, c, child*r.fs.blockSize, depth-1); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) leafEntry(in *inode, e []byte, off int64) error {
	file, n := int64(le.Uint32(e)), int64(le.Uint16(e[4:]))
	unwritten := n > 1<<15
	if unwritten {
		n -= 1 << 15
	}
	if n == 0 || file < r.next {
		return invalid(off, "inode %d: extent of %d blocks at block %d", in.num, n, file)
	}
	r.next = file + n
	disk := int64(le.Uint32(e[8:])) | int64(le.Uint16(e[6:]))<<32
	return r.addExtent(in, file, disk, n, unwritten)
}

// addExtent adds blocks of data.
func (r *reader) addExtent(in *inode, file, disk, n int64, unwritten bool) error {
	if file > maxFileBlocks-n || !r.fs.inside(disk, n) {
		return invalid(in.off, "inode %d: blocks [%d, %d) for block %d of the file", in.num, disk, disk+n, file)
	}
	size := r.fs.blockSize
	e := Extent{File: file * size, Disk: disk * size, Size: n * size, Unwritten: unwritten}
	if k := len(r.extents); k > 0 {
		last := &r.extents[k-1]
		if last.File+last.Size == e.File && last.Disk+last.Size == e.Disk && last.Unwritten == unwritten {
			last.Size += e.Size
			return nil
		}
	}
	if len(r.extents) == maxExtents {
		return invalid(in.off, "inode %d: more than %d extents", in.num, maxExtents)
	}
	r.extents = append(r.extents, e)
	return nil
}

// treeBlock reads a block of a file's tree. It is valid until the next one of that
// level is read.
func (r *reader) treeBlock(in *inode, block int64, level int) ([]byte, error) {
	if !r.fs.inside(block, 1) {
		return nil, invalid(in.off, "inode %d: tree in block %d", in.num, block)
	}
	off := block * r.fs.blockSize
	if _, ok := r.seen[block]; ok {
		return nil, invalid(off, "inode %d: a block twice in the tree", in.num)
	}
	if len(r.seen) == maxTreeBlocks {
		return nil, invalid(in.off, "inode %d: a tree of more than %d blocks", in.num, maxTreeBlocks)
	}
	if r.seen == nil {
		r.seen = map[int64]struct{}{}
	}
	r.seen[block] = struct{}{}
	b, err := r.readBlock(&r.tree[level], off)
	if err != nil {
		return nil, err
	}
	if r.onTree != nil {
		r.onTree(in, off, b)
	}
	r.addMeta(off)
	return b, nil
}

// addMeta adds a block to r.meta.
func (r *reader) addMeta(off int64) {
	size := r.fs.blockSize
	if k := len(r.meta); k > 0 && r.meta[k-1].Disk+r.meta[k-1].Size == off {
		r.meta[k-1].Size += size
		return
	}
	r.meta = append(r.meta, Extent{Disk: off, Size: size})
}
