package vhdx

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
)

// What [Extent].File is when the bytes are not in the image file.
const (
	Hole     = -1 // they are zeros
	InParent = -2 // they are the parent's, only in a differencing image
)

// Extent is a run of the virtual disk, in bytes.
type Extent struct {
	Off, Size int64 // where it is on the virtual disk
	File      int64 // where it is in the image file, or [Hole] or [InParent]
}

// Area is a run of the image file that is not the virtual disk's, in bytes.
type Area struct {
	Name      string
	Off, Size int64
}

// Info is what an image says of itself.
type Info struct {
	Kind           string // "dynamic", "fixed" or "differencing"
	BlockSize      int64  // bytes
	LogicalSector  int64  // bytes, 512 or 4096
	PhysicalSector int64  // bytes, 512 or 4096
	Creator        string // the program that wrote it
	ID             string // GUID of the virtual disk
	LogPending     bool   // the file's log was not replayed: only this package's reading of it is right
	Parent         []string
}

// Parent is the virtual disk on which a differencing image builds.
type Parent interface {
	io.ReaderAt
	Size() int64 // bytes
}

// Image is the virtual disk in an image file.
type Image struct {
	file    *file
	head    header
	regions []region // in the order of the file
	bat     region
	meta    metadata
	creator string
	pending bool
	parent  Parent // nil unless it is a differencing image

	ratio   int64 // payload blocks to a sector bitmap block, 2.4
	blocks  int64 // payload blocks
	entries int64 // of the block allocation table
}

var _ Parent = (*Image)(nil)

// Open opens an image file of size bytes. The error is [ErrFormat], a
// [*ParentError] if the image is a differencing one, or wraps [ErrUnsupported],
// [ErrInvalid] or an error of r.
func Open(r io.ReaderAt, size int64) (*Image, error) { return OpenDifferencing(r, size, nil) }

// OpenDifferencing opens an image file that may be a differencing one, the parent
// of which is given; that it is the right one is not checked. What lies behind the
// parent's end is zeros. Errors are as with [Open].
func OpenDifferencing(r io.ReaderAt, size int64, parent Parent) (*Image, error) {
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
func (d *Image) Info() Info {
	info := Info{
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
func (d *Image) Structures() []Area {
	areas := []Area{
		{"file identifier", 0, 64 * kib},
		{"header 1", headerOffs[0], 64 * kib},
		{"header 2", headerOffs[1], 64 * kib},
		{"region table 1", tableOffs[0], tableSize},
		{"region table 2", tableOffs[1], tableSize},
	}
	if d.head.logSize > 0 {
		areas = append(areas, Area{"log", d.head.logOff, d.head.logSize})
	}
	for _, r := range d.regions {
		// A pending log may have made the file longer than it is.
		if size := min(r.size, d.file.real-r.off); size > 0 {
			areas = append(areas, Area{r.name(), r.off, size})
		}
	}
	slices.SortFunc(areas, func(a, b Area) int { return cmp.Compare(a.Off, b.Off) })
	return areas
}

var errOffset = errors.New("vhdx: negative offset")

// ReadAt reads the virtual disk. Errors wrap [ErrInvalid] or come from the readers.
func (d *Image) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errOffset
	}
	if off >= d.meta.diskSize {
		return 0, io.EOF
	}
	n := min(int64(len(p)), d.meta.diskSize-off)
	done := int64(0)
	err := d.walk(off, off+n, func(e Extent) error {
		dst := p[e.Off-off:][:e.Size]
		switch {
		case e.File >= 0:
			if _, err := d.file.ReadAt(dst, e.File); err != nil {
				return fmt.Errorf("vhdx: virtual disk at %d: %w", e.Off, err)
			}
		case e.File == InParent:
			if err := d.readParent(dst, e.Off); err != nil {
				return fmt.Errorf("vhdx: parent at %d: %w", e.Off, err)
			}
		default:
			clear(dst)
		}
		done += e.Size
		return nil
	})
	if err == nil && n < int64(len(p)) {
		err = io.EOF
	}
	return int(done), err
}

func (d *Image) readParent(p []byte, off int64) error {
	n := max(0, min(int64(len(p)), d.parent.Size()-off))
	clear(p[n:])
	return readFull(d.parent, p[:n], off)
}

// Extents gives the whole virtual disk to fn, in order. Runs that are neighbours
// both on the disk and in the file are one. It looks at the whole block allocation
// table first: the error wraps [ErrInvalid] if blocks overlap or lie outside the
// file. It wraps [ErrUnsupported] if a pending log holds bytes of the virtual disk,
// which a log should not; an error of fn is returned as it is.
func (d *Image) Extents(fn func(Extent) error) error {
	err := d.survey(func(_ int64, text string) error { return invalid("%s", text) }, nil)
	if err != nil {
		return err
	}
	var last Extent
	add := func(e Extent) error {
		follows := e.File == last.File
		if e.File >= 0 {
			follows = last.File >= 0 && e.File == last.File+last.Size
		}
		if last.Size > 0 && follows {
			last.Size += e.Size
			return nil
		}
		give := last
		if last = e; give.Size == 0 {
			return nil
		}
		return fn(give)
	}
	err = d.walk(0, d.meta.diskSize, func(e Extent) error { return d.split(e, add) })
	if err != nil || last.Size == 0 {
		return err
	}
	return fn(last)
}

// split gives the parts of an extent that are in the file, and those that only seem
// to be because a pending log makes them zeros.
func (d *Image) split(e Extent, fn func(Extent) error) error {
	for e.File >= 0 && e.Size > 0 {
		n, from := d.file.origin(e.File, e.Size)
		part := Extent{Off: e.Off, Size: n, File: e.File}
		switch from {
		case fromLog:
			return unsupported("log: it holds the virtual disk's bytes at %d", e.Off)
		case fromNowhere:
			part.File = Hole
		}
		if err := fn(part); err != nil {
			return err
		}
		e = Extent{Off: e.Off + n, Size: e.Size - n, File: e.File + n}
	}
	if e.Size == 0 {
		return nil
	}
	return fn(e)
}
