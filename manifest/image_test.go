package manifest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"ferry/cas"
	"ferry/chunking"
	"ferry/chunking/disk/disktest"
)

// TestImages stores disk images by their files, and gives them back bit for bit, from
// front to back and anywhere.
func TestImages(t *testing.T) {
	a, _ := newArchive(t, chunking.Default())
	base, target := disktest.Base(t), disktest.Target(t)
	files := map[string][]byte{"base.vhdx": base, "in.zip": zipOf(t, base, words(1, 5000))}
	m, first := addFiles(t, a, true, files)
	for name, want := range files {
		if got := contentOf(t, a, m, name); !bytes.Equal(got, want) {
			t.Errorf("%s comes back as %d other bytes", name, len(got))
		}
		e, _ := m.Find(name)
		r, err := a.Recipe(t.Context(), e)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(r.Streams); n < 70 {
			t.Errorf("%s has %d streams", name, n)
		}
		at, err := a.OpenAt(t.Context(), e)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(want))
		for off := 0; off < len(want); off += 77_777 { // pieces, the last first
			from := max(0, len(want)-off-77_777)
			if _, err := at.ReadAt(got[from:len(want)-off], int64(from)); err != nil {
				t.Fatalf("%s: ReadAt %d: %v", name, from, err)
			}
		}
		if n, err := at.ReadAt(make([]byte, 10), int64(len(want)-3)); n != 3 || !errors.Is(err, io.EOF) {
			t.Errorf("%s: ReadAt at its end = %d, %v", name, n, err)
		}
		at.Close()
		if !bytes.Equal(got, want) {
			t.Errorf("%s read anywhere gives other bytes", name)
		}
	}
	// Nothing of the image is stored twice, though it stands in a zip, too.
	_, second := addFiles(t, a, true, map[string][]byte{"target.vhdx": target})
	if first.New.Size > 1_700_000 || second.New.Size > 900_000 {
		t.Errorf("%d and then %d bytes of chunks are new", first.New.Size, second.New.Size)
	}
	// A file of an image is the same chunks as the file itself.
	e, _ := m.Find("base.vhdx")
	large, err := OpenInside(t.Context(), a, e, "2/usr/bin/large")
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(io.NewSectionReader(large, 0, large.Size()))
	large.Close()
	if err != nil || len(data) != 200_000 {
		t.Fatalf("2/usr/bin/large has %d bytes, %v", len(data), err)
	}
	if _, alone := addFiles(t, a, true, map[string][]byte{"large": data}); alone.New.Size > 1000 {
		t.Errorf("a file of the image takes %d bytes more", alone.New.Size)
	}
}

func TestInside(t *testing.T) {
	a, _ := newArchive(t, chunking.Default())
	m, _ := addFiles(t, a, true, map[string][]byte{"base.vhdx": disktest.Base(t), "x.zip": zipOf(t, disktest.Base(t), words(1, 9000)), "plain": words(2, 9000)})
	paths := func(name string) []string {
		e, _ := m.Find(name)
		entries, err := Inside(t.Context(), a, e, nil)
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, e := range entries {
			all = append(all, string(e.Type)+" "+e.Path)
		}
		return all
	}
	if got := paths("plain"); got != nil {
		t.Errorf("in a plain file there is %q", got)
	}
	got := paths("base.vhdx")
	for _, want := range []string{"file 1/EFI/bootx64.efi", "link 2/etc/os-release", "dir 2/srv/empty", "file 2/etc/kubernetes/config.yaml", "file 2/usr/bin/large"} {
		if !slices.Contains(got, want) {
			t.Errorf("no %s in %q", want, got)
		}
	}
	if slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, ":") }) {
		t.Errorf("metadata in %q", got)
	}
	if got := paths("x.zip"); !slices.Contains(got, "file dir/a!2/usr/bin/large") || slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, ":") }) {
		t.Errorf("in the zip there is %q", got)
	}
	e, _ := m.Find("base.vhdx")
	for path, want := range map[string]string{"2/etc/os-release": "NAME=\"Small\"\nVERSION_ID=\"1\"\n", "2/etc/kubernetes/config.yaml": "version: 1\n"} {
		c, err := OpenInside(t.Context(), a, e, path)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(io.NewSectionReader(c, 0, c.Size()))
		c.Close()
		if err != nil || string(data) != want {
			t.Errorf("%s = %q, %v", path, data, err)
		}
	}
	for _, path := range []string{"2/nope", "7/etc", "etc", "", "2/../2/etc/os-release"} {
		if _, err := OpenInside(t.Context(), a, e, path); !errors.Is(err, cas.ErrNotFound) {
			t.Errorf("OpenInside(%s) = %v, want %v", path, err, cas.ErrNotFound)
		}
	}
}

// TestGuard changes a file while it is read here and there.
func TestGuard(t *testing.T) {
	data := seeded(1, 3*guardBlock+1000)
	file := bytes.Clone(data)
	g, digest, err := guard(context.Background(), bytes.NewReader(file), int64(len(file)))
	if err != nil || digest != cas.Sum(data) {
		t.Fatalf("guard = %s, %v", digest, err)
	}
	buf := make([]byte, 5000)
	for _, off := range []int64{0, guardBlock - 2500, int64(len(data)) - 5000} {
		if n, err := g.ReadAt(buf, off); n != len(buf) || err != nil || !bytes.Equal(buf, data[off:off+5000]) {
			t.Errorf("ReadAt %d = %d, %v", off, n, err)
		}
	}
	if n, err := g.ReadAt(buf, int64(len(data))-10); n != 10 || !errors.Is(err, io.EOF) {
		t.Errorf("ReadAt at the end = %d, %v", n, err)
	}
	file[2*guardBlock+77] ^= 1
	if _, err := g.ReadAt(buf, 2*guardBlock); !errors.Is(err, ErrChanged) {
		t.Errorf("ReadAt of what changed = %v, want %v", err, ErrChanged)
	}
	if _, err := g.ReadAt(buf, 0); err != nil {
		t.Errorf("ReadAt of what did not change = %v", err)
	}
	g.r = bytes.NewReader(file[:guardBlock+5])
	if _, err := g.ReadAt(buf, guardBlock); !errors.Is(err, ErrChanged) {
		t.Errorf("ReadAt of a file cut off = %v, want %v", err, ErrChanged)
	}
}
