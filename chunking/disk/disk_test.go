package disk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ferry/chunking/disk/disktest"
	"ferry/chunking/vdisk/vdisktest"
)

var update = flag.Bool("update", false, "write golden files")

func image(t testing.TB, name string) []byte {
	if name == "base" {
		return disktest.Base(t)
	}
	return disktest.Target(t)
}

func open(t testing.TB, data []byte) *Image {
	t.Helper()
	m, err := Open(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// raw returns the disk in an image.
func raw(t testing.TB, data []byte) []byte {
	t.Helper()
	r, size, _ := open(t, data).Disk()
	b := make([]byte, size)
	if n, err := r.ReadAt(b, 0); n < len(b) {
		t.Fatal(err)
	}
	return b
}

func volume(t testing.TB, m *Image, number int) *Files {
	t.Helper()
	v, ok := m.Volume(number)
	if !ok {
		t.Fatalf("no volume %d", number)
	}
	files, err := v.Files(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// vhdOf makes a fixed VHD of a disk: its bytes, and a footer. Microsoft, "Virtual Hard
// Disk Image Format Specification" 1.0, "Hard Disk Footer Format".
func vhdOf(disk []byte) []byte {
	f := make([]byte, 512)
	copy(f, "conectix")
	binary.BigEndian.PutUint32(f[8:], 2)
	binary.BigEndian.PutUint32(f[12:], 0x10000)
	binary.BigEndian.PutUint64(f[16:], ^uint64(0))
	copy(f[28:], "test")
	binary.BigEndian.PutUint64(f[40:], uint64(len(disk)))
	binary.BigEndian.PutUint64(f[48:], uint64(len(disk)))
	binary.BigEndian.PutUint32(f[60:], 2)
	sum := uint32(0)
	for _, b := range f {
		sum += uint32(b)
	}
	binary.BigEndian.PutUint32(f[64:], ^sum)
	return append(slices.Clone(disk), f...)
}

// split splits an image, and proves that each byte is in one stream or zero.
func split(t testing.TB, data []byte) map[string][]byte {
	t.Helper()
	streams, err := Split(context.Background(), bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	content := map[string][]byte{}
	taken := make([]bool, len(data))
	for _, s := range streams {
		if len(s.Ranges) == 0 {
			t.Errorf("%s is empty", s.Name)
		}
		if _, ok := content[s.Name]; ok {
			t.Errorf("%s is there twice", s.Name)
		}
		for _, g := range s.Ranges {
			if g.Size <= 0 || g.Off < 0 || g.Off+g.Size > int64(len(data)) {
				t.Fatalf("%s has %+v of %d bytes", s.Name, g, len(data))
			}
			for i := g.Off; i < g.Off+g.Size; i++ {
				if taken[i] {
					t.Fatalf("%s has byte %d, which another has", s.Name, i)
				}
				taken[i] = true
			}
			content[s.Name] = append(content[s.Name], data[g.Off:g.Off+g.Size]...)
		}
	}
	for i, b := range data {
		if b != 0 && !taken[i] {
			t.Fatalf("no stream has byte %d", i)
		}
	}
	return content
}

func TestSplit(t *testing.T) {
	for _, name := range []string{"base", "target"} {
		data := image(t, name)
		m := open(t, data)
		for form, data := range map[string][]byte{"vhdx": data, "raw": raw(t, data), "vhd": vhdOf(raw(t, data)), "qcow2": vdisktest.Qcow2(raw(t, data), 64<<10)} {
			streams := split(t, data)
			for _, v := range m.Volumes {
				files := volume(t, m, v.Number)
				err := fs.WalkDir(files, ".", func(path string, d fs.DirEntry, err error) error {
					if err != nil || !d.Type().IsRegular() {
						return err
					}
					want, err := fs.ReadFile(files, path)
					got, ok := streams[fmt.Sprintf("%d/%s", v.Number, path)]
					if ok != (len(want) >= minStream) || ok && !bytes.Equal(got, want) {
						t.Errorf("%s of %s: %s: stream of %d bytes (%v), want %d", form, name, path, len(got), ok, len(want))
					}
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// TestGolden holds the streams of an image: recipes in stores depend on them only for
// how much two images share, but they are to stay what they are.
func TestGolden(t *testing.T) {
	data := image(t, "target")
	streams, err := Split(context.Background(), bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, s := range streams {
		fmt.Fprintf(&b, "%s", s.Name)
		for _, g := range s.Ranges {
			fmt.Fprintf(&b, " %d+%d", g.Off, g.Size)
		}
		b.WriteByte('\n')
	}
	path := filepath.Join("testdata", "target.golden")
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := b.String(); got != strings.ReplaceAll(string(want), "\r\n", "\n") {
		t.Errorf("streams are\n%s\nwant\n%s", got, want)
	}
}

func TestFiles(t *testing.T) {
	files := volume(t, open(t, image(t, "target")), 2)
	for path, want := range map[string]string{
		"etc/os-release":                 "NAME=\"Small\"\nVERSION_ID=\"1\"\n", // a link
		"etc/kubernetes/config.yaml":     "version: 2\n",
		"lib/systemd/system/one.service": "[Unit]\nDescription=one\n", // in a folder that is a link
	} {
		if got, err := fs.ReadFile(files, path); err != nil || string(got) != want {
			t.Errorf("%s = %q, %v, want %q", path, got, err, want)
		}
	}
	for _, path := range []string{"nope", "etc/os-release/x", "etc/systemd/system/one.service"} {
		if _, err := files.Open(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Open(%s) = %v, want %v", path, err, fs.ErrNotExist)
		}
	}
	if _, err := files.Open("../etc"); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("Open(../etc) = %v, want %v", err, fs.ErrInvalid)
	}
	if link, err := files.ReadLink("lib"); err != nil || link != "usr/lib" {
		t.Errorf("ReadLink(lib) = %q, %v", link, err)
	}
	if n, err := volumeOf(t, "target", 2).Count(context.Background()); err != nil || n != 42 {
		t.Errorf("Count = %d, %v, want 42", n, err)
	}
	efi := volume(t, open(t, image(t, "base")), 1)
	if data, err := fs.ReadFile(efi, "EFI/bootx64.efi"); err != nil || len(data) != 30000 {
		t.Errorf("EFI/bootx64.efi = %d bytes, %v", len(data), err)
	}
}

func volumeOf(t *testing.T, name string, number int) *Volume {
	v, _ := open(t, image(t, name)).Volume(number)
	return v
}

// TestLinks gives links that lead out of the tree, or round in it.
func TestLinks(t *testing.T) {
	f := &Files{nodes: map[string]*node{}}
	link := func(name, target string) { f.add(name, &node{info: info{mode: fs.ModeSymlink}, link: target}) }
	f.add("", &node{info: info{mode: fs.ModeDir}})
	f.add("a", &node{info: info{mode: fs.ModeDir}})
	f.add("a/file", &node{info: info{size: 3}, open: func() io.ReaderAt { return strings.NewReader("abc") }})
	link("up", "../../../a/file")
	link("a/rooted", "/a/file")
	link("a/beside", "file")
	link("round", "other")
	link("other", "round")
	link("folder", "a/../a")
	for _, path := range []string{"up", "a/rooted", "a/beside", "folder/file", "folder/rooted"} {
		if data, err := fs.ReadFile(f, path); err != nil || string(data) != "abc" {
			t.Errorf("%s = %q, %v", path, data, err)
		}
	}
	if _, err := f.Open("round"); err == nil {
		t.Error("a link to itself is opened")
	}
}

func TestCheck(t *testing.T) {
	sound := image(t, "base")
	findings := func(data []byte) (all []Finding) {
		t.Helper()
		if err := Check(context.Background(), bytes.NewReader(data), int64(len(data)), func(f Finding) { all = append(all, f) }); err != nil {
			t.Fatal(err)
		}
		return all
	}
	if all := findings(sound); len(all) > 0 {
		t.Errorf("a sound image has %+v", all)
	}
	at := map[string]int64{}
	streams, err := Split(context.Background(), bytes.NewReader(sound), int64(len(sound)))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range streams {
		at[s.Name] = s.Ranges[0].Off
	}
	for _, test := range []struct {
		stream string
		off    int64 // in it
		where  string
	}{
		{":header 1", 100, "vhdx"},
		{":region table 1", 20, "vhdx"},
		{":block allocation table", 3, "vhdx"}, // a block far outside
		{":partition table", 512 + 60, "partition table"},
		{"2:superblock", 0x78, "volume 2"},
		{"2:descriptors", 0, "volume 2"},
		{"2:bitmaps", 10, "volume 2"},
		{"2:folders", 30, "volume 2"},
	} {
		off, ok := at[test.stream]
		if !ok {
			t.Fatalf("no stream %s", test.stream)
		}
		damaged := slices.Clone(sound)
		damaged[off+test.off] ^= 0x41
		if all := findings(damaged); !slices.ContainsFunc(all, func(f Finding) bool { return f.Where == test.where && f.Text != "" }) {
			t.Errorf("%s damaged at %d: findings %+v, want one of %s", test.stream, test.off, all, test.where)
		}
	}
	var other []Finding
	err = Check(context.Background(), strings.NewReader("not an image"), 12, func(f Finding) { other = append(other, f) })
	if !errors.Is(err, ErrFormat) {
		t.Errorf("Check of a text = %v and %+v, want %v", err, other, ErrFormat)
	}
}

// memory is a file in memory.
type memory struct{ b []byte }

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if need := int(off) + len(p); need > len(m.b) {
		m.b = append(m.b, make([]byte, need-len(m.b))...)
	}
	return copy(m.b[off:], p), nil
}

func write(t *testing.T, c *Contents, form Form) []byte {
	t.Helper()
	w := &memory{}
	if form == FormRaw {
		w.b = make([]byte, c.Size())
	}
	if err := Write(context.Background(), w, c, form); err != nil {
		t.Fatal(err)
	}
	return w.b
}

func TestForms(t *testing.T) {
	data := image(t, "base")
	disk := raw(t, data)
	if got := write(t, open(t, data).Contents(), FormRaw); !bytes.Equal(got, disk) {
		t.Error("the raw form is not the disk")
	}
	again := write(t, open(t, disk).Contents(), FormVHDX)
	if got := raw(t, again); !bytes.Equal(got, disk) {
		t.Error("the disk of the VHDX is not the raw one")
	}
	if !bytes.Equal(again, write(t, open(t, disk).Contents(), FormVHDX)) {
		t.Error("the same disk gives different VHDX files")
	}
	same := write(t, open(t, data).Contents(), FormVHDX)
	if was, is := open(t, data).Virtual.Info(), open(t, same).Virtual.Info(); is.ID != was.ID || is.BlockSize != was.BlockSize || is.PhysicalSector != was.PhysicalSector {
		t.Errorf("a VHDX of a VHDX is %+v, want %+v", is, was)
	}
	if err := Write(context.Background(), &memory{}, open(t, data).Contents(), "qcow2"); !errors.Is(err, ErrForm) {
		t.Errorf("Write as qcow2 = %v, want %v", err, ErrForm)
	}
	qemu(t, again, disk)
}

// qemu lets qemu-img check a VHDX and compare its disk.
func qemu(t *testing.T, vhdx, disk []byte) {
	t.Helper()
	if _, err := exec.LookPath("qemu-img"); err != nil {
		t.Log("qemu-img is not on PATH (package qemu-utils): its opinion is not asked for")
		return
	}
	dir := t.TempDir()
	for name, data := range map[string][]byte{"d.vhdx": vhdx, "d.raw": disk} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"check", "-f", "vhdx", filepath.Join(dir, "d.vhdx")},
		{"compare", "-f", "vhdx", "-F", "raw", filepath.Join(dir, "d.vhdx"), filepath.Join(dir, "d.raw")},
	} {
		if out, err := exec.Command("qemu-img", args...).CombinedOutput(); err != nil {
			t.Errorf("qemu-img %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

func TestCompacted(t *testing.T) {
	data := image(t, "target")
	m := open(t, data)
	c, err := m.Compacted(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	freed, err := c.Freed(context.Background())
	if err != nil || freed < 10_000 {
		t.Errorf("Freed = %d, %v", freed, err)
	}
	small := write(t, c, FormVHDX)
	disk := raw(t, small)
	qemu(t, small, disk)
	after := open(t, small)
	again, err := after.Compacted(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if left, err := again.Freed(context.Background()); err != nil || left != 0 {
		t.Errorf("of a compacted image %d bytes can be freed, %v", left, err)
	}
	if at, err := Equal(context.Background(), after.Contents(), again); at >= 0 || err != nil {
		t.Errorf("compacting twice differs at %d, %v", at, err)
	}
	var findings []Finding
	if err := Check(context.Background(), bytes.NewReader(small), int64(len(small)), func(f Finding) { findings = append(findings, f) }); err != nil || len(findings) > 0 {
		t.Errorf("Check = %v, %+v", err, findings)
	}
	// What is no free block is as it was.
	was, is := raw(t, data), disk
	for i := range was {
		if was[i] != is[i] && is[i] != 0 {
			t.Fatalf("byte %d is %d, was %d", i, is[i], was[i])
		}
	}
	for _, number := range []int{1, 2} {
		before, after := volume(t, m, number), volume(t, after, number)
		err := fs.WalkDir(before, ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			want, err := fs.ReadFile(before, path)
			if got, _ := fs.ReadFile(after, path); !bytes.Equal(got, want) {
				t.Errorf("%s changed", path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	fsck(t, disk, m.Volumes[1])
}

// fsck lets e2fsck look at a volume of a disk.
func fsck(t *testing.T, disk []byte, v *Volume) {
	t.Helper()
	if _, err := exec.LookPath("e2fsck"); err != nil {
		t.Log("e2fsck is not on PATH (package e2fsprogs): its opinion is not asked for")
		return
	}
	path := filepath.Join(t.TempDir(), "volume")
	if err := os.WriteFile(path, disk[v.Off:v.Off+v.Size], 0o666); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("e2fsck", "-fn", path).CombinedOutput(); err != nil {
		t.Errorf("e2fsck: %v\n%s", err, out)
	}
}

// TestCompactedRefuses gives volumes whose free blocks cannot be told.
func TestCompactedRefuses(t *testing.T) {
	disk := raw(t, image(t, "base"))
	v := volumeOf(t, "base", 2)
	for what, off := range map[string]int64{"a damaged bitmap": 0, "a journal to be replayed": 1024 + 0x60} {
		damaged := slices.Clone(disk)
		if off > 0 {
			damaged[v.Off+off] |= 4 // needs_recovery
		} else {
			areas, err := v.Ext4.Areas(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range areas {
				if a.Kind.String() == "bitmaps" {
					damaged[v.Off+a.Off] ^= 0xff
					break
				}
			}
		}
		c, err := open(t, damaged).Compacted(context.Background())
		if err == nil || c != nil || off > 0 && !errors.Is(err, ErrUnclean) {
			t.Errorf("%s: Compacted = %v", what, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	data := image(t, "base")
	for what, b := range map[string][]byte{
		"nothing":               nil,
		"zeros":                 make([]byte, 1<<20),
		"text":                  bytes.Repeat([]byte("text "), 1000),
		"a VHDX cut off":        data[:1<<20],
		"only a VHDX's name":    []byte("vhdxfile"),
		"only a VHD's name":     bytes.Repeat([]byte("conectix"), 200),
		"a boot sector of none": append(make([]byte, 510), 0x55, 0xaa, 0, 0),
	} {
		if m, err := Open(bytes.NewReader(b), int64(len(b))); err == nil || m != nil || !Malformed(err) {
			t.Errorf("%s: Open = %v, %v", what, m, err)
		}
	}
}

// FuzzSplit changes some bytes of an image: whatever comes out, no byte is lost, and
// nothing panics.
func FuzzSplit(f *testing.F) {
	data := raw(f, image(f, "target"))
	whole := image(f, "target")
	for _, off := range []uint32{0, 446, 510, 512, 1024, 1<<20 + 11, 2<<20 + 1024 + 4, 2<<20 + 1024 + 0x60, 2<<20 + 2048} {
		f.Add(off, []byte{0xff, 0xff, 0xff, 0xff}, false)
		f.Add(off, []byte{0, 0}, false)
	}
	for _, off := range []uint32{64 << 10, 128 << 10, 192 << 10, 256<<10 + 16, 1 << 20, 2<<20 + 8, 3 << 20} {
		f.Add(off, []byte{0xff, 0x41}, true)
	}
	f.Fuzz(func(t *testing.T, off uint32, patch []byte, vhdx bool) {
		from := data
		if vhdx {
			from = whole
		}
		b := slices.Clone(from)
		copy(b[min(int(off), len(b)):], patch)
		ctx := context.Background()
		if _, err := Split(ctx, bytes.NewReader(b), int64(len(b))); err == nil {
			split(t, b)
		}
		findings := 0
		err := Check(ctx, bytes.NewReader(b), int64(len(b)), func(Finding) { findings++ })
		if err != nil && !Malformed(err) {
			t.Fatalf("Check = %v", err)
		}
		m, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		for _, v := range m.Volumes {
			if files, err := v.Files(ctx); err == nil {
				fs.WalkDir(files, ".", func(path string, d fs.DirEntry, err error) error {
					if err == nil && d.Type().IsRegular() {
						if f, err := files.Open(path); err == nil {
							io.Copy(io.Discard, io.LimitReader(f, 1<<16))
						}
					}
					return nil
				})
			}
		}
		if c, err := m.Compacted(ctx); err == nil {
			if _, err := c.Freed(ctx); err != nil {
				t.Fatal(err)
			}
		}
	})
}
