// Package vdisktest proves readers of virtual disk images, for their tests.
package vdisktest

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"ferry/chunking/vdisk"
)

// Same proves that an image holds a disk, read as a whole, in pieces, and by its
// extents.
func Same(t testing.TB, d vdisk.Image, image, disk []byte) {
	t.Helper()
	if d.Size() != int64(len(disk)) {
		t.Fatalf("the disk has %d bytes, want %d", d.Size(), len(disk))
	}
	got := make([]byte, len(disk))
	if n, err := d.ReadAt(got, 0); n != len(disk) || err != nil {
		t.Fatalf("ReadAt = %d, %v, want %d", n, err, len(disk))
	}
	if !bytes.Equal(got, disk) {
		t.Fatal("ReadAt: other bytes")
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		off := rng.IntN(len(disk))
		p := bytes.Repeat([]byte{0xaa}, 1+rng.IntN(100_000))
		n, err := d.ReadAt(p, int64(off))
		if want := min(len(p), len(disk)-off); n != want || !bytes.Equal(p[:n], disk[off:off+n]) || (err == io.EOF) != (n < len(p)) {
			t.Fatalf("ReadAt(%d bytes at %d) = %d, %v", len(p), off, n, err)
		}
	}
	at := int64(0)
	var last vdisk.Extent
	err := d.Extents(func(e vdisk.Extent) error {
		if e.Off != at || e.Size <= 0 {
			t.Fatalf("extent %+v, want one at %d", e, at)
		}
		if last.Size > 0 && (e.File == vdisk.Hole && last.File == vdisk.Hole || e.File >= 0 && e.File == last.File+last.Size) {
			t.Fatalf("extents %+v and %+v are not merged", last, e)
		}
		want := disk[e.Off : e.Off+e.Size]
		if e.File == vdisk.Hole && !bytes.Equal(want, make([]byte, len(want))) || e.File >= 0 && !bytes.Equal(image[e.File:e.File+e.Size], want) {
			t.Fatalf("extent %+v: other bytes", e)
		}
		last, at = e, e.Off+e.Size
		return nil
	})
	if err != nil || at != d.Size() {
		t.Fatalf("Extents: end at %d of %d, %v", at, d.Size(), err)
	}
}

// Sparse returns a disk of size bytes, most of which are zeros.
func Sparse(seed byte, size int) []byte {
	b := make([]byte, size)
	src := rand.NewChaCha8([32]byte{seed})
	rng := rand.New(src)
	for range 1 + size>>20 {
		at := rng.IntN(size) &^ 511
		src.Read(b[at:min(size, at+(1+rng.IntN(300))*512)])
	}
	return b
}

// Findings returns what an image's Check finds, a line each.
func Findings(t testing.TB, d vdisk.Image) string {
	t.Helper()
	var all []string
	if err := d.Check(func(_ int64, text string) error {
		all = append(all, text)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, "\n")
}

// Changed proves what becomes of an image in which something was changed: the errors that
// opening it and giving its extents match, nil for none, and a part of what Check finds. If
// it can be read, it holds the disk.
func Changed[D interface {
	comparable
	vdisk.Image
}](t *testing.T, open func(r io.ReaderAt, size int64) (D, error), image, disk []byte, opens, reads error, found string) {
	t.Helper()
	d, err := open(bytes.NewReader(image), int64(len(image)))
	var none D
	if !errors.Is(err, opens) || (err == nil) != (opens == nil) || (d == none) != (err != nil) {
		t.Fatalf("Open = %v, want %v", err, opens)
	}
	if err != nil {
		return
	}
	err = d.Extents(func(vdisk.Extent) error { return nil })
	if !errors.Is(err, reads) || (err == nil) != (reads == nil) {
		t.Errorf("Extents = %v, want %v", err, reads)
	}
	if all := Findings(t, d); !strings.Contains(all, found) || (all == "") != (found == "") {
		t.Errorf("Check finds %q, want %q", all, found)
	}
	if reads == nil {
		Same(t, d, image, disk)
	}
}

// Extents proves that the extents of an image, which may be hostile, are within it and
// have the bytes that reading gives, unless giving them fails.
func Extents(t testing.TB, d vdisk.Image, image []byte) {
	t.Helper()
	at := int64(0)
	err := d.Extents(func(e vdisk.Extent) error {
		if e.Off != at || e.Size <= 0 || e.File >= 0 && e.File+e.Size > int64(len(image)) {
			t.Fatalf("extent %+v, want one at %d", e, at)
		}
		at += e.Size
		if e.File >= 0 {
			p := make([]byte, min(e.Size, 4096))
			if _, err := d.ReadAt(p, e.Off); err != nil || !bytes.Equal(p, image[e.File:][:len(p)]) {
				t.Fatalf("extent %+v: other bytes, %v", e, err)
			}
		}
		return nil
	})
	if err == nil && at != d.Size() {
		t.Fatalf("extents of %d bytes, want %d", at, d.Size())
	}
}
