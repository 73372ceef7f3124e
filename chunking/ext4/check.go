package ext4

import (
	"context"
	"errors"
	"fmt"
)

// Check looks whether the file system fits together and reports what does not, with
// the place in the partition: checksums of the superblock, of group descriptors,
// bitmaps, inodes, extent trees, directories and blocks of extended attributes, as
// far as the file system has them; counts of what is free; blocks in use that are
// marked free; inodes, trees and directories that cannot be read; and what the
// superblock says of errors, of a missing unmount and of a journal to replay, which
// may be the cause of others. It does not look at copies of the superblock and the
// descriptors, nor into the journal, nor whether two files use the same block. The
// error is that of a read, or of ctx.
func (fs *FS) Check(ctx context.Context, report func(off int64, text string)) error {
	c := &checker{fs: fs, r: fs.reader(), out: report, fixed: fs.fixed(), attributes: map[int64]struct{}{}}
	c.r.onTree = c.treeBlock
	c.superblock()
	if err := c.mmp(); err != nil {
		return err
	}
	for g := range fs.groups {
		if err := ctx.Err(); err != nil {
			return err
		}
		c.descriptor(g)
		if err := c.blockBitmap(g); err != nil {
			return err
		}
		if err := c.inodeBitmap(g); err != nil {
			return err
		}
		if err := c.inodes(ctx, g); err != nil {
			return err
		}
	}
	c.totals()
	return nil
}

// bitmapSlots is how many block bitmaps a check keeps.
const bitmapSlots = 64

type checker struct {
	fs    *FS
	r     *reader
	out   func(off int64, text string)
	fixed []Area

	bitmaps    [bitmapSlots]bitmapSlot
	inodesUsed []byte // the inode bitmap of the group at hand
	block      []byte // a buffer for other blocks

	freeBlocks, freeInodes int64
	attributes             map[int64]struct{} // blocks that were looked at
}

type bitmapSlot struct {
	group int64 // + 1
	on    bool  // it is on disk
	b     []byte
}

func (c *checker) report(off int64, format string, args ...any) {
	c.out(off, fmt.Sprintf(format, args...))
}

// found reports an error if it is one of the file system, and returns it if not.
func (c *checker) found(err error) error {
	var bad *invalidError
	if errors.As(err, &bad) {
		c.out(bad.off, bad.what)
		return nil
	}
	return err
}

func (c *checker) superblock() {
	fs := c.fs
	if fs.hasChecksums() {
		if sum, want := crc32c(^uint32(0), fs.super[:0x3FC]), fs.super32(0x3FC); sum != want {
			c.report(superOff, "superblock: checksum %08x, want %08x", sum, want)
		}
	}
	state := fs.super16(0x3A)
	if state&1 == 0 {
		c.report(superOff+0x3A, "superblock: not unmounted")
	}
	if state&2 != 0 {
		c.report(superOff+0x3A, "superblock: marked as damaged")
	}
	if fs.NeedsRecovery() {
		c.report(superOff+0x60, "superblock: the journal must be replayed")
	}
	if n := fs.super32(0xE8); n != 0 {
		c.report(superOff+0xE8, "superblock: deleted files are left, the first is inode %d", n)
	}
	if fs.roCompat&roCompatOrphanPresent != 0 {
		c.report(superOff+0x64, "superblock: deleted files are left in the orphan file")
	}
	if n := fs.super32(0x194); n != 0 {
		c.report(superOff+0x194, "superblock: %d errors were recorded, the first in %q, line %d, inode %d, block %d",
			n, text(fs.super[0x1A8:0x1C8]), fs.super32(0x1C8), fs.super32(0x19C), le.Uint64(fs.super[0x1A0:]))
	}
}

// totals compares the superblock's counts with those of the bitmaps. They are not
// kept while a file system is mounted.
func (c *checker) totals() {
	fs := c.fs
	if fs.NeedsRecovery() {
		return
	}
	blocks := int64(fs.super32(0x0C))
	if fs.incompat&incompat64Bit != 0 {
		blocks |= int64(fs.super32(0x158)) << 32
	}
	if blocks != c.freeBlocks {
		c.report(superOff+0x0C, "superblock: %d free blocks, the bitmaps have %d", blocks, c.freeBlocks)
	}
	if inodes := int64(fs.super32(0x10)); inodes != c.freeInodes {
		c.report(superOff+0x10, "superblock: %d free inodes, the bitmaps have %d", inodes, c.freeInodes)
	}
}

func (c *checker) mmp() error {
	fs := c.fs
	if fs.incompat&incompatMMP == 0 || !fs.hasChecksums() {
		return nil
	}
	block, err := fs.mmpBlock()
	if err != nil {
		return c.found(err)
	}
	b, err := c.readBlock(block)
	if err != nil {
		return err
	}
	if crc32c(fs.seed, b[:0x3FC]) != le.Uint32(b[0x3FC:]) {
		c.report(block*fs.blockSize, "mmp block: wrong checksum")
	}
	return nil
}

// readBlock reads a block into c.block.
func (c *checker) readBlock(block int64) ([]byte, error) {
	if c.block == nil {
		c.block = make([]byte, c.fs.blockSize)
	}
	return c.block, c.fs.read(c.block, block*c.fs.blockSize)
}

func (c *checker) descriptor(g int64) {
	if !c.fs.lazy() {
		return
	}
	if sum, want := c.fs.descSum(g), c.fs.group(g).sum; sum != want {
		c.report(c.fs.descOff(g), "group %d: descriptor: checksum %04x, want %04x", g, sum, want)
	}
}

func (c *checker) blockBitmap(g int64) error {
	fs, d := c.fs, c.fs.group(g)
	off := d.blockBitmap * fs.blockSize
	b, on, err := c.blockBits(g)
	if err != nil {
		return err
	}
	n, start := fs.groupBlocks(g), fs.groupStart(g)*fs.blockSize
	var free int64
	if on {
		free = countClear(b, n)
		if fs.hasChecksums() && !fs.bitmapSumMatches(b[:fs.perGroup/8], d.blockBitmapSum) {
			c.report(off, "group %d: block bitmap: wrong checksum", g)
		}
	} else {
		free = n - overlap(c.fixed, start, start+n*fs.blockSize)/fs.blockSize
	}
	if free != d.freeBlocks {
		c.report(fs.descOff(g), "group %d: %d free blocks, the bitmap has %d", g, d.freeBlocks, free)
	}
	c.freeBlocks += free
	return nil
}

// blockBits returns the block bitmap of a group, and whether there is one on disk.
func (c *checker) blockBits(g int64) ([]byte, bool, error) {
	slot := &c.bitmaps[g%bitmapSlots]
	if slot.group == g+1 {
		return slot.b, slot.on, nil
	}
	if slot.b == nil {
		slot.b = make([]byte, c.fs.blockSize)
	}
	slot.group = 0
	on, err := c.fs.readBlockBitmap(g, slot.b)
	if err != nil {
		return nil, false, err
	}
	slot.group, slot.on = g+1, on
	return slot.b, on, nil
}

// countClear returns how many of the first n bits are not set.
func countClear(b []byte, n int64) int64 {
	count := int64(0)
	for i := nextBit(b, 0, n, false); i < n; {
		end := nextBit(b, i, n, true)
		count += end - i
		i = nextBit(b, end, n, false)
	}
	return count
}

func (c *checker) inodeBitmap(g int64) error {
	fs, d := c.fs, c.fs.group(g)
	if c.inodesUsed == nil {
		c.inodesUsed = make([]byte, fs.blockSize)
	}
	off := d.inodeBitmap * fs.blockSize
	if d.flags&groupInodeUninit != 0 {
		clear(c.inodesUsed)
	} else {
		if err := fs.read(c.inodesUsed, off); err != nil {
			return err
		}
		if fs.hasChecksums() && !fs.bitmapSumMatches(c.inodesUsed[:fs.inodesPerGroup/8], d.inodeBitmapSum) {
			c.report(off, "group %d: inode bitmap: wrong checksum", g)
		}
	}
	free := countClear(c.inodesUsed, fs.inodesPerGroup)
	if free != d.freeInodes {
		c.report(fs.descOff(g), "group %d: %d free inodes, the bitmap has %d", g, d.freeInodes, free)
	}
	c.freeInodes += free
	return nil
}
