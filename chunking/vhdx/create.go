package vhdx

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf16"

	"ferry/chunking/ondisk"
)

// CreateOptions are what an image is to be. The zero value is right for most.
type CreateOptions struct {
	// BlockSize is the size of payload blocks in bytes: a power of two from 1 to
	// 256 MiB; 32 MiB if it is 0. Blocks of zeros take no space in the file.
	BlockSize int64
	// LogicalSector and PhysicalSector are sector sizes in bytes, 512 or 4096; if
	// they are 0, they are 512 and 4096.
	LogicalSector, PhysicalSector int64
	// ID is the GUID of the virtual disk, in the byte order of the file. The image's
	// other GUIDs are derived from it.
	ID [16]byte
	// Zero reports whether bytes of the disk are known to be zeros, so that they need
	// not be read. If it is nil, or false, they are read and looked at.
	Zero func(off, size int64) bool
}

func (o CreateOptions) withDefaults(size int64) (CreateOptions, error) {
	if o.BlockSize == 0 {
		o.BlockSize = 32 * mib
	}
	if o.LogicalSector == 0 {
		o.LogicalSector = 512
	}
	if o.PhysicalSector == 0 {
		o.PhysicalSector = 4096
	}
	m := metadata{diskSize: size, blockSize: o.BlockSize, logical: o.LogicalSector, physical: o.PhysicalSector}
	if err := m.check(); err != nil {
		return o, unsupported("create: %s", strings.TrimPrefix(err.Error(), "vhdx: "))
	}
	if size <= 0 {
		return o, unsupported("create: virtual disk size %d", size)
	}
	return o, nil
}

// Where Create puts things, in bytes.
const (
	newLog      = 1 * mib
	newMetadata = 2 * mib
	newBAT      = 3 * mib
	newRegion   = 1 * mib // size of the log and of the metadata region
)

// Create writes a dynamic image of a virtual disk of size bytes, from its first byte
// to its last. The disk is read twice, but for what is known to be zeros: once to
// find the blocks that are not all zeros, then to copy them. The same disk and
// options give the same bytes.
//
// The error wraps [ErrUnsupported] if there is no such image, or comes from w or
// disk, which must give the same bytes both times. It takes about 1 MiB, and a bit
// for each block.
func Create(w io.Writer, disk io.ReaderAt, size int64, opts CreateOptions) error {
	opts, err := opts.withDefaults(size)
	if err != nil {
		return err
	}
	c := &creation{out: bufio.NewWriterSize(w, 64*kib), disk: disk, size: size, opts: opts, buf: make([]byte, mib)}
	if err := c.plan(); err != nil {
		return err
	}
	c.headers()
	c.metadata()
	c.table()
	if err := c.payload(); err != nil {
		return err
	}
	if err := c.out.Flush(); err != nil {
		return fmt.Errorf("vhdx: create: %w", err)
	}
	return nil
}

type creation struct {
	out     *bufio.Writer // keeps the first error
	at      int64         // bytes written
	disk    io.ReaderAt
	size    int64
	opts    CreateOptions
	buf     []byte            // 1 MiB
	present []uint64          // a bit for each block
	sum     [sha256.Size]byte // of the blocks that are present
}

var zeros [64 * kib]byte

func (c *creation) blocks() int64 { return (c.size + c.opts.BlockSize - 1) / c.opts.BlockSize }

func (c *creation) has(block int64) bool { return c.present[block/64]>>(block%64)&1 != 0 }

// plan finds the blocks that are not all zeros.
func (c *creation) plan() error {
	c.present = make([]uint64, (c.blocks()+63)/64)
	h := sha256.New()
	for i := range c.blocks() {
		zero := int64(0) // bytes in front of the first that is none
		err := c.read(i, func(p []byte) (more bool, err error) {
			if !c.has(i) && ondisk.IsZero(p) {
				zero += int64(len(p))
				return true, nil
			}
			if !c.has(i) {
				c.present[i/64] |= 1 << (i % 64)
				fmt.Fprintf(h, "block %d %d\x00", i, zero)
			}
			h.Write(p)
			return true, nil
		})
		if err != nil {
			return err
		}
	}
	h.Sum(c.sum[:0])
	return nil
}

// read gives the bytes of a block, up to 1 MiB at a time, while more is wanted.
func (c *creation) read(block int64, fn func(p []byte) (more bool, err error)) error {
	off := block * c.opts.BlockSize
	for end := min(off+c.opts.BlockSize, c.size); off < end; {
		p := c.buf[:min(int64(len(c.buf)), end-off)]
		if c.opts.Zero != nil && c.opts.Zero(off, int64(len(p))) {
			clear(p)
		} else if err := ondisk.ReadFull(c.disk, p, off); err != nil {
			return fmt.Errorf("vhdx: create: disk at %d: %w", off, err)
		}
		if more, err := fn(p); err != nil || !more {
			return err
		}
		off += int64(len(p))
	}
	return nil
}

func (c *creation) write(b []byte) error {
	n, err := c.out.Write(b)
	if c.at += int64(n); err != nil {
		return fmt.Errorf("vhdx: create: %w", err)
	}
	return nil
}

// pad writes zeros up to an offset.
func (c *creation) pad(to int64) error {
	for c.at < to {
		if err := c.write(zeros[:min(int64(len(zeros)), to-c.at)]); err != nil {
			return err
		}
	}
	return nil
}

// derive returns a GUID that depends on the disk's, its content and a purpose: a UUID of
// version 8, RFC 9562 section 5.8. A differencing image knows its parent's content by
// the GUID for writing data.
func (c *creation) derive(purpose string) (g guid) {
	sum := sha256.Sum256(slices.Concat([]byte("ferry vhdx "+purpose+"\x00"), c.opts.ID[:], c.sum[:]))
	copy(g[:], sum[:])
	g[7] = g[7]&0x0f | 0x80
	g[8] = g[8]&0x3f | 0x80
	return g
}

// headers writes the header section and the empty log.
//
// Errors of this and the next two stay in c.out, and come back from what follows.
func (c *creation) headers() {
	id := make([]byte, 8, 64)
	copy(id, signature)
	for _, u := range utf16.Encode([]rune("ferry")) {
		id = le.AppendUint16(id, u)
	}
	c.write(id)
	for i, off := range headerOffs {
		h := make([]byte, headerSize)
		copy(h, "head")
		le.PutUint64(h[8:], uint64(i+1))
		fileWrite, dataWrite := c.derive("file write"), c.derive("data write")
		copy(h[16:], fileWrite[:])
		copy(h[32:], dataWrite[:])
		le.PutUint16(h[66:], 1) // version; the log's GUID and version are 0
		le.PutUint32(h[68:], newRegion)
		le.PutUint64(h[72:], newLog)
		le.PutUint32(h[4:], checksum(h))
		c.pad(off)
		c.write(h)
	}
	table := make([]byte, tableSize)
	copy(table, "regi")
	le.PutUint32(table[8:], 2)
	for i, r := range []region{{batRegion, newBAT, c.tableSize()}, {metadataRegion, newMetadata, newRegion}} {
		e := table[16+32*i:]
		copy(e, r.id[:])
		le.PutUint64(e[16:], uint64(r.off))
		le.PutUint32(e[24:], uint32(r.size))
		le.PutUint32(e[28:], 1) // required
	}
	le.PutUint32(table[4:], checksum(table))
	for _, off := range tableOffs {
		c.pad(off)
		c.write(table)
	}
}

// metadata writes the metadata region.
func (c *creation) metadata() {
	table := make([]byte, 32, tableSize)
	copy(table, "metadata")
	var values []byte
	add := func(id guid, flags uint32, value []byte) {
		table = append(table, id[:]...)
		table = le.AppendUint32(table, uint32(tableSize+len(values)))
		table = le.AppendUint32(table, uint32(len(value)))
		table = le.AppendUint32(table, flags)
		table = append(table, 0, 0, 0, 0)
		table[10]++
		values = append(values, value...)
	}
	add(fileParametersItem, flagRequired, le.AppendUint64(nil, uint64(c.opts.BlockSize)))
	add(diskSizeItem, flagRequired|flagDisk, le.AppendUint64(nil, uint64(c.size)))
	add(diskIDItem, flagRequired|flagDisk, c.opts.ID[:])
	add(logicalSectorItem, flagRequired|flagDisk, le.AppendUint32(nil, uint32(c.opts.LogicalSector)))
	add(physicalSectorItem, flagRequired|flagDisk, le.AppendUint32(nil, uint32(c.opts.PhysicalSector)))
	c.pad(newMetadata)
	c.write(table)
	c.pad(newMetadata + tableSize)
	c.write(values)
}

// shape is the shape of the image's block allocation table, as Open computes it.
func (c *creation) shape() *Image {
	d := &Image{meta: metadata{diskSize: c.size, blockSize: c.opts.BlockSize, logical: c.opts.LogicalSector}}
	d.bat.size = 1 << 40 // large enough for any
	d.layout()           // fails only if there is no room
	return d
}

// tableSize returns the size of the block allocation table's region.
func (c *creation) tableSize() int64 { return (c.shape().entries*8 + mib - 1) / mib * mib }

// table writes the block allocation table. Absent blocks are in the state that
// defines them as zeros; of those not present the contents are undefined (2.5.1.1).
func (c *creation) table() {
	c.pad(newBAT)
	d := c.shape()
	at := newBAT + c.tableSize()
	var entry [8]byte
	for i := range d.entries {
		e := uint64(0)
		if chunk, k := i/(d.ratio+1), i%(d.ratio+1); k < d.ratio {
			e = blockZero
			if c.has(chunk*d.ratio + k) {
				e = uint64(at) | blockFullyPresent
				at += c.opts.BlockSize
			}
		}
		le.PutUint64(entry[:], e)
		c.write(entry[:])
	}
}

// payload writes the blocks that are present; the last one is a whole block too.
func (c *creation) payload() error {
	at := newBAT + c.tableSize()
	if err := c.pad(at); err != nil {
		return err
	}
	for i := range c.blocks() {
		if !c.has(i) {
			continue
		}
		if err := c.read(i, func(p []byte) (bool, error) { return true, c.write(p) }); err != nil {
			return err
		}
		at += c.opts.BlockSize
		if err := c.pad(at); err != nil {
			return err
		}
	}
	return nil
}
