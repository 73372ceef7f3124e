package ext4

import (
	"context"

	"ferry/chunking/ondisk"
)

// inodes looks at the inodes of a group that its inode bitmap, just read, has in use.
func (c *checker) inodes(ctx context.Context, g int64) error {
	fs, d := c.fs, c.fs.group(g)
	n := fs.inodesPerGroup - d.unusedInodes
	if n < 0 {
		c.report(fs.descOff(g), "group %d: %d of %d inodes not initialized", g, d.unusedInodes, fs.inodesPerGroup)
		n = fs.inodesPerGroup
	}
	for i := nextBit(c.inodesUsed, 0, n, true); i < n; i = nextBit(c.inodesUsed, i+1, n, true) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.inode(ctx, uint32(g*fs.inodesPerGroup+i+1)); err != nil {
			return err
		}
	}
	if i := nextBit(c.inodesUsed, n, fs.inodesPerGroup, true); i < fs.inodesPerGroup {
		c.report(d.inodeBitmap*fs.blockSize, "group %d: inode %d is in use but not initialized", g, g*fs.inodesPerGroup+i+1)
	}
	return nil
}

func (c *checker) inode(ctx context.Context, num uint32) error {
	in, err := c.r.inode(num)
	if err != nil {
		return c.found(err)
	}
	if ondisk.IsZero(in.raw[:128]) {
		return nil // reserved
	}
	if c.fs.hasChecksums() && !c.fs.inodeSumMatches(&in) {
		c.report(in.off, "inode %d: wrong checksum", num)
		return nil // it may point anywhere
	}
	if in.attributes != 0 {
		if err := c.attributeBlock(&in); err != nil {
			return err
		}
	}
	if !in.mapped() {
		if in.inline() {
			_, err = in.inlineRest()
		}
		return c.found(err)
	}
	if err := c.r.mapBlocks(&in); err != nil {
		return c.found(err)
	}
	if err := c.blocksInUse(&in); err != nil {
		return err
	}
	if in.kind() != modeDir {
		return nil
	}
	return c.found(c.r.eachDirBlock(ctx, &in, c.r.extents, func(b []byte, off int64) error {
		c.dirBlock(&in, b, off)
		return nil
	}))
}

// blocksInUse reports when a bitmap marks a block of the file just mapped as free.
func (c *checker) blocksInUse(in *inode) error {
	for _, extents := range [][]Extent{c.r.extents, c.r.meta} {
		for _, e := range extents {
			block, err := c.firstFree(e.Disk/c.fs.blockSize, e.Size/c.fs.blockSize)
			if err != nil {
				return err
			}
			if block != 0 {
				c.report(in.off, "inode %d: block %d is marked free", in.num, block)
				return nil
			}
		}
	}
	return nil
}

// firstFree returns the first of n blocks that is marked free, or 0.
func (c *checker) firstFree(block, n int64) (int64, error) {
	fs := c.fs
	for n > 0 {
		g := (block - fs.firstData) / fs.perGroup
		from := block - fs.groupStart(g)
		to := min(from+n, fs.perGroup)
		b, on, err := c.blockBits(g)
		if err != nil {
			return 0, err
		}
		off, size := block*fs.blockSize, (to-from)*fs.blockSize
		if on {
			if i := nextBit(b, from, to, false); i < to {
				return fs.groupStart(g) + i, nil
			}
		} else if overlap(c.fixed, off, off+size) < size {
			return block, nil
		}
		block += to - from
		n -= to - from
	}
	return 0, nil
}

// treeBlock looks at a block of a file's tree.
func (c *checker) treeBlock(in *inode, off int64, b []byte) {
	if c.fs.hasChecksums() && in.flags&flagExtents != 0 && !c.fs.extentSumMatches(in, b) {
		c.report(off, "inode %d: block of the extent tree: wrong checksum", in.num)
	}
}

// attributeBlock looks at an inode's block of extended attributes, once.
func (c *checker) attributeBlock(in *inode) error {
	if _, ok := c.attributes[in.attributes]; ok {
		return nil
	}
	c.attributes[in.attributes] = struct{}{}
	off := in.attributes * c.fs.blockSize
	b, err := c.readBlock(in.attributes)
	switch {
	case err != nil:
		return err
	case le.Uint32(b) != attributesMagic:
		c.report(off, "inode %d: no extended attributes", in.num)
	case c.fs.hasChecksums() && !c.fs.attributeSumMatches(in.attributes, b):
		c.report(off, "inode %d: block of extended attributes: wrong checksum", in.num)
	}
	block, err := c.firstFree(in.attributes, 1)
	if block != 0 {
		c.report(in.off, "inode %d: block %d is marked free", in.num, block)
	}
	return err
}

// dirBlock looks at a block of a directory.
func (c *checker) dirBlock(in *inode, b []byte, off int64) {
	for at := 0; at <= len(b)-8; {
		d, ok := c.fs.direntAt(b, at)
		if !ok {
			c.report(off, "inode %d: malformed entry at byte %d of a directory's block", in.num, at)
			return
		}
		at += d.size
	}
	if !c.fs.hasChecksums() {
		return
	}
	switch sum, want, found := c.fs.dirSum(in, b); {
	case !found:
		c.report(off, "inode %d: block of a directory without a checksum", in.num)
	case sum != want:
		c.report(off, "inode %d: block of a directory: checksum %08x, want %08x", in.num, sum, want)
	}
}
