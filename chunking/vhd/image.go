package vhd

import (
	"cmp"
	"fmt"
	"io"
	"slices"

	"ferry/chunking/ondisk"
	"ferry/chunking/vdisk"
)

// Image is the virtual disk in an image file.
type Image struct {
	r       io.ReaderAt
	size    int64 // of the file
	foot    footer
	head    header       // of an image that is not fixed
	parent  vdisk.Parent // nil unless it is a differencing image
	problem string       // of the footer, when its copy is used
	disk    vdisk.Reader
}

var _ vdisk.Image = (*Image)(nil)

// Open opens an image file of size bytes. The error is [ErrFormat], a
// [*ParentError] if the image is a differencing one, or wraps [ErrUnsupported],
// [ErrInvalid] or an error of r.
func Open(r io.ReaderAt, size int64) (*Image, error) { return OpenDifferencing(r, size, nil) }

// OpenDifferencing opens an image file that may be a differencing one, the parent
// of which is given; that it is the right one is not checked. What lies behind the
// parent's end is zeros. Errors are as with [Open].
func OpenDifferencing(r io.ReaderAt, size int64, parent vdisk.Parent) (*Image, error) {
	d := &Image{r: r, size: size}
	if err := d.readFooters(); err != nil {
		return nil, err
	}
	d.disk = vdisk.Reader{Format: "vhd", Size: d.foot.diskSize, File: r, Parent: parent, Walk: d.walk}
	switch {
	case d.foot.diskSize > maxDisk:
		return nil, unsupported("virtual disk size %d", d.foot.diskSize)
	case d.foot.diskSize%sector != 0:
		return nil, invalid("virtual disk size %d", d.foot.diskSize)
	case d.foot.kind == typeFixed:
		if d.foot.diskSize > size-footerSize {
			return nil, invalid("a fixed disk of %d bytes, but the file has %d", d.foot.diskSize, size)
		}
		return d, nil
	case d.foot.kind != typeDynamic && d.foot.kind != typeDifferencing:
		return nil, unsupported("disk type %d", d.foot.kind)
	}
	var err error
	if d.head, err = readHeader(r, size, d.foot); err != nil {
		return nil, err
	}
	if d.head.parent != nil {
		if d.parent = parent; parent == nil {
			return nil, d.head.parent
		}
	}
	return d, nil
}

// readFooters reads the footer, or its copy at the file's begin if the footer is
// damaged, which a fixed image does not have.
func (d *Image) readFooters() error {
	if d.size < footerSize {
		return ErrFormat
	}
	foot, problem, err := readFooter(d.r, d.size-footerSize)
	if err != nil {
		return err
	}
	if problem == "" {
		d.foot = foot
		return nil
	}
	copied, problem2, err := readFooter(d.r, 0)
	if err != nil {
		return err
	}
	if problem2 == "" && copied.kind != typeFixed {
		d.foot, d.problem = copied, problem
		return nil
	}
	// Before Virtual PC 2004 the footer had 511 bytes.
	var old [8]byte
	if err := ondisk.ReadFull(d.r, old[:], d.size-footerSize+1); err != nil {
		return fmt.Errorf("vhd: footer: %w", err)
	}
	switch {
	case string(old[:]) == "conectix":
		return unsupported("footer of 511 bytes")
	case problem != "no signature":
		return invalid("footer: %s", problem)
	case problem2 != "no signature":
		return invalid("footer: %s, its copy: %s", problem, cmp.Or(problem2, "of a fixed disk"))
	}
	return ErrFormat
}

// Size returns the size of the virtual disk in bytes.
func (d *Image) Size() int64 { return d.foot.diskSize }

// SectorSize returns the size of a logical sector, which is 512 bytes.
func (d *Image) SectorSize() int64 { return sector }

// Info returns what the image says of itself.
func (d *Image) Info() vdisk.Info {
	info := vdisk.Info{
		Kind:           "fixed",
		BlockSize:      d.head.blockSize,
		LogicalSector:  sector,
		PhysicalSector: sector,
		Creator:        d.foot.creator,
		ID:             d.foot.id,
	}
	switch d.foot.kind {
	case typeDynamic:
		info.Kind = "dynamic"
	case typeDifferencing:
		info.Kind = "differencing"
		info.Parent = slices.Clone(d.head.parent.Paths)
	}
	return info
}

// Structures returns where the image file's own structures are, in the order of the
// file and without overlaps. Sector bitmaps are not among them, nor is what no
// structure uses.
func (d *Image) Structures() []vdisk.Area {
	var areas []vdisk.Area
	if d.problem == "" {
		areas = append(areas, vdisk.Area{Name: "footer", Off: d.size - footerSize, Size: footerSize})
	}
	if d.foot.kind != typeFixed {
		areas = append(areas,
			vdisk.Area{Name: "copy of the footer", Off: 0, Size: footerSize},
			vdisk.Area{Name: "header", Off: d.head.at, Size: headerSize},
			vdisk.Area{Name: "block allocation table", Off: d.head.table, Size: (4*d.head.entries + sector - 1) / sector * sector})
	}
	return vdisk.Apart(areas, d.size) // the table may overlap the footer
}

// ReadAt reads the virtual disk. Errors wrap [ErrInvalid] or come from the readers.
func (d *Image) ReadAt(p []byte, off int64) (int, error) { return d.disk.ReadAt(p, off) }

// Extents gives the whole virtual disk to fn, in order. Runs that are neighbours
// both on the disk and in the file are one. It looks at the whole block allocation
// table first: the error wraps [ErrInvalid] if blocks overlap or lie outside the
// file; an error of fn is returned as it is.
func (d *Image) Extents(fn func(vdisk.Extent) error) error {
	err := d.survey(func(_ int64, text string) error { return invalid("%s", text) })
	if err != nil {
		return err
	}
	return vdisk.Join(func(add func(vdisk.Extent) error) error { return d.walk(0, d.foot.diskSize, add) }, fn)
}
