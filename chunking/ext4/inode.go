package ext4

import (
	"bytes"
	"time"
)

// Types of files, in the mode of an inode.
const (
	modeType    = 0xF000
	modeDir     = 0x4000
	modeRegular = 0x8000
	modeLink    = 0xA000
)

// Flags of an inode.
const (
	flagEncrypted = 0x800
	flagExtents   = 0x80000
	flagInline    = 0x10000000
)

// rootInode is the number of the root directory's inode.
const rootInode = 2

// In an inode, the map of blocks, which holds inline data and short links too.
const (
	mapOff  = 0x28
	mapSize = 60
)

// maxFileBlocks bounds the blocks of a file: their numbers have 32 bits.
const maxFileBlocks = 1 << 32

// inode is an inode. What raw holds is valid until the reader reads the next one.
type inode struct {
	num uint32
	off int64 // in the partition
	raw []byte

	mode       uint16
	links      uint16
	flags      uint32
	generation uint32
	size       int64
	attributes int64 // the block of extended attributes, or 0
	extra      int   // bytes of fields behind the first 128 bytes
}

func (in *inode) kind() uint16 { return in.mode & modeType }

// blockMap returns the bytes of the inode that map blocks.
func (in *inode) blockMap() []byte { return in.raw[mapOff : mapOff+mapSize] }

// inline reports whether the file's data are in the inode.
func (in *inode) inline() bool { return in.flags&flagInline != 0 }

// short reports whether the inode is a symbolic link with its target in place of
// the map of blocks.
func (in *inode) short() bool {
	return in.kind() == modeLink && !in.inline() && in.size < mapSize &&
		(in.flags&flagExtents == 0 || le.Uint16(in.blockMap()) != extentMagic)
}

// mapped reports whether the inode has blocks for data.
func (in *inode) mapped() bool {
	switch in.kind() {
	case modeDir, modeRegular:
		return !in.inline()
	case modeLink:
		return !in.inline() && !in.short()
	default:
		return false
	}
}

// parseInode reads the fields of an inode that stands in raw.
func (fs *FS) parseInode(num uint32, off int64, raw []byte) (inode, error) {
	in := inode{
		num:        num,
		off:        off,
		raw:        raw,
		mode:       le.Uint16(raw[0x00:]),
		links:      le.Uint16(raw[0x1A:]),
		flags:      le.Uint32(raw[0x20:]),
		generation: le.Uint32(raw[0x64:]),
		size:       int64(le.Uint32(raw[0x04:])),
		attributes: int64(le.Uint32(raw[0x68:])),
	}
	if in.kind() == modeRegular || in.kind() == modeDir && fs.incompat&incompatLargeDir != 0 {
		in.size |= int64(le.Uint32(raw[0x6C:])) << 32
	}
	if in.size < 0 || in.size > maxFileBlocks*fs.blockSize {
		return in, invalid(off, "inode %d: size %d", num, uint64(in.size))
	}
	if fs.incompat&incompat64Bit != 0 {
		in.attributes |= int64(le.Uint16(raw[0x76:])) << 32
	}
	if in.attributes != 0 && !fs.inside(in.attributes, 1) {
		return in, invalid(off, "inode %d: attributes in block %d", num, in.attributes)
	}
	if len(raw) > 128 {
		in.extra = int(le.Uint16(raw[0x80:]))
		if in.extra > len(raw)-128 || in.extra%4 != 0 {
			return in, invalid(off, "inode %d: %d extra bytes", num, in.extra)
		}
	}
	return in, nil
}

// inside reports whether n blocks lie in the file system, behind its superblock.
func (fs *FS) inside(block, n int64) bool {
	return block > fs.firstData && block <= fs.blocks-n
}

// modTime returns when the file's data were changed.
func (in *inode) modTime() time.Time {
	seconds, nanoseconds := int64(int32(le.Uint32(in.raw[0x10:]))), int64(0)
	if in.extra >= 0x8C-0x80 {
		more := le.Uint32(in.raw[0x88:])
		seconds += int64(more&3) << 32
		nanoseconds = int64(more >> 2)
	}
	return time.Unix(seconds, nanoseconds).UTC()
}

func (in *inode) uid() uint32 {
	return uint32(le.Uint16(in.raw[0x02:])) | uint32(le.Uint16(in.raw[0x78:]))<<16
}

func (in *inode) gid() uint32 {
	return uint32(le.Uint16(in.raw[0x18:])) | uint32(le.Uint16(in.raw[0x7A:]))<<16
}

// attributesMagic begins extended attributes, in an inode and in a block.
const attributesMagic = 0xEA020000

// inlineRest returns what inline data have behind the first 60 bytes: the value of
// the attribute system.data. It is nil where there is none.
func (in *inode) inlineRest() ([]byte, error) {
	bad := func() ([]byte, error) {
		return nil, invalid(in.off, "inode %d: extended attributes", in.num)
	}
	if in.extra == 0 || len(in.raw) < 128+in.extra+4 {
		return nil, nil
	}
	b := in.raw[128+in.extra:]
	if le.Uint32(b) != attributesMagic {
		return nil, nil
	}
	b = b[4:]
	for at := 0; len(b)-at >= 4 && le.Uint32(b[at:]) != 0; {
		if len(b)-at < 16 {
			return bad()
		}
		e := b[at:]
		nameSize := int(e[0])
		if 16+nameSize > len(e) {
			return bad()
		}
		if e[1] == 7 && string(e[16:16+nameSize]) == "data" {
			off, size := int64(le.Uint16(e[2:])), int64(le.Uint32(e[8:]))
			if le.Uint32(e[4:]) != 0 || off > int64(len(b)) || size > int64(len(b))-off {
				return bad()
			}
			return b[off : off+size], nil
		}
		at += (16 + nameSize + 3) &^ 3
	}
	return nil, nil
}

// inlineData returns a copy of the data of an inline file.
func (in *inode) inlineData() ([]byte, error) {
	rest, err := in.inlineRest()
	if err != nil {
		return nil, err
	}
	if in.size > int64(mapSize+len(rest)) {
		return nil, invalid(in.off, "inode %d: %d bytes, and %d in the inode", in.num, in.size, mapSize+len(rest))
	}
	data := append(bytes.Clone(in.blockMap()), rest...)
	return data[:in.size:in.size], nil
}
