package qcow2

import (
	"fmt"
	"io"
	"slices"

	"ferry/chunking/ondisk"
	"ferry/chunking/vdisk"
)

// Image is the virtual disk in an image file.
type Image struct {
	r      io.ReaderAt
	size   int64 // of the file
	head   header
	tables []int64 // where those of level 2 are; 0 where there is none
	disk   vdisk.Reader
}

var _ vdisk.Image = (*Image)(nil)

// Open opens an image file of size bytes. The error is [ErrFormat], or wraps
// [ErrUnsupported], [ErrInvalid] or an error of r.
func Open(r io.ReaderAt, size int64) (*Image, error) {
	head, err := readHeader(r, size)
	if err != nil {
		return nil, err
	}
	d := &Image{r: r, size: size, head: head}
	d.disk = vdisk.Reader{Format: "qcow2", Size: head.diskSize, File: r, Walk: d.walk}
	if err := d.readLevel1(); err != nil {
		return nil, err
	}
	return d, nil
}

// readLevel1 reads the table of level 1. No two of its entries have the same table of
// level 2: else a small file would be a disk of any size.
func (d *Image) readLevel1() error {
	b := make([]byte, 8*d.head.entries)
	if err := ondisk.ReadFull(d.r, b, d.head.level1); err != nil {
		return fmt.Errorf("qcow2: table of level 1: %w", err)
	}
	d.tables = make([]int64, d.head.entries)
	var places []int64
	for i := range d.tables {
		at := be.Uint64(b[8*i:]) & offsetMask
		if at == 0 {
			continue
		}
		if !d.head.within(at, d.head.cluster, d.size) {
			return invalid("table of level 1, entry %d: a table at %d, but the file has %d bytes", i, at, d.size)
		}
		d.tables[i] = int64(at)
		places = append(places, int64(at))
	}
	slices.Sort(places)
	for i := 1; i < len(places); i++ {
		if places[i] == places[i-1] {
			return invalid("the table of level 2 at %d is used twice", places[i])
		}
	}
	return nil
}

// Size returns the size of the virtual disk in bytes.
func (d *Image) Size() int64 { return d.head.diskSize }

// SectorSize returns the size of a logical sector, which is 512 bytes.
func (d *Image) SectorSize() int64 { return sector }

// Info returns what the image says of itself.
func (d *Image) Info() vdisk.Info {
	return vdisk.Info{Kind: "dynamic", BlockSize: d.head.cluster, LogicalSector: sector, PhysicalSector: sector}
}

// Structures returns where the image file's own structures are, in the order of the
// file and without overlaps; not the blocks of reference counts, nor what snapshots have.
func (d *Image) Structures() []vdisk.Area {
	c := d.head.cluster
	areas := []vdisk.Area{
		{Name: "header", Off: 0, Size: min(c, d.size)},
		{Name: "table of reference counts", Off: d.head.refs, Size: d.head.refsSize},
		{Name: "table of level 1", Off: d.head.level1, Size: min((8*d.head.entries+c-1)/c*c, d.size-d.head.level1)},
	}
	for _, at := range d.tables {
		if at > 0 {
			areas = append(areas, vdisk.Area{Name: "tables of level 2", Off: at, Size: c})
		}
	}
	return vdisk.Apart(areas, d.size)
}

// ReadAt reads the virtual disk. Errors wrap [ErrUnsupported], [ErrInvalid] or come from
// the reader.
func (d *Image) ReadAt(p []byte, off int64) (int, error) { return d.disk.ReadAt(p, off) }

// Extents gives the whole virtual disk to fn, in order. Runs that are neighbours
// both on the disk and in the file are one. It looks at all tables first: the error wraps
// [ErrInvalid] if clusters are used twice or lie outside the file, [ErrUnsupported] if one
// is compressed; an error of fn is returned as it is.
func (d *Image) Extents(fn func(vdisk.Extent) error) error {
	err := d.survey(func(_ int64, text string) error { return invalid("%s", text) })
	if err != nil {
		return err
	}
	return vdisk.Join(func(add func(vdisk.Extent) error) error { return d.walk(0, d.head.diskSize, add) }, fn)
}
