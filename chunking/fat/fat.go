// Package fat reads FAT12, FAT16 and FAT32 filesystems, such as the EFI system
// partition of a disk: which files there are, and where on the volume their bytes
// stand.
//
// It follows "Microsoft Extensible Firmware Initiative FAT32 File System
// Specification", version 1.03 (Microsoft, 2000), to which the section names in this
// package refer. It does not read exFAT.
//
// The bytes may be hostile. No input makes it panic or loop: a cluster belongs to one
// file at most, so all chains end. A volume takes the size of its FAT in memory, at
// most 64 MiB, and while it is walked a bit for each cluster, 2 MiB for a directory
// and the paths of directories that are still to be read.
//
// A [Volume] never changes: it may be used by several goroutines at once if its
// reader may.
package fat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"ferry/chunking/ondisk"
)

var (
	// ErrFormat says that there is no FAT filesystem.
	ErrFormat = errors.New("fat: not a FAT filesystem")
	// ErrUnsupported says that the filesystem is larger than this package reads.
	ErrUnsupported = errors.New("fat: unsupported")
	// ErrInvalid says that the filesystem is malformed.
	ErrInvalid = errors.New("fat: malformed")
)

func invalid(format string, args ...any) error {
	return ondisk.Errorf("fat", ErrInvalid, format, args...)
}

var le = binary.LittleEndian

const maxFAT = 64 << 20 // bytes

// Volume is a FAT filesystem.
type Volume struct {
	r        io.ReaderAt
	sector   int64 // bytes
	cluster  int64 // bytes
	reserved int64 // bytes before the first FAT
	fats     int64 // how many there are
	fatSize  int64 // bytes of each
	root     int64 // where the root directory is, of FAT12 and FAT16
	rootSize int64 // bytes; 0 for FAT32
	first    int64 // the root directory's first cluster, of FAT32
	data     int64 // where cluster 2 is
	clusters int64
	bits     int    // of an entry of the FAT: 12, 16 or 32
	fat      []byte // the one that counts
}

// Open opens a volume of size bytes. The error is [ErrFormat], or wraps
// [ErrUnsupported], [ErrInvalid] or an error of r.
func Open(r io.ReaderAt, size int64) (*Volume, error) {
	var b [512]byte
	if size < int64(len(b)) {
		return nil, ErrFormat
	}
	if err := ondisk.ReadFull(r, b[:], 0); err != nil {
		return nil, fmt.Errorf("fat: boot sector: %w", err)
	}
	v := &Volume{r: r}
	active, err := v.parse(b[:], size)
	if err != nil {
		return nil, err
	}
	n := ((v.clusters+2)*int64(v.bits) + 7) / 8 // at most fatSize
	if n > maxFAT {
		return nil, ondisk.Errorf("fat", ErrUnsupported, "a FAT of %d bytes", n)
	}
	v.fat = make([]byte, n)
	if err := ondisk.ReadFull(r, v.fat, v.reserved+active*v.fatSize); err != nil {
		return nil, fmt.Errorf("fat: FAT %d: %w", active+1, err)
	}
	return v, nil
}

// parse reads the boot sector and returns which FAT counts. "Boot Sector and BPB"
// and "FAT Type Determination".
func (v *Volume) parse(b []byte, size int64) (active int64, err error) {
	v.sector = int64(le.Uint16(b[11:]))
	perCluster := int64(b[13])
	reserved := int64(le.Uint16(b[14:]))
	v.fats = int64(b[16])
	if b[0] != 0xeb && b[0] != 0xe9 || b[510] != 0x55 || b[511] != 0xaa ||
		v.sector < 512 || v.sector > 4096 || v.sector&(v.sector-1) != 0 ||
		perCluster == 0 || perCluster&(perCluster-1) != 0 || reserved == 0 || v.fats == 0 || v.fats > 4 {
		return 0, ErrFormat
	}
	total := int64(le.Uint16(b[19:]))
	if total == 0 {
		total = int64(le.Uint32(b[32:]))
	}
	fatSectors := int64(le.Uint16(b[22:]))
	is32 := fatSectors == 0
	if is32 {
		fatSectors = int64(le.Uint32(b[36:]))
	}
	v.reserved = reserved * v.sector
	v.fatSize = fatSectors * v.sector
	v.cluster = perCluster * v.sector
	v.root = v.reserved + v.fats*v.fatSize
	v.rootSize = (int64(le.Uint16(b[17:]))*entrySize + v.sector - 1) / v.sector * v.sector
	v.data = v.root + v.rootSize
	end := total * v.sector
	if end > size || fatSectors == 0 || v.data+v.cluster > end {
		return 0, invalid("boot sector: %d sectors of %d bytes, %d of a FAT, in %d bytes", total, v.sector, fatSectors, size)
	}
	v.clusters = (end - v.data) / v.cluster
	// The specification has it that the number of clusters tells the type. What
	// formats small volumes as FAT32 goes by the 16-bit size, and so does all else.
	switch {
	case is32:
		v.bits = 32
	case v.clusters < 4085:
		v.bits = 12
	default:
		v.bits = 16
	}
	v.clusters = min(v.clusters, v.fatSize*8/int64(v.bits)-2)
	if v.clusters < 1 || is32 != (v.rootSize == 0) {
		return 0, invalid("boot sector: a FAT of %d bytes and a root directory of %d", v.fatSize, v.rootSize)
	}
	if is32 {
		v.first = int64(le.Uint32(b[44:]))
		if flags := le.Uint16(b[40:]); flags&0x80 != 0 { // FATs are not mirrored
			active = int64(flags & 0x0f)
		}
		if active >= v.fats || le.Uint16(b[42:]) != 0 || !v.isCluster(v.first) {
			return 0, invalid("boot sector: FAT %d of %d, root directory in cluster %d", active+1, v.fats, v.first)
		}
	}
	return active, nil
}

// isCluster reports whether a number is that of a cluster.
func (v *Volume) isCluster(c int64) bool { return c >= 2 && c < v.clusters+2 }

// offset returns where a cluster is on the volume, in bytes.
func (v *Volume) offset(c int64) int64 { return v.data + (c-2)*v.cluster }

// Special entries of a FAT. "FAT Data Structure".
const (
	entryFree = 0
	entryEnd  = -1 // as entry returns it
	entryBad  = -2
)

// entry returns what the FAT says of a cluster: the one that follows, or one of the
// above.
func (v *Volume) entry(c int64) int64 {
	var e, top int64
	switch v.bits {
	case 12:
		e, top = int64(le.Uint16(v.fat12(c)))>>(4*(c&1))&0xfff, 0xfff
	case 16:
		e, top = int64(le.Uint16(v.fat[2*c:])), 0xffff
	default:
		e, top = int64(le.Uint32(v.fat[4*c:]))&0x0fffffff, 0x0fffffff
	}
	switch {
	case e >= top-7:
		return entryEnd
	case e == top-8:
		return entryBad
	}
	return e
}

// fat12 returns the two bytes that hold an entry of 12 bits.
func (v *Volume) fat12(c int64) []byte { return v.fat[c+c/2:][:2] }

// Free gives what no file has, in bytes of the volume: runs of free clusters, in
// order. An error of fn ends it and is returned.
func (v *Volume) Free(fn func(off, size int64) error) error {
	for c := int64(2); v.isCluster(c); {
		from := c
		for v.isCluster(c) && v.entry(c) == entryFree {
			c++
		}
		if c > from {
			if err := fn(v.offset(from), (c-from)*v.cluster); err != nil {
				return err
			}
			continue
		}
		c++
	}
	return nil
}
