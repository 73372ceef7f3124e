package ext4

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"

	"ferry/chunking/ondisk"
)

// The superblock is 1 KiB from the start, whatever the size of a block.
const (
	superOff   = 1024
	superSize  = 1024
	superMagic = 0xEF53
)

// Features. The names are those of mke2fs.
const (
	compatJournal      = 0x4
	compatResizeInode  = 0x10
	compatSparseSuper2 = 0x200
	compatOrphanFile   = 0x1000

	incompatFiletype   = 0x2
	incompatRecover    = 0x4
	incompatMetaBG     = 0x10
	incompatExtents    = 0x40
	incompat64Bit      = 0x80
	incompatMMP        = 0x100
	incompatFlexBG     = 0x200
	incompatEAInode    = 0x400
	incompatCsumSeed   = 0x2000
	incompatLargeDir   = 0x4000
	incompatInlineData = 0x8000
	incompatEncrypt    = 0x10000
	incompatCasefold   = 0x20000

	incompatKnown = incompatFiletype | incompatRecover | incompatMetaBG | incompatExtents |
		incompat64Bit | incompatMMP | incompatFlexBG | incompatEAInode | incompatCsumSeed |
		incompatLargeDir | incompatInlineData | incompatEncrypt | incompatCasefold

	roCompatSparseSuper   = 0x1
	roCompatGDTCsum       = 0x10
	roCompatQuota         = 0x100
	roCompatBigalloc      = 0x200
	roCompatMetadataCsum  = 0x400
	roCompatOrphanPresent = 0x10000
)

// maxDescriptors bounds the table of group descriptors, in bytes: enough for
// 128 TiB in groups of the usual size.
const maxDescriptors = 64 << 20

var le = binary.LittleEndian

// FS is an ext2, ext3 or ext4 file system. It holds the superblock and the group
// descriptors.
type FS struct {
	r     io.ReaderAt
	super [superSize]byte

	compat, incompat, roCompat uint32

	blockSize int64 // bytes
	blocks    int64 // of the file system
	firstData int64 // the block where the first group begins
	perGroup  int64 // blocks of a group; the last one may have fewer
	groups    int64

	inodes         int64
	inodesPerGroup int64
	inodeSize      int64 // bytes
	tableBlocks    int64 // of a group's inode table
	firstInode     uint32

	descSize   int64  // bytes of a group descriptor
	descs      []byte // all of them
	descBlocks int64  // of the table
	firstMeta  int64  // so many of descBlocks stand together, behind the superblock

	seed uint32 // of checksums
}

// Open reads the superblock and the group descriptors of the file system in r, a
// partition of size bytes. It gives [ErrFormat] when there is none, [ErrUnsupported]
// or [ErrInvalid], or what r gives. r must stay readable as long as the FS is used.
func Open(r io.ReaderAt, size int64) (*FS, error) {
	fs := &FS{r: r}
	if size < superOff+superSize {
		return nil, fmt.Errorf("ext4: %d bytes: %w", size, ErrFormat)
	}
	if err := readFull(r, fs.super[:], superOff); err != nil {
		return nil, err
	}
	if fs.super16(0x38) != superMagic {
		return nil, fmt.Errorf("ext4: no magic at %d: %w", superOff+0x38, ErrFormat)
	}
	if err := fs.readFeatures(); err != nil {
		return nil, err
	}
	if err := fs.readGeometry(size); err != nil {
		return nil, err
	}
	if err := fs.readInodeGeometry(); err != nil {
		return nil, err
	}
	if err := fs.readDescriptors(); err != nil {
		return nil, err
	}
	return fs, nil
}

func (fs *FS) super16(at int) uint16 { return le.Uint16(fs.super[at:]) }
func (fs *FS) super32(at int) uint32 { return le.Uint32(fs.super[at:]) }

func (fs *FS) readFeatures() error {
	switch rev := fs.super32(0x4C); rev {
	case 0: // the fields behind mean nothing
		fs.inodeSize, fs.firstInode = 128, 11
		return nil
	case 1:
	default:
		return unsupported("revision %d", rev)
	}
	fs.compat, fs.incompat, fs.roCompat = fs.super32(0x5C), fs.super32(0x60), fs.super32(0x64)
	fs.firstInode, fs.inodeSize = fs.super32(0x54), int64(fs.super16(0x58))
	if unknown := fs.incompat &^ incompatKnown; unknown != 0 {
		return unsupported("incompatible features %#x", unknown)
	}
	if fs.roCompat&roCompatBigalloc != 0 {
		return unsupported("clusters (bigalloc)")
	}
	if fs.hasChecksums() && fs.super[0x175] != 1 {
		return unsupported("checksum type %d", fs.super[0x175])
	}
	if fs.incompat&incompatCsumSeed != 0 {
		fs.seed = fs.super32(0x270)
	} else {
		fs.seed = crc32c(^uint32(0), fs.super[0x68:0x78])
	}
	return nil
}

func (fs *FS) readGeometry(size int64) error {
	log := fs.super32(0x18)
	if log > 6 {
		return invalid(superOff+0x18, "block size 2^%d KiB", log)
	}
	fs.blockSize = 1024 << log
	fs.blocks = int64(fs.super32(0x04))
	if fs.incompat&incompat64Bit != 0 {
		fs.blocks |= int64(fs.super32(0x150)) << 32
	}
	if fs.blocks < 0 || fs.blocks > size/fs.blockSize {
		return invalid(superOff+0x04, "%d blocks of %d bytes in a partition of %d bytes", fs.blocks, fs.blockSize, size)
	}
	fs.firstData = int64(fs.super32(0x14))
	if want := superOff / fs.blockSize; fs.firstData != want {
		return invalid(superOff+0x14, "first block %d, want %d", fs.firstData, want)
	}
	if fs.blocks <= fs.firstData {
		return invalid(superOff+0x04, "%d blocks", fs.blocks)
	}
	fs.perGroup = int64(fs.super32(0x20))
	if fs.perGroup == 0 || fs.perGroup%8 != 0 || fs.perGroup > 8*fs.blockSize {
		return invalid(superOff+0x20, "%d blocks per group", fs.perGroup)
	}
	fs.groups = ceilDiv(fs.blocks-fs.firstData, fs.perGroup)
	if fs.groups > maxDescriptors/32 {
		return unsupported("%d groups", fs.groups)
	}
	return nil
}

func (fs *FS) readInodeGeometry() error {
	if s := fs.inodeSize; s < 128 || s > fs.blockSize || s&(s-1) != 0 {
		return invalid(superOff+0x58, "inode size %d", s)
	}
	if fs.firstInode < 11 {
		return invalid(superOff+0x54, "first inode %d", fs.firstInode)
	}
	fs.inodes, fs.inodesPerGroup = int64(fs.super32(0x00)), int64(fs.super32(0x28))
	if n := fs.inodesPerGroup; n == 0 || n > 8*fs.blockSize {
		return invalid(superOff+0x28, "%d inodes per group", n)
	}
	if fs.inodes != fs.groups*fs.inodesPerGroup {
		return invalid(superOff, "%d inodes in %d groups of %d", fs.inodes, fs.groups, fs.inodesPerGroup)
	}
	fs.tableBlocks = ceilDiv(fs.inodesPerGroup*fs.inodeSize, fs.blockSize)
	return nil
}

func ceilDiv(a, b int64) int64 { return (a + b - 1) / b }

// Size returns the bytes of the file system, at most those of the partition.
func (fs *FS) Size() int64 { return fs.blocks * fs.blockSize }

// BlockSize returns the bytes of a block, a power of two in [1 KiB, 64 KiB].
func (fs *FS) BlockSize() int64 { return fs.blockSize }

// UUID returns what identifies the file system; zero when it has none.
func (fs *FS) UUID() [16]byte { return [16]byte(fs.super[0x68:0x78]) }

// Label returns the name of the volume, often empty.
func (fs *FS) Label() string { return text(fs.super[0x78:0x88]) }

// text is what stands before the first NUL.
func text(b []byte) string {
	before, _, _ := bytes.Cut(b, []byte{0})
	return string(before)
}

// NeedsRecovery reports whether the journal has changes that are not in their places
// yet: what this package shows is then older than what a mount shows, and may not
// fit together.
func (fs *FS) NeedsRecovery() bool { return fs.incompat&incompatRecover != 0 }

func (fs *FS) hasChecksums() bool { return fs.roCompat&roCompatMetadataCsum != 0 }

// read fills p from a place of the file system.
func (fs *FS) read(p []byte, off int64) error {
	if off < 0 || off > fs.Size()-int64(len(p)) {
		return invalid(off, "%d bytes beyond the end", len(p))
	}
	return readFull(fs.r, p, off)
}

func readFull(r io.ReaderAt, p []byte, off int64) error {
	if err := ondisk.ReadFull(r, p, off); err != nil {
		return fmt.Errorf("ext4: read %d bytes at %d: %w", len(p), off, err)
	}
	return nil
}

// nextBit returns the first bit of b in [from, to) that is set, or not; to if there
// is none. The length of b is a multiple of 8 bytes, to not more than its bits.
func nextBit(b []byte, from, to int64, set bool) int64 {
	for from < to {
		w := le.Uint64(b[from/64*8:])
		if !set {
			w = ^w
		}
		if w >>= from % 64; w != 0 {
			return min(from+int64(bits.TrailingZeros64(w)), to)
		}
		from = (from/64 + 1) * 64
	}
	return to
}
