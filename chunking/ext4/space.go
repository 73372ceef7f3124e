package ext4

import (
	"cmp"
	"context"
	"slices"
)

// AreaKind says what an area is for.
type AreaKind int

// The kinds of areas. Quota files may be three; an area of a file has its tree too.
const (
	AreaBoot        AreaKind = iota // in front of the first superblock
	AreaSuperblock                  // and its copies
	AreaDescriptors                 // of groups, and their copies
	AreaReserved                    // for descriptors of groups to come
	AreaBitmaps                     // of blocks and of inodes
	AreaInodeTable
	AreaJournal
	AreaResize // the inode that holds the reserved descriptors
	AreaOrphans
	AreaQuota
	AreaMMP // the block against mounts by two hosts
)

var areaNames = [...]string{
	AreaBoot:        "boot",
	AreaSuperblock:  "superblock",
	AreaDescriptors: "descriptors",
	AreaReserved:    "reserved descriptors",
	AreaBitmaps:     "bitmaps",
	AreaInodeTable:  "inode table",
	AreaJournal:     "journal",
	AreaResize:      "resize inode",
	AreaOrphans:     "orphan file",
	AreaQuota:       "quota",
	AreaMMP:         "mmp",
}

// String returns the kind in words.
func (k AreaKind) String() string {
	if k < 0 || int(k) >= len(areaNames) {
		return "unknown"
	}
	return areaNames[k]
}

// Area is a run of bytes of the partition that holds a structure of the file system.
type Area struct {
	Kind AreaKind
	Off  int64
	Size int64
}

// Areas returns the areas of metadata that belong to no path, by Off. They do not
// overlap: where structures claim the same bytes, those go to the area that begins
// first. Blocks of trees and extended attributes of files are in [Node], not here;
// what is in no area, in no node and not free belongs to files without a path, such
// as attributes that are inodes, or deleted files that were open.
func (fs *FS) Areas(ctx context.Context) ([]Area, error) {
	areas := fs.fixed()
	if fs.incompat&incompatMMP != 0 {
		block, err := fs.mmpBlock()
		if err != nil {
			return nil, err
		}
		areas = append(areas, Area{AreaMMP, block * fs.blockSize, fs.blockSize})
	}
	r := fs.reader()
	for _, s := range fs.specialFiles() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		in, err := r.inode(s.inode)
		if err != nil {
			return nil, err
		}
		if !in.mapped() {
			continue
		}
		if err := r.mapBlocks(&in); err != nil {
			return nil, err
		}
		for _, extents := range [][]Extent{r.extents, r.meta} {
			for _, e := range extents {
				areas = append(areas, Area{s.kind, e.Disk, e.Size})
			}
		}
	}
	return tidy(areas), nil
}

func (fs *FS) mmpBlock() (int64, error) {
	block := int64(le.Uint64(fs.super[0x168:]))
	if !fs.inside(block, 1) {
		return 0, invalid(superOff+0x168, "mmp block %d", block)
	}
	return block, nil
}

type specialFile struct {
	kind  AreaKind
	inode uint32
}

// specialFiles returns the inodes that the superblock names.
func (fs *FS) specialFiles() []specialFile {
	var files []specialFile
	add := func(kind AreaKind, there bool, inode uint32) {
		if there && inode != 0 {
			files = append(files, specialFile{kind, inode})
		}
	}
	add(AreaJournal, fs.compat&compatJournal != 0, fs.super32(0xE0))
	add(AreaResize, fs.compat&compatResizeInode != 0, 7)
	add(AreaOrphans, fs.compat&compatOrphanFile != 0, fs.super32(0x280))
	for _, at := range []int{0x240, 0x244, 0x26C} { // of users, groups, projects
		add(AreaQuota, fs.roCompat&roCompatQuota != 0, fs.super32(at))
	}
	return files
}

// fixed returns the areas whose places follow from the superblock and the group
// descriptors, by Off.
func (fs *FS) fixed() []Area {
	size := fs.blockSize
	areas := []Area{
		{AreaBoot, 0, superOff},
		{AreaSuperblock, superOff, max(size, 2*superOff) - superOff},
	}
	add := func(kind AreaKind, block, n int64) {
		if n = min(n, fs.blocks-block); n > 0 {
			areas = append(areas, Area{kind, block * size, n * size})
		}
	}
	for g := range fs.groups {
		d, at := fs.group(g), fs.groupStart(g)
		super := fs.hasSuper(g)
		if super {
			if g > 0 {
				add(AreaSuperblock, at, 1)
			}
			at++
		}
		perBlock := size / fs.descSize
		if i := g % perBlock; g/perBlock >= fs.firstMeta {
			if i == 0 || i == 1 || i == perBlock-1 {
				add(AreaDescriptors, at, 1)
			}
		} else if super {
			add(AreaDescriptors, at, fs.firstMeta)
			if fs.incompat&incompatMetaBG == 0 {
				add(AreaReserved, at+fs.firstMeta, int64(fs.super16(0xCE)))
			}
		}
		add(AreaBitmaps, d.blockBitmap, 1)
		add(AreaBitmaps, d.inodeBitmap, 1)
		add(AreaInodeTable, d.table, fs.tableBlocks)
	}
	return tidy(areas)
}

// tidy sorts areas, cuts off what overlaps and puts neighbours of a kind together.
func tidy(areas []Area) []Area {
	slices.SortStableFunc(areas, func(a, b Area) int { return cmp.Compare(a.Off, b.Off) })
	kept := areas[:0]
	end := int64(0)
	for _, a := range areas {
		if a.Off < end {
			a.Size -= end - a.Off
			a.Off = end
		}
		if a.Size <= 0 {
			continue
		}
		end = a.Off + a.Size
		if k := len(kept); k > 0 && kept[k-1].Kind == a.Kind && kept[k-1].Off+kept[k-1].Size == a.Off {
			kept[k-1].Size += a.Size
			continue
		}
		kept = append(kept, a)
	}
	return kept
}

// overlap returns how many bytes of [off, end) are in areas, which are tidy.
func overlap(areas []Area, off, end int64) int64 {
	i, _ := slices.BinarySearchFunc(areas, off, func(a Area, off int64) int {
		return cmp.Compare(a.Off+a.Size, off+1) // the first that ends behind off
	})
	n := int64(0)
	for ; i < len(areas) && areas[i].Off < end; i++ {
		n += min(end, areas[i].Off+areas[i].Size) - max(off, areas[i].Off)
	}
	return n
}

// Free gives the runs of blocks that nothing uses, as bytes of the partition, by off,
// neighbours as one. They come from the block bitmaps; a bitmap that is not on disk
// stands for a group with nothing but metadata. What Areas finds by the superblock and
// the descriptors is never free, whatever a bitmap says. Free ends with the first
// error of fn, as it is.
func (fs *FS) Free(fn func(off, size int64) error) error {
	f := freeRuns{fixed: fs.fixed(), fn: fn}
	bitmap := make([]byte, fs.blockSize)
	for g := range fs.groups {
		start, n := fs.groupStart(g), fs.groupBlocks(g)
		on, err := fs.readBlockBitmap(g, bitmap)
		if err != nil {
			return err
		}
		if !on {
			clear(bitmap)
		}
		for i := nextBit(bitmap, 0, n, false); i < n; {
			end := nextBit(bitmap, i, n, true)
			if err := f.add((start+i)*fs.blockSize, (start+end)*fs.blockSize); err != nil {
				return err
			}
			i = nextBit(bitmap, end, n, false)
		}
	}
	return f.flush()
}

// readBlockBitmap reads the block bitmap of a group into b, a block, and reports
// whether it is on disk.
func (fs *FS) readBlockBitmap(g int64, b []byte) (bool, error) {
	d := fs.group(g)
	if d.flags&groupBlockUninit != 0 {
		return false, nil
	}
	return true, fs.read(b, d.blockBitmap*fs.blockSize)
}

// freeRuns puts runs together and takes fixed areas out of them.
type freeRuns struct {
	fixed    []Area // those that end behind the runs so far
	fn       func(off, size int64) error
	off, end int64 // a run that was not given yet
}

// add adds the run [off, end), which begins where the last one ended, or behind.
func (f *freeRuns) add(off, end int64) error {
	for off < end {
		for len(f.fixed) > 0 && f.fixed[0].Off+f.fixed[0].Size <= off {
			f.fixed = f.fixed[1:]
		}
		next := end
		if len(f.fixed) > 0 {
			next = min(next, f.fixed[0].Off)
		}
		if off < next {
			if f.end != off {
				if err := f.flush(); err != nil {
					return err
				}
				f.off = off
			}
			f.end = next
			off = next
		}
		if off < end { // here a fixed area begins, or goes on
			off = f.fixed[0].Off + f.fixed[0].Size
		}
	}
	return nil
}

func (f *freeRuns) flush() error {
	if f.off == f.end {
		return nil
	}
	return f.fn(f.off, f.end-f.off)
}
