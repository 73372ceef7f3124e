package ext4

import (
	"bytes"
	"context"
	"errors"
	"io"
	iofs "io/fs"
	"slices"
	"testing"
)

// minimal returns a file system of 64 blocks of 1 KiB: the root in inode 2, whose
// block is 7, and an empty file "f" in inode 11.
func minimal() []byte {
	b := make([]byte, 64<<10)
	put16 := func(at int, v uint16) { le.PutUint16(b[at:], v) }
	put32 := func(at int, v uint32) { le.PutUint32(b[at:], v) }
	const super, desc, table = 1 << 10, 2 << 10, 5 << 10
	put32(super+0x00, 16) // inodes
	put32(super+0x04, 64) // blocks
	put32(super+0x0C, 56) // free
	put32(super+0x10, 5)
	put32(super+0x14, 1)
	put32(super+0x20, 8192) // per group
	put32(super+0x24, 8192)
	put32(super+0x28, 16)
	put16(super+0x38, superMagic)
	put16(super+0x3A, 1)
	put32(super+0x4C, 1)
	put32(super+0x54, 11)
	put16(super+0x58, 128)
	put32(super+0x60, incompatFiletype)
	put32(desc+0x00, 3)
	put32(desc+0x04, 4)
	put32(desc+0x08, 5)
	put16(desc+0x0C, 56)
	put16(desc+0x0E, 5)
	for i := 3 << 10; i < 5<<10; i++ {
		b[i] = 0xFF
	}
	copy(b[3<<10:], []byte{0x7F, 0, 0, 0, 0, 0, 0, 0x80})
	copy(b[4<<10:], []byte{0xFF, 0x07})
	put16(table+128, modeDir|0o755)
	put32(table+128+0x04, 1024)
	put16(table+128+0x1A, 2)
	put32(table+128+mapOff, 7)
	put16(table+10*128, modeRegular|0o644)
	put16(table+10*128+0x1A, 1)
	putEntry(b[7<<10:], 2, 12, ".")
	putEntry(b[7<<10+12:], 2, 12, "..")
	putEntry(b[7<<10+24:], 11, 1000, "f")
	return b
}

func putEntry(b []byte, inode uint32, size uint16, name string) {
	le.PutUint32(b, inode)
	le.PutUint16(b[4:], size)
	b[6] = byte(len(name))
	copy(b[8:], name)
}

func openBytes(b []byte) (*FS, error) { return Open(bytes.NewReader(b), int64(len(b))) }

func paths(fs *FS) ([]string, error) {
	var paths []string
	err := fs.Walk(context.Background(), func(n *Node) error {
		paths = append(paths, n.Path)
		return nil
	})
	return paths, err
}

func TestMinimal(t *testing.T) {
	fs, err := openBytes(minimal())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := paths(fs); err != nil || !slices.Equal(got, []string{"", "f"}) {
		t.Errorf("Walk gives %q, %v", got, err)
	}
	if findings := check(t, fs); len(findings) != 0 {
		t.Errorf("Check: %v", findings)
	}
	var free []Extent
	if err := fs.Free(func(off, size int64) error {
		free = append(free, Extent{Disk: off, Size: size})
		return nil
	}); err != nil || !slices.Equal(free, []Extent{{Disk: 8 << 10, Size: 56 << 10}}) {
		t.Errorf("Free gives %v, %v", free, err)
	}
	areas, err := fs.Areas(context.Background())
	want := []Area{
		{AreaBoot, 0, 1 << 10},
		{AreaSuperblock, 1 << 10, 1 << 10},
		{AreaDescriptors, 2 << 10, 1 << 10},
		{AreaBitmaps, 3 << 10, 2 << 10},
		{AreaInodeTable, 5 << 10, 2 << 10},
	}
	if err != nil || !slices.Equal(areas, want) {
		t.Errorf("Areas() = %v, %v, want %v", areas, err, want)
	}
	for _, path := range []string{"g", "f/g", "/f", "f/", "."} {
		if _, err := fs.Lookup(path); !errors.Is(err, iofs.ErrNotExist) {
			t.Errorf("Lookup(%q): %v", path, err)
		}
	}
	n, err := fs.Lookup("f")
	if err != nil {
		t.Fatal(err)
	}
	if k, err := fs.Open(n).ReadAt(make([]byte, 1), 0); k != 0 || err != io.EOF {
		t.Errorf("ReadAt of an empty file: %d, %v", k, err)
	}
}

// TestFreeSparesMetadata marks everything as free.
func TestFreeSparesMetadata(t *testing.T) {
	b := minimal()
	clear(b[3<<10 : 4<<10])
	fs, err := openBytes(b)
	if err != nil {
		t.Fatal(err)
	}
	first := int64(-1)
	if err := fs.Free(func(off, _ int64) error {
		if first < 0 {
			first = off
		}
		return nil
	}); err != nil || first != 7<<10 {
		t.Errorf("the first free block is at %d, %v, want %d", first, err, 7<<10)
	}
	if findings := check(t, fs); len(findings) == 0 {
		t.Error("Check finds nothing where blocks in use are marked free")
	}
}

func TestMalformed(t *testing.T) {
	const super, desc, root, dir = 1 << 10, 2 << 10, 5<<10 + 128, 7 << 10
	tests := []struct {
		name   string
		damage func(b []byte)
		open   error // of Open
		walk   error // of Walk
	}{
		{"magic", func(b []byte) { b[super+0x38] = 0 }, ErrFormat, nil},
		{"unknown feature", func(b []byte) { b[super+0x63] = 1 }, ErrUnsupported, nil},
		{"compression", func(b []byte) { b[super+0x60] |= 1 }, ErrUnsupported, nil},
		{"journal device", func(b []byte) { b[super+0x60] |= 8 }, ErrUnsupported, nil},
		{"clusters", func(b []byte) { b[super+0x65] |= 2 }, ErrUnsupported, nil},
		{"checksum type", func(b []byte) { b[super+0x65] |= 4 }, ErrUnsupported, nil},
		{"revision", func(b []byte) { b[super+0x4C] = 9 }, ErrUnsupported, nil},
		{"block size", func(b []byte) { b[super+0x18] = 7 }, ErrInvalid, nil},
		{"too many blocks", func(b []byte) { b[super+0x04] = 65 }, ErrInvalid, nil},
		{"no blocks", func(b []byte) { b[super+0x04] = 0 }, ErrInvalid, nil},
		{"no blocks per group", func(b []byte) { b[super+0x21] = 0 }, ErrInvalid, nil},
		{"no inodes per group", func(b []byte) { b[super+0x28] = 0 }, ErrInvalid, nil},
		{"inodes", func(b []byte) { b[super] = 17 }, ErrInvalid, nil},
		{"inode size", func(b []byte) { b[super+0x58] = 129 }, ErrInvalid, nil},
		{"first block", func(b []byte) { b[super+0x14] = 0 }, ErrInvalid, nil},
		{"block bitmap", func(b []byte) { b[desc] = 64 }, ErrInvalid, nil},
		{"inode table", func(b []byte) { b[desc+8] = 63 }, ErrInvalid, nil},
		{"root is a file", func(b []byte) { le.PutUint16(b[root:], modeRegular) }, nil, ErrInvalid},
		{"root beyond the end", func(b []byte) { b[root+mapOff] = 64 }, nil, ErrInvalid},
		{"slash", func(b []byte) { b[dir+24+8] = '/' }, nil, ErrInvalid},
		{"NUL", func(b []byte) { b[dir+24+8] = 0 }, nil, ErrInvalid},
		{"no name", func(b []byte) { b[dir+24+6] = 0 }, nil, ErrInvalid},
		{"loop", func(b []byte) { b[dir+24] = 2 }, nil, ErrInvalid},
		{"reserved inode", func(b []byte) { b[dir+24] = 8 }, nil, ErrInvalid},
		{"no inode", func(b []byte) { b[dir+24] = 17 }, nil, ErrInvalid},
		{"unused inode", func(b []byte) { b[dir+24] = 12 }, nil, ErrInvalid},
		{"entry too long", func(b []byte) { b[dir+24+4] += 4 }, nil, ErrInvalid},
		{"entry too short", func(b []byte) { b[dir+4] = 4 }, nil, ErrInvalid},
		{"name twice", func(b []byte) {
			putEntry(b[dir+24:], 11, 12, "f")
			putEntry(b[dir+36:], 11, 988, "f")
		}, nil, ErrInvalid},
		{"block map in a circle", func(b []byte) {
			le.PutUint32(b[root+4:], 1<<20)
			le.PutUint32(b[root+mapOff+4*13:], 8)
			le.PutUint32(b[8<<10:], 8)
		}, nil, ErrInvalid},
		{"extent tree too deep", func(b []byte) { extentTree(b[root:], 6) }, nil, ErrInvalid},
		{"extent tree in a circle", func(b []byte) {
			extentTree(b[root:], 2, 8)
			copy(b[8<<10:], b[root+mapOff:root+mapOff+24])
			b[8<<10+6] = 1
		}, nil, ErrInvalid},
		{"extent tree with a block twice", func(b []byte) {
			extentTree(b[root:], 1, 8, 8)
			le.PutUint16(b[8<<10:], extentMagic)
		}, nil, ErrInvalid},
	}
	for _, test := range tests {
		b := minimal()
		test.damage(b)
		fs, err := openBytes(b)
		if !errors.Is(err, test.open) {
			t.Errorf("%s: Open: %v, want %v", test.name, err, test.open)
		}
		if fs == nil || err != nil {
			if fs != nil {
				t.Errorf("%s: Open gives both", test.name)
			}
			continue
		}
		if got, err := paths(fs); !errors.Is(err, test.walk) {
			t.Errorf("%s: Walk gives %q, %v, want %v", test.name, got, err, test.walk)
		}
		check(t, fs)
	}
}

// extentTree makes an inode's map the root of an extent tree over some blocks.
func extentTree(inode []byte, depth uint16, children ...uint32) {
	le.PutUint32(inode[0x20:], flagExtents)
	m := inode[mapOff : mapOff+mapSize]
	clear(m)
	le.PutUint16(m, extentMagic)
	le.PutUint16(m[2:], uint16(len(children)))
	le.PutUint16(m[4:], 4)
	le.PutUint16(m[6:], depth)
	for i, child := range children {
		le.PutUint32(m[12+12*i:], uint32(i))
		le.PutUint32(m[12+12*i+4:], child)
	}
}

func TestCancel(t *testing.T) {
	fs, err := openBytes(minimal())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := fs.Walk(ctx, func(*Node) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("Walk: %v", err)
	}
	if err := fs.Check(ctx, func(int64, string) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("Check: %v", err)
	}
}
