package vhdx

import (
	"cmp"
	"io"
	"slices"

	"ferry/chunking/vdisk"
)

// Image is the virtual disk in an image file.
type Image struct {
	file    *file
	head    header
	regions []region // in the order of the file
	bat     region
	meta    metadata
	creator string
	disk    vdisk.Reader
	pending bool
	parent  vdisk.Parent // nil unless it is a differencing image

	ratio   int64 // payload blocks to a sector bitmap block, 2.4
	blocks  int64 // payload blocks
	entries int64 // of the block allocation table
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
	d := &Image{file: &file{r: r, real: size, size: size}}
	var err error
	if d.creator, err = readCreator(r, size); err != nil {
		return nil, err
	}
	if size > maxFile {
		return nil, unsupported("a file of %d bytes", size)
	}
	if d.head, err = currentHeader(d.file); err != nil {
		return nil, err
	}
	if d.pending, err = replay(d.file, d.head); err != nil {
		return nil, err
	}
	if d.regions, err = readRegions(d.file, d.head); err != nil {
		return nil, err
	}
	if d.meta, err = readMetadata(d.file, find(d.regions, metadataRegion)); err != nil {
		return nil, err
	}
	d.bat = find(d.regions, batRegion)
	if d.meta.hasParent {
		if d.parent = parent; parent == nil {
			return nil, d.meta.parent
		}
	}
	if err := d.layout(); err != nil {
		return nil, err
	}
	d.disk = vdisk.Reader{Format: "vhdx", Size: d.meta.diskSize, File: d.file, Parent: parent, Walk: d.walk}
	return d, nil
}

// layout computes the shape of the block allocation table. 2.5.
func (d *Image) layout() error {
	const bits = 8 * mib // of a sector bitmap block, 2.4
	d.ratio = bits * d.meta.logical / d.meta.blockSize
	d.blocks = (d.meta.diskSize + d.meta.blockSize - 1) / d.meta.blockSize
	chunks := (d.blocks + d.ratio - 1) / d.ratio
	d.entries = d.blocks + max(0, chunks-1)
	if d.parent != nil {
		d.entries = chunks * (d.ratio + 1)
	}
	if d.entries > d.bat.size/8 {
		return invalid("block allocation table: %d bytes, too few for %d entries", d.bat.size, d.entries)
	}
	return nil
}

// Size returns the size of the virtual disk in bytes.
func (d *Image) Size() int64 { return d.meta.diskSize }

// SectorSize returns the size of a logical sector in bytes.
func (d *Image) SectorSize() int64 { return d.meta.logical }

// DiskID returns the GUID of the virtual disk, in the byte order of the file.
func (d *Image) DiskID() [16]byte { return [16]byte(d.meta.id) }

// Info returns what the image says of itself.
func (d *Image) Info() vdisk.Info {
	info := vdisk.Info{
		Kind:           "dynamic",
		BlockSize:      d.meta.blockSize,
		LogicalSector:  d.meta.logical,
		PhysicalSector: d.meta.physical,
		Creator:        d.creator,
		ID:             d.meta.id.String(),
		LogPending:     d.pending,
	}
	switch {
	case d.meta.hasParent:
		info.Kind = "differencing"
		info.Parent = slices.Clone(d.meta.parent.Paths)
	case d.meta.allocated:
		info.Kind = "fixed"
	}
	return info
}

// Structures returns where the image file's own structures are, in the order of the
// file and without overlaps. Sector bitmap blocks are not among them, nor is what no
// structure uses.
func (d *Image) Structures() []vdisk.Area {
	areas := []vdisk.Area{
		{Name: "file identifier", Off: 0, Size: 64 * kib},
		{Name: "header 1", Off: headerOffs[0], Size: 64 * kib},
		{Name: "header 2", Off: headerOffs[1], Size: 64 * kib},
		{Name: "region table 1", Off: tableOffs[0], Size: tableSize},
		{Name: "region table 2", Off: tableOffs[1], Size: tableSize},
	}
	if d.head.logSize > 0 {
		areas = append(areas, vdisk.Area{Name: "log", Off: d.head.logOff, Size: d.head.logSize})
	}
	for _, r := range d.regions {
		// A pending log may have made the file longer than it is.
		if size := min(r.size, d.file.real-r.off); size > 0 {
			areas = append(areas, vdisk.Area{Name: r.name(), Off: r.off, Size: size})
		}
	}
	slices.SortFunc(areas, func(a, b vdisk.Area) int { return cmp.Compare(a.Off, b.Off) })
	return areas
}

// ReadAt reads the virtual disk. Errors wrap [ErrInvalid] or come from the readers.
func (d *Image) ReadAt(p []byte, off int64) (int, error) { return d.disk.ReadAt(p, off) }

// Extents gives the whole virtual disk to fn, in order. Runs that are neighbours
// both on the disk and in the file are one. It looks at the whole block allocation
// table first: the error wraps [ErrInvalid] if blocks overlap or lie outside the
// file. It wraps [ErrUnsupported] if a pending log holds bytes of the virtual disk,
// which a log should not; an error of fn is returned as it is.
func (d *Image) Extents(fn func(vdisk.Extent) error) error {
	err := d.survey(func(_ int64, text string) error { return invalid("%s", text) }, nil)
	if err != nil {
		return err
	}
	return vdisk.Join(func(add func(vdisk.Extent) error) error {
		return d.walk(0, d.meta.diskSize, func(e vdisk.Extent) error { return d.split(e, add) })
	}, fn)
}

// split gives the parts of an extent that are in the file, and those that only seem
// to be because a pending log makes them zeros.
func (d *Image) split(e vdisk.Extent, fn func(vdisk.Extent) error) error {
	for e.File >= 0 && e.Size > 0 {
		n, from := d.file.origin(e.File, e.Size)
		part := vdisk.Extent{Off: e.Off, Size: n, File: e.File}
		switch from {
		case fromLog:
			return unsupported("log: it holds the virtual disk's bytes at %d", e.Off)
		case fromNowhere:
			part.File = vdisk.Hole
		}
		if err := fn(part); err != nil {
			return err
		}
		e = vdisk.Extent{Off: e.Off + n, Size: e.Size - n, File: e.File + n}
	}
	if e.Size == 0 {
		return nil
	}
	return fn(e)
}
