package ext4

// Flags of a group descriptor.
const (
	groupInodeUninit = 0x1 // the inode bitmap is not on disk: nothing is used
	groupBlockUninit = 0x2 // the block bitmap is not on disk: only metadata is used
)

// group is a group descriptor.
type group struct {
	blockBitmap, inodeBitmap, table int64 // blocks

	flags                          uint16
	freeBlocks, freeInodes         int64
	unusedInodes                   int64 // at the end of the table
	blockBitmapSum, inodeBitmapSum uint32
	sum                            uint16
}

func (fs *FS) readDescriptors() error {
	fs.descSize = 32
	if fs.incompat&incompat64Bit != 0 {
		fs.descSize = int64(fs.super16(0xFE))
		if s := fs.descSize; s < 64 || s > 1024 || s&(s-1) != 0 {
			return invalid(superOff+0xFE, "group descriptors of %d bytes", s)
		}
	}
	perBlock := fs.blockSize / fs.descSize
	fs.descBlocks = ceilDiv(fs.groups, perBlock)
	fs.firstMeta = fs.descBlocks
	if fs.incompat&incompatMetaBG != 0 {
		if fs.firstMeta = int64(fs.super32(0x104)); fs.firstMeta > fs.descBlocks {
			return invalid(superOff+0x104, "first meta group %d of %d", fs.firstMeta, fs.descBlocks)
		}
	}
	if fs.firstMeta >= fs.blocks-fs.firstData {
		return invalid(superOff, "%d blocks of group descriptors", fs.firstMeta)
	}
	if n := fs.descBlocks * fs.blockSize; n > maxDescriptors {
		return unsupported("%d bytes of group descriptors", n)
	}
	fs.descs = make([]byte, fs.descBlocks*fs.blockSize)
	for i := range fs.descBlocks {
		at := i * fs.blockSize
		if err := fs.read(fs.descs[at:at+fs.blockSize], fs.descBlock(i)*fs.blockSize); err != nil {
			return err
		}
	}
	if fs.groups*(fs.tableBlocks+2) > fs.blocks { // then groups share tables
		return invalid(superOff, "%d groups with tables of %d blocks in %d blocks", fs.groups, fs.tableBlocks, fs.blocks)
	}
	for g := range fs.groups {
		if err := fs.checkPlaces(g); err != nil {
			return err
		}
	}
	return nil
}

// checkPlaces proves that what a descriptor points to is in the file system.
func (fs *FS) checkPlaces(g int64) error {
	d := fs.group(g)
	for _, p := range []struct{ block, n int64 }{{d.blockBitmap, 1}, {d.inodeBitmap, 1}, {d.table, fs.tableBlocks}} {
		if p.block <= fs.firstData || p.block > fs.blocks-p.n {
			return invalid(fs.descOff(g), "group %d: blocks [%d, %d) of metadata", g, p.block, p.block+p.n)
		}
	}
	return nil
}

// descBlock returns the block with the i-th block of the descriptor table.
func (fs *FS) descBlock(i int64) int64 {
	if i < fs.firstMeta {
		return fs.firstData + 1 + i
	}
	g := i * (fs.blockSize / fs.descSize)
	if fs.hasSuper(g) {
		return fs.groupStart(g) + 1
	}
	return fs.groupStart(g)
}

// descOff returns the place of a group's descriptor, in bytes.
func (fs *FS) descOff(g int64) int64 {
	at := g * fs.descSize
	return fs.descBlock(at/fs.blockSize)*fs.blockSize + at%fs.blockSize
}

// desc returns the bytes of a group's descriptor.
func (fs *FS) desc(g int64) []byte { return fs.descs[g*fs.descSize:][:fs.descSize] }

func (fs *FS) group(g int64) group {
	b := fs.desc(g)
	d := group{
		blockBitmap:    int64(le.Uint32(b[0x00:])),
		inodeBitmap:    int64(le.Uint32(b[0x04:])),
		table:          int64(le.Uint32(b[0x08:])),
		freeBlocks:     int64(le.Uint16(b[0x0C:])),
		freeInodes:     int64(le.Uint16(b[0x0E:])),
		blockBitmapSum: uint32(le.Uint16(b[0x18:])),
		inodeBitmapSum: uint32(le.Uint16(b[0x1A:])),
		sum:            le.Uint16(b[0x1E:]),
	}
	if fs.lazy() {
		d.flags = le.Uint16(b[0x12:])
		d.unusedInodes = int64(le.Uint16(b[0x1C:]))
	}
	if fs.descSize < 64 {
		return d
	}
	d.blockBitmap |= int64(le.Uint32(b[0x20:])) << 32
	d.inodeBitmap |= int64(le.Uint32(b[0x24:])) << 32
	d.table |= int64(le.Uint32(b[0x28:])) << 32
	d.freeBlocks |= int64(le.Uint16(b[0x2C:])) << 16
	d.freeInodes |= int64(le.Uint16(b[0x2E:])) << 16
	d.blockBitmapSum |= uint32(le.Uint16(b[0x38:])) << 16
	d.inodeBitmapSum |= uint32(le.Uint16(b[0x3A:])) << 16
	if fs.lazy() {
		d.unusedInodes |= int64(le.Uint16(b[0x32:])) << 16
	}
	return d
}

// lazy reports whether bitmaps and tables may be uninitialized: only where
// descriptors have a checksum.
func (fs *FS) lazy() bool {
	return fs.roCompat&(roCompatGDTCsum|roCompatMetadataCsum) != 0
}

// groupStart returns the first block of a group.
func (fs *FS) groupStart(g int64) int64 { return fs.firstData + g*fs.perGroup }

// groupBlocks returns how many blocks a group has.
func (fs *FS) groupBlocks(g int64) int64 {
	return min(fs.perGroup, fs.blocks-fs.groupStart(g))
}

// hasSuper reports whether a group begins with a copy of the superblock.
func (fs *FS) hasSuper(g int64) bool {
	if g == 0 {
		return true
	}
	if fs.compat&compatSparseSuper2 != 0 {
		return g == int64(fs.super32(0x24C)) || g == int64(fs.super32(0x250))
	}
	if g == 1 || fs.roCompat&roCompatSparseSuper == 0 {
		return true
	}
	return isPower(g, 3) || isPower(g, 5) || isPower(g, 7)
}

func isPower(n, base int64) bool {
	for n%base == 0 {
		n /= base
	}
	return n == 1
}
