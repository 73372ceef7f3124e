// Package disk looks into disk images: VHDX, VHD, qcow2 and raw ones, with partitions (GPT,
// MBR) of ext2, ext3, ext4 and FAT in them. Images are read where they lie, never
// written, and need not be trusted.
//
// [Open] finds the volumes and their files; [Split] says which of an image's bytes
// belong to which file.
package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sort"

	"ferry/chunking/ext4"
	"ferry/chunking/fat"
	"ferry/chunking/partition"
	"ferry/chunking/qcow2"
	"ferry/chunking/vdisk"
	"ferry/chunking/vhd"
	"ferry/chunking/vhdx"
)

// ErrFormat says that a file is no disk image that is known.
var ErrFormat = errors.New("no disk image that is known")

// Head is how many bytes of a file tell whether it may be a disk image.
const Head = 2048

// Recognise reports whether a file that begins with head may be a disk image. Fixed
// VHDs say so at their end: they are known by what is in them.
func Recognise(head []byte) bool {
	switch {
	case bytes.HasPrefix(head, []byte("vhdxfile")), bytes.HasPrefix(head, []byte("conectix")), bytes.HasPrefix(head, []byte(qcow2.Magic)):
		return true
	case len(head) < Head:
		return false
	case bytes.Equal(head[512:520], []byte("EFI PART")): // GPT, sectors of 512 bytes
		return true
	case binary.LittleEndian.Uint16(head[1080:]) == 0xef53: // ext4, not partitioned
		return true
	}
	return head[510] == 0x55 && head[511] == 0xaa // MBR, or FAT
}

// Image is a disk image. It is safe for concurrent use as far as its reader is.
type Image struct {
	Format  string // "vhdx", "vhd", "qcow2" or "raw"
	Volumes []*Volume
	Table   *partition.Table // nil if the disk is not partitioned
	Virtual vdisk.Image      // nil of a raw image

	file    io.ReaderAt
	size    int64
	disk    io.ReaderAt // the virtual disk
	length  int64       // of it, in bytes
	sector  int64
	extents []extent
}

// extent is a run of the virtual disk that stands in the file.
type extent struct{ off, size, file int64 }

// Volume is a partition, or the whole of a disk that has none.
type Volume struct {
	Number int    // of the partition; 0 of a whole disk
	Name   string // of the partition or file system, may be empty
	Type   string // of the partition, as its table has it
	Kind   string // "ext4" (and ext2, ext3), "fat", or empty if it is not known
	Off    int64  // on the disk, in bytes
	Size   int64

	Ext4 *ext4.FS    // nil of others
	FAT  *fat.Volume // nil of others
	// Err says why a file system that was recognised cannot be read.
	Err error

	raw io.ReaderAt
}

// Open reads what is where in an image. Errors match [ErrFormat] if it is none, or
// those of packages vhdx, vhd and qcow2; damage within a volume is kept in the volume.
func Open(r io.ReaderAt, size int64) (*Image, error) {
	m := &Image{Format: "raw", file: r, size: size, disk: r, length: size, sector: 512}
	m.recognise()
	if err := m.open(); err != nil {
		return nil, err
	}
	if err := m.volumes(); err != nil {
		return nil, err
	}
	return m, nil
}

// recognise finds out the format.
func (m *Image) recognise() {
	var head, foot [8]byte // an error of reading is found when they are read again
	m.file.ReadAt(head[:], 0)
	if m.size >= 512 {
		m.file.ReadAt(foot[:], m.size-512)
	}
	switch {
	case string(head[:]) == "vhdxfile":
		m.Format = "vhdx"
	case string(head[:len(qcow2.Magic)]) == qcow2.Magic:
		m.Format = "qcow2"
	case string(head[:]) == "conectix", string(foot[:]) == "conectix":
		m.Format = "vhd"
	}
}

// open finds the virtual disk.
func (m *Image) open() error {
	add := func(off, size, file int64) {
		if file >= 0 {
			m.extents = append(m.extents, extent{off, size, file})
		}
	}
	var d vdisk.Image
	var err error
	switch m.Format {
	case "vhdx":
		d, err = vhdx.Open(m.file, m.size)
	case "vhd":
		d, err = vhd.Open(m.file, m.size)
	case "qcow2":
		d, err = qcow2.Open(m.file, m.size)
	default:
		add(0, m.size, 0)
		return nil
	}
	if err != nil {
		return err
	}
	m.Virtual, m.disk, m.length, m.sector = d, d, d.Size(), d.SectorSize()
	return d.Extents(func(e vdisk.Extent) error { add(e.Off, e.Size, e.File); return nil })
}

// Disk returns the virtual disk, its size in bytes, and that of a sector.
func (m *Image) Disk() (r io.ReaderAt, size, sector int64) { return m.disk, m.length, m.sector }

// volumes finds the partitions and what is in them.
func (m *Image) volumes() error {
	t, err := partition.Read(m.disk, m.length, m.sector)
	switch {
	case err == nil:
		m.Table = t
		for _, p := range t.Partitions {
			if p.Extended {
				continue
			}
			m.Volumes = append(m.Volumes, &Volume{Number: p.Number, Name: p.Name, Type: p.Type, Off: p.Off, Size: p.Size})
		}
	case errors.Is(err, partition.ErrFormat) || errors.Is(err, partition.ErrInvalid):
		m.Volumes = []*Volume{{Size: m.length}}
	default:
		return err
	}
	known := false
	for _, v := range m.Volumes {
		if err := v.open(io.NewSectionReader(m.disk, v.Off, v.Size)); err != nil {
			return err
		}
		known = known || v.Kind != ""
	}
	if m.Table == nil && !known && m.Format == "raw" {
		return fmt.Errorf("%w: neither a partition table nor a file system stands where one should", ErrFormat)
	}
	return nil
}

func (v *Volume) open(r io.ReaderAt) error {
	v.raw = r
	fs, err := ext4.Open(r, v.Size)
	switch {
	case err == nil:
		v.Kind, v.Ext4 = "ext4", fs
		if v.Name == "" {
			v.Name = fs.Label()
		}
		return nil
	case errors.Is(err, ext4.ErrInvalid) || errors.Is(err, ext4.ErrUnsupported):
		v.Kind, v.Err = "ext4", err
		return nil
	case !errors.Is(err, ext4.ErrFormat):
		return err
	}
	f, err := fat.Open(r, v.Size)
	switch {
	case err == nil:
		v.Kind, v.FAT = "fat", f
	case errors.Is(err, fat.ErrInvalid) || errors.Is(err, fat.ErrUnsupported):
		v.Kind, v.Err = "fat", err
	case !errors.Is(err, fat.ErrFormat):
		return err
	}
	return nil
}

// Volume returns the volume of that number.
func (m *Image) Volume(number int) (*Volume, bool) {
	for _, v := range m.Volumes {
		if v.Number == number {
			return v, true
		}
	}
	return nil, false
}

// where calls fn for each run of the file that holds bytes of [off, off+size) of the
// disk, in order; the rest of them are zeros.
func (m *Image) where(off, size int64, fn func(Range)) {
	i := sort.Search(len(m.extents), func(i int) bool { return m.extents[i].off+m.extents[i].size > off })
	for ; i < len(m.extents) && m.extents[i].off < off+size; i++ {
		e := m.extents[i]
		from, to := max(off, e.off), min(off+size, e.off+e.size)
		fn(Range{Off: e.file + from - e.off, Size: to - from})
	}
}
