package vhd

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"ferry/chunking/vdisk/vdisktest"
)

// signFooter makes the checksum of a footer right.
func signFooter(image []byte, at int) {
	be.PutUint32(image[at+64:], checksum(image[at:at+footerSize], 64))
}

func signHeader(image []byte) { be.PutUint32(image[512+36:], checksum(image[512:512+headerSize], 36)) }

func makeFooter(kind uint32, size int) []byte {
	b := make([]byte, footerSize)
	copy(b, "conectix")
	be.PutUint32(b[8:], 2)
	be.PutUint32(b[12:], 1<<16)
	be.PutUint64(b[16:], ^uint64(0))
	if kind != typeFixed {
		be.PutUint64(b[16:], 512)
	}
	copy(b[28:], "test")
	be.PutUint64(b[40:], uint64(size))
	be.PutUint64(b[48:], uint64(size))
	be.PutUint32(b[60:], kind)
	copy(b[68:], "ID with 16 bytes")
	signFooter(b, 0)
	return b
}

const (
	testBlock = 64 << 10
	testTable = 512 + headerSize // where makeDynamic puts the table
)

// makeDynamic returns a dynamic image, or a differencing one. Sectors of zeros are not
// marked in the bitmaps, blocks of zeros not there.
func makeDynamic(kind uint32, disk []byte) []byte {
	foot := makeFooter(kind, len(disk))
	n := (len(disk) + testBlock - 1) / testBlock
	table := bytes.Repeat([]byte{0xff}, (4*n+511)/512*512)
	head := make([]byte, headerSize)
	copy(head, "cxsparse")
	be.PutUint64(head[8:], ^uint64(0))
	be.PutUint64(head[16:], testTable)
	be.PutUint32(head[24:], 1<<16)
	be.PutUint32(head[28:], uint32(n))
	be.PutUint32(head[32:], testBlock)
	var name []byte
	for _, c := range "base.vhd" {
		name = be.AppendUint16(name, uint16(c))
	}
	if kind == typeDifferencing {
		copy(head[64:], name)
	}
	image := slices.Concat(foot, head, table)
	for i := range n {
		block := make([]byte, testBlock)
		copy(block, disk[i*testBlock:])
		if bytes.Equal(block, make([]byte, testBlock)) {
			continue
		}
		be.PutUint32(image[testTable+4*i:], uint32(len(image)/512))
		bitmap := make([]byte, 512)
		for s := range testBlock / 512 {
			if !bytes.Equal(block[s*512:][:512], make([]byte, 512)) {
				bitmap[s/8] |= 0x80 >> (s % 8)
			}
		}
		image = append(append(image, bitmap...), block...)
	}
	image = append(image, foot...)
	signHeader(image)
	return image
}

func open(t testing.TB, image []byte) *Image {
	t.Helper()
	d, err := Open(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestOpen(t *testing.T) {
	disk := vdisktest.Sparse(1, 1<<20+512*5)
	for _, test := range []struct {
		image []byte
		want  string
	}{
		{append(bytes.Clone(disk), makeFooter(typeFixed, len(disk))...),
			"{Kind:fixed BlockSize:0 LogicalSector:512 PhysicalSector:512 Creator:test ID:49442077-6974-6820-3136-206279746573 LogPending:false Parent:[]}"},
		{makeDynamic(typeDynamic, disk),
			"{Kind:dynamic BlockSize:65536 LogicalSector:512 PhysicalSector:512 Creator:test ID:49442077-6974-6820-3136-206279746573 LogPending:false Parent:[]}"},
	} {
		d := open(t, test.image)
		vdisktest.Same(t, d, test.image, disk)
		if got := fmt.Sprintf("%+v", d.Info()); got != test.want {
			t.Errorf("Info() = %s, want %s", got, test.want)
		}
		if all := vdisktest.Findings(t, d); all != "" {
			t.Errorf("Check finds %q", all)
		}
		at := int64(0)
		for _, a := range d.Structures() {
			if a.Off < at || a.Size <= 0 || a.Off+a.Size > int64(len(test.image)) {
				t.Errorf("area %+v, want one from %d on", a, at)
			}
			at = a.Off + a.Size
		}
		if at != int64(len(test.image)) {
			t.Errorf("the structures end at %d, the file at %d", at, len(test.image))
		}
	}
}

// TestHostile changes one thing in an image whose blocks 0 and 1 are there.
func TestHostile(t *testing.T) {
	disk := vdisktest.Sparse(3, 1<<20)
	copy(disk, "first")
	copy(disk[testBlock:], "second")
	good := makeDynamic(typeDynamic, disk)
	end := len(good) - footerSize
	for _, test := range []struct {
		name   string
		change func(b []byte) []byte
		open   error  // of Open
		read   error  // of Extents
		found  string // by Check
	}{
		{name: "nothing", change: func(b []byte) []byte { return b }},
		{name: "empty", change: func(b []byte) []byte { return nil }, open: ErrFormat},
		{name: "no signature", change: func(b []byte) []byte { b[0] = 0; b[end] = 0; return b }, open: ErrFormat},
		{name: "footer", change: func(b []byte) []byte { b[end+100]++; return b }, found: "footer: wrong checksum"},
		{name: "no footer", change: func(b []byte) []byte { return b[:end] }, found: "footer: no signature"},
		{name: "copy", change: func(b []byte) []byte { b[100]++; return b }, found: "copy of the footer: wrong checksum"},
		{name: "other copy", change: func(b []byte) []byte { b[90]++; signFooter(b, 0); return b }, found: "copy of the footer: not the same"},
		{name: "both", change: func(b []byte) []byte { b[100]++; b[end+100]++; return b }, open: ErrInvalid},
		{name: "511 bytes", change: func(b []byte) []byte { b[0] = 0; return b[:len(b)-1] }, open: ErrUnsupported},
		{name: "type", change: func(b []byte) []byte { b[end+63] = 6; signFooter(b, end); return b }, open: ErrUnsupported},
		{name: "large", change: func(b []byte) []byte { b[end+48] = 0x7f; signFooter(b, end); return b }, open: ErrUnsupported},
		{name: "half a sector", change: func(b []byte) []byte { b[end+55]++; signFooter(b, end); return b }, open: ErrInvalid},
		{name: "larger than the table", change: func(b []byte) []byte { b[end+53]++; signFooter(b, end); return b }, open: ErrInvalid},
		{name: "header outside", change: func(b []byte) []byte { b[end+16] = 0xff; signFooter(b, end); return b }, open: ErrInvalid},
		{name: "header", change: func(b []byte) []byte { b[600]++; return b }, open: ErrInvalid},
		{name: "header signature", change: func(b []byte) []byte { b[512]++; return b }, open: ErrInvalid},
		{name: "header version", change: func(b []byte) []byte { b[512+25] = 2; signHeader(b); return b }, open: ErrUnsupported},
		{name: "table outside", change: func(b []byte) []byte { b[512+16] = 0xff; signHeader(b); return b }, open: ErrInvalid},
		{name: "many entries", change: func(b []byte) []byte { b[512+28] = 0xff; signHeader(b); return b }, open: ErrInvalid},
		{name: "table over the header", change: func(b []byte) []byte { be.PutUint64(b[512+16:], 1024); signHeader(b); return b }, open: ErrInvalid},
		{name: "block size 3 MiB", change: func(b []byte) []byte { be.PutUint32(b[512+32:], 3<<20); signHeader(b); return b }, open: ErrInvalid},
		{name: "block size 0", change: func(b []byte) []byte { be.PutUint32(b[512+32:], 0); signHeader(b); return b }, open: ErrInvalid},
		{name: "block outside", change: func(b []byte) []byte { be.PutUint32(b[testTable:], 1<<31); return b }, read: ErrInvalid, found: "entry 0: a block at"},
		{name: "block over the footer", change: func(b []byte) []byte {
			be.PutUint32(b[testTable:], be.Uint32(b[testTable:])+1)
			return slices.Concat(b[:testTable+512+512+testBlock], b[end:])
		}, read: ErrInvalid, found: "entry 0: a block at"},
		{name: "blocks overlap", change: func(b []byte) []byte { copy(b[testTable+4:], b[testTable:testTable+4]); return b }, read: ErrInvalid, found: "overlaps another"},
		{name: "block over the table", change: func(b []byte) []byte { be.PutUint32(b[testTable:], testTable/512); return b }, read: ErrInvalid, found: "overlaps the block allocation table"},
		{name: "cut off at a block", change: func(b []byte) []byte { return slices.Concat(b[:end-1024], b[end:]) }, read: ErrInvalid, found: "a block at"},
	} {
		t.Run(test.name, func(t *testing.T) {
			vdisktest.Changed(t, Open, test.change(bytes.Clone(good)), disk, test.open, test.read, test.found)
		})
	}
	fixed := makeFooter(typeFixed, 1<<20)
	if _, err := Open(bytes.NewReader(fixed), int64(len(fixed))); !errors.Is(err, ErrInvalid) {
		t.Errorf("Open of a footer only = %v, want %v", err, ErrInvalid)
	}
}

func TestDifferencing(t *testing.T) {
	base, own := vdisktest.Sparse(5, 1<<20), vdisktest.Sparse(6, 1<<20)
	image := makeDynamic(typeDifferencing, own)
	_, err := Open(bytes.NewReader(image), int64(len(image)))
	var pe *ParentError
	if !errors.As(err, &pe) || !slices.Equal(pe.Paths, []string{"base.vhd"}) {
		t.Fatalf("Open = %v", err)
	}
	fixed := append(bytes.Clone(base), makeFooter(typeFixed, len(base))...)
	d, err := OpenDifferencing(bytes.NewReader(image), int64(len(image)), open(t, fixed))
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Clone(base)
	for at := 0; at < len(own); at += 512 {
		if s := own[at:][:512]; !bytes.Equal(s, make([]byte, 512)) {
			copy(want[at:], s)
		}
	}
	vdisktest.Same(t, d, image, want)
	if all := vdisktest.Findings(t, d); all != "" {
		t.Errorf("Check finds %q", all)
	}
}

// TestRead reads what QEMU writes.
func TestRead(t *testing.T) {
	if _, err := exec.LookPath("qemu-img"); err != nil {
		t.Skip("qemu-img is not on PATH (package qemu-utils)")
	}
	for _, kind := range []string{"fixed", "dynamic"} {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			raw, name := filepath.Join(dir, "raw"), filepath.Join(dir, "image.vhd")
			disk := vdisktest.Sparse(5, 20<<20+512*3)
			if err := os.WriteFile(raw, disk, 0o666); err != nil {
				t.Fatal(err)
			}
			// Without force_size QEMU rounds the size to what cylinders can tell.
			cmd := exec.Command("qemu-img", "convert", "-f", "raw", "-O", "vpc", "-o", "force_size=on,subformat="+kind, raw, name)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			image, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			d := open(t, image)
			vdisktest.Same(t, d, image, disk)
			if all := vdisktest.Findings(t, d); all != "" || d.Info().Kind != kind {
				t.Errorf("Check finds %q, the kind is %q", all, d.Info().Kind)
			}
		})
	}
}

func FuzzOpen(f *testing.F) {
	disk := make([]byte, 5*testBlock-512)
	copy(disk[testBlock:], "something")
	f.Add(makeDynamic(typeDynamic, disk))
	f.Add(makeDynamic(typeDifferencing, disk))
	f.Add(append(disk[:4096:4096], makeFooter(typeFixed, 4096)...))
	base := append(bytes.Repeat([]byte{1}, 4096), makeFooter(typeFixed, 4096)...)
	parent := open(f, base)
	f.Fuzz(func(t *testing.T, image []byte) {
		image = bytes.Clone(image) // made right, else no change would come far
		if len(image) >= 512+headerSize {
			signFooter(image, 0)
			signHeader(image)
			signFooter(image, len(image)-footerSize)
		}
		d, err := OpenDifferencing(bytes.NewReader(image), int64(len(image)), parent)
		if err != nil {
			if d != nil {
				t.Fatal("an image and an error")
			}
			return
		}
		vdisktest.Findings(t, d)
		vdisktest.Extents(t, d, image)
	})
}
