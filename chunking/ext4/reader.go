package ext4

// Parts of inode tables that a reader keeps.
const (
	tableChunk = 16 << 10 // bytes, or a block if that is larger
	tableSlots = 256
)

// reader reads inodes and what hangs on them. It has the buffers for that and keeps
// count of what it read; it serves one walk.
type reader struct {
	fs     *FS
	budget int64 // blocks of trees and directories that may still be read

	tables [tableSlots]tableSlot
	tree   [maxDepth + 1][]byte // a buffer for each level
	dir    []byte               // a block of a directory

	extents, meta []Extent           // of the file that mapBlocks did last
	next          int64              // the first block of the file behind the extents so far
	seen          map[int64]struct{} // blocks of its tree

	dirs             map[uint32]struct{} // entered
	entries, letters int64               // of all directories

	onTree func(in *inode, off int64, b []byte) // sees each block of a tree
}

type tableSlot struct {
	off int64
	b   []byte // empty if there is nothing in the slot
}

func (fs *FS) reader() *reader {
	return &reader{fs: fs, budget: min(4*fs.blocks, 1<<25) + 1<<12, dirs: map[uint32]struct{}{}}
}

// inode reads an inode.
func (r *reader) inode(num uint32) (inode, error) {
	fs := r.fs
	if num == 0 || int64(num) > fs.inodes {
		return inode{}, invalid(superOff, "inode %d of %d", num, fs.inodes)
	}
	g, i := int64(num-1)/fs.inodesPerGroup, int64(num-1)%fs.inodesPerGroup
	off := fs.group(g).table*fs.blockSize + i*fs.inodeSize
	raw, err := r.table(off)
	if err != nil {
		return inode{}, err
	}
	return fs.parseInode(num, off, raw)
}

// table returns the bytes of the inode at off.
func (r *reader) table(off int64) ([]byte, error) {
	chunk := max(tableChunk, r.fs.blockSize)
	start := off - off%chunk
	slot := &r.tables[start/chunk%tableSlots]
	if len(slot.b) == 0 || slot.off != start {
		if slot.b == nil {
			slot.b = make([]byte, chunk)
		}
		b := slot.b[:min(chunk, r.fs.Size()-start)]
		slot.b = slot.b[:0]
		if err := r.fs.read(b, start); err != nil {
			return nil, err
		}
		slot.off, slot.b = start, b
	}
	return slot.b[off-start:][:r.fs.inodeSize], nil
}

// readBlock reads the block at off into a buffer, which is made when it is nil.
func (r *reader) readBlock(buf *[]byte, off int64) ([]byte, error) {
	if r.budget--; r.budget < 0 {
		return nil, invalid(off, "more trees and directories than the file system has room for")
	}
	if *buf == nil {
		*buf = make([]byte, r.fs.blockSize)
	}
	return *buf, r.fs.read(*buf, off)
}
