package disk

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"

	"ferry/chunking/ext4"
	"ferry/chunking/fat"
	"ferry/chunking/vhdx"
)

// Form is a form that an image can be written in.
type Form string

// The forms of images.
const (
	FormRaw  Form = "raw"
	FormVHDX Form = "vhdx" // dynamic
)

// ErrForm says that an image cannot be written in a form.
var ErrForm = errors.New("not a form that images are written in")

// ErrUnsound says that an image is damaged, so that nothing in it is known to be free.
var ErrUnsound = errors.New("is damaged: see ferry verify")

// ErrUnclean says that a file system must be unmounted, or its journal replayed, before
// its free blocks can be told.
var ErrUnclean = errors.New("has a journal that must be replayed first: mount and unmount it, or run e2fsck")

// Contents is the virtual disk of an image, perhaps without what is free. It is what
// [Write] writes. It is safe for concurrent use as far as the image is.
type Contents struct {
	image *Image
	free  []Range // of the disk: read as zeros; sorted and apart
}

// Raw returns the disk of a raw image, whatever is in it.
func Raw(r io.ReaderAt, size int64) *Contents {
	return &Contents{image: &Image{Format: "raw", file: r, size: size, disk: r, length: size, sector: 512, extents: []extent{{0, size, 0}}}}
}

// Contents returns the virtual disk as it is.
func (m *Image) Contents() *Contents { return &Contents{image: m} }

// Compacted returns the virtual disk with zeros for the blocks that its file systems
// call free. All else is as it is. Volumes of other kinds stay. The error matches
// [ErrUnclean], or says what is wrong with a volume: then nothing is known to be free.
func (m *Image) Compacted(ctx context.Context) (*Contents, error) {
	c := &Contents{image: m}
	if m.Table != nil && m.Table.Overlap {
		return nil, fmt.Errorf("%w: partitions overlap", ErrUnsound)
	}
	for _, v := range m.Volumes {
		add := func(off, size int64) error {
			c.free = append(c.free, Range{v.Off + off, size})
			return ctx.Err()
		}
		var err error
		switch {
		case v.Err != nil:
			err = v.Err
		case v.Ext4 != nil && v.Ext4.NeedsRecovery():
			err = ErrUnclean
		case v.Ext4 != nil:
			if err = sound(ctx, v.Ext4); err == nil {
				err = v.Ext4.Free(add)
			}
		case v.FAT != nil:
			// A chain that runs into what is free ends the walk.
			if err = v.FAT.Walk(ctx, func(*fat.Node) error { return ctx.Err() }); err == nil {
				err = v.FAT.Free(add)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("volume %d: %w", v.Number, err)
		}
	}
	slices.SortFunc(c.free, func(a, b Range) int { return cmp.Compare(a.Off, b.Off) })
	return c, nil
}

// sound returns the first thing that is wrong with a file system.
func sound(ctx context.Context, e *ext4.FS) (first error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	err := e.Check(ctx, func(off int64, text string) {
		if first == nil {
			first = fmt.Errorf("%w: at %d: %s", ErrUnsound, off, text)
			stop()
		}
	})
	return cmp.Or(first, err)
}

// Size returns the bytes of the disk.
func (c *Contents) Size() int64 { return c.image.length }

// ReadAt implements [io.ReaderAt].
func (c *Contents) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.image.disk.ReadAt(p, off)
	i, _ := slices.BinarySearchFunc(c.free, off, func(g Range, off int64) int { return cmp.Compare(g.Off+g.Size, off+1) })
	for ; i < len(c.free) && c.free[i].Off < off+int64(n); i++ {
		from, to := max(c.free[i].Off-off, 0), min(c.free[i].Off+c.free[i].Size-off, int64(n))
		clear(p[from:to])
	}
	return n, err
}

// Zero reports whether a run is known to be zeros without reading it.
func (c *Contents) Zero(off, size int64) bool {
	there := false
	c.image.where(off, size, func(Range) { there = true })
	if !there {
		return true
	}
	i, _ := slices.BinarySearchFunc(c.free, off, func(g Range, off int64) int { return cmp.Compare(g.Off+g.Size, off+1) })
	return i < len(c.free) && c.free[i].Off <= off && off+size <= c.free[i].Off+c.free[i].Size
}

// Freed returns how many bytes are left out that are no zeros, in blocks of 4 KiB. It
// reads them.
func (c *Contents) Freed(ctx context.Context) (n int64, err error) {
	f := &finder{r: c.image.file, buf: make([]byte, 1<<20)}
	for _, g := range c.free {
		var failed error
		c.image.where(g.Off, g.Size, func(at Range) {
			if failed == nil {
				failed = f.present(ctx, at, func(g Range) { n += g.Size })
			}
		})
		if failed != nil {
			return n, failed
		}
	}
	return n, nil
}

// Write writes contents in a form: raw ones as far as they are not zeros, so that w is
// to be empty, and [Contents.Size] bytes long afterwards. The same contents give the same
// bytes. A VHDX keeps identity, sector sizes and the size of blocks of one that it was
// made from.
func Write(ctx context.Context, w io.WriterAt, c *Contents, form Form) error {
	r := &contextReaderAt{ctx, c}
	switch form {
	case FormRaw:
		return writeRaw(ctx, w, c)
	case FormVHDX:
		o := vhdx.CreateOptions{Zero: c.Zero, LogicalSector: c.image.sector}
		if d, ok := c.image.Virtual.(*vhdx.Image); ok {
			i := d.Info()
			o.BlockSize, o.LogicalSector, o.PhysicalSector, o.ID = i.BlockSize, i.LogicalSector, i.PhysicalSector, d.DiskID()
		} else {
			id, err := c.identity()
			if err != nil {
				return err
			}
			o.ID = id
		}
		return vhdx.Create(io.NewOffsetWriter(w, 0), r, c.Size(), o)
	}
	return fmt.Errorf("%w: %q; there are %s and %s", ErrForm, form, FormRaw, FormVHDX)
}

// identity returns a GUID for a disk that has none of its own: a UUID of version 8 (RFC
// 9562) that follows from the disk's size and first MiB, where partition tables and
// superblocks have theirs.
func (c *Contents) identity() (id [16]byte, err error) {
	h := sha256.New()
	fmt.Fprintf(h, "ferry disk %d\x00", c.Size())
	_, err = io.Copy(h, io.NewSectionReader(c, 0, min(c.Size(), 1<<20)))
	copy(id[:], h.Sum(nil))
	id[7] = id[7]&0x0f | 0x80 // the third field is little-endian in the file
	id[8] = id[8]&0x3f | 0x80
	return id, err
}

func writeRaw(ctx context.Context, w io.WriterAt, c *Contents) error {
	const block = 64 << 10
	buf := make([]byte, 16*block)
	for off := int64(0); off < c.Size(); off += int64(len(buf)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		part := buf[:min(int64(len(buf)), c.Size()-off)]
		if c.Zero(off, int64(len(part))) {
			continue
		}
		if n, err := c.ReadAt(part, off); n < len(part) {
			return cmp.Or(err, io.ErrUnexpectedEOF)
		}
		f := &finder{r: offsetReader{part, off}, buf: make([]byte, len(part))}
		var failed error
		err := f.present(ctx, Range{off, int64(len(part))}, func(g Range) {
			if failed == nil {
				_, failed = w.WriteAt(part[g.Off-off:g.Off-off+g.Size], g.Off)
			}
		})
		if err = cmp.Or(err, failed); err != nil {
			return err
		}
	}
	return nil
}

// offsetReader is bytes that stand at an offset.
type offsetReader struct {
	b   []byte
	off int64
}

func (r offsetReader) ReadAt(p []byte, off int64) (int, error) {
	n := copy(p, r.b[off-r.off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// contextReaderAt ends with its context.
type contextReaderAt struct {
	ctx context.Context
	r   io.ReaderAt
}

func (r *contextReaderAt) ReadAt(p []byte, off int64) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.ReadAt(p, off)
}

// Equal compares two disks, and returns the offset of the first difference, or -1.
func Equal(ctx context.Context, a, b *Contents) (int64, error) {
	if a.Size() != b.Size() {
		return min(a.Size(), b.Size()), nil
	}
	var x, y [1 << 20]byte
	for off := int64(0); off < a.Size(); off += int64(len(x)) {
		if err := ctx.Err(); err != nil {
			return off, err
		}
		n := min(int64(len(x)), a.Size()-off)
		if a.Zero(off, n) && b.Zero(off, n) {
			continue
		}
		for _, s := range []struct {
			c *Contents
			b []byte
		}{{a, x[:n]}, {b, y[:n]}} {
			if m, err := s.c.ReadAt(s.b, off); int64(m) < n {
				return off, cmp.Or(err, io.ErrUnexpectedEOF)
			}
		}
		for i := range n {
			if x[i] != y[i] {
				return off + i, nil
			}
		}
	}
	return -1, nil
}
