package fat

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"
)

// found is what a walk found.
type found struct {
	files map[string][]byte // nil for directories
	nodes []*Node
}

// walkAll walks a volume and reads its files.
func walkAll(v *Volume, image []byte) (found, error) {
	f := found{files: map[string][]byte{}}
	err := v.Walk(context.Background(), func(n *Node) error {
		f.nodes = append(f.nodes, n)
		var data []byte
		at := int64(0)
		for _, e := range n.Extents {
			if e.File != at || e.Size <= 0 || e.Disk < 0 || e.Disk+e.Size > int64(len(image)) {
				return fmt.Errorf("%s: extent %+v, want one at %d", n.Path, e, at)
			}
			data = append(data, image[e.Disk:e.Disk+e.Size]...)
			at += e.Size
		}
		if n.IsDir {
			f.files[n.Path] = nil
			return nil
		}
		if at != n.Size {
			return fmt.Errorf("%s: extents of %d bytes, want %d", n.Path, at, n.Size)
		}
		f.files[n.Path] = append([]byte{}, data...)
		return nil
	})
	return f, err
}

func open(t testing.TB, image []byte) *Volume {
	t.Helper()
	v, err := Open(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

const (
	testRoot = 3 * 512 // where make12 has its root directory,
	testData = 4 * 512 // and cluster 2
)

// set12 writes an entry of both FATs.
func set12(image []byte, cluster, value int) {
	for _, fat := range []int{512, 1024} {
		b := image[fat+cluster+cluster/2:]
		old := int(le.Uint16(b))
		if cluster%2 == 0 {
			le.PutUint16(b, uint16(old&0xf000|value))
		} else {
			le.PutUint16(b, uint16(old&0x000f|value<<4))
		}
	}
}

// entryOf returns a directory entry.
func entryOf(name string, attr byte, cluster, size int) []byte {
	e := make([]byte, entrySize)
	copy(e, fmt.Sprintf("%-11s", name))
	e[11] = attr
	le.PutUint16(e[22:], 12<<11|30<<5|5)
	le.PutUint16(e[24:], 44<<9|2<<5|29)
	le.PutUint16(e[26:], uint16(cluster))
	le.PutUint32(e[28:], uint32(size))
	return e
}

// longEntries returns the entries of a long name for that of a file.
func longEntries(name string, short []byte) (entries []byte) {
	sum := byte(0)
	for _, c := range short[:11] {
		sum = (sum>>1 | sum<<7) + c
	}
	units := append(utf16.Encode([]rune(name)), 0)
	for len(units)%13 != 0 {
		units = append(units, 0xffff)
	}
	parts := len(units) / 13
	for i := parts; i >= 1; i-- {
		e := make([]byte, entrySize)
		if e[0] = byte(i); i == parts {
			e[0] |= 0x40
		}
		e[11], e[13] = attrLong, sum
		for k, at := range []int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30} {
			le.PutUint16(e[at:], units[(i-1)*13+k])
		}
		entries = append(entries, e...)
	}
	return entries
}

// make12 returns a FAT12 volume of 100 sectors with two files, one of which is in two
// runs, and a directory with a file.
func make12() []byte {
	b := make([]byte, 100*512)
	copy(b, "\xeb\x3c\x90ferry   ")
	le.PutUint16(b[11:], 512)
	b[13], b[16] = 1, 2
	le.PutUint16(b[14:], 1)
	le.PutUint16(b[17:], 16)
	le.PutUint16(b[19:], 100)
	b[21] = 0xf8
	le.PutUint16(b[22:], 1)
	b[510], b[511] = 0x55, 0xaa
	set12(b, 0, 0xff8)
	set12(b, 1, 0xfff)
	for c, next := range map[int]int{2: 3, 3: 5, 5: 0xfff, 4: 0xfff, 6: 0xfff} {
		set12(b, c, next)
	}
	long := entryOf("TWORUN~1TXT", 0, 2, 1100)
	root := slices.Concat(
		entryOf("A LABEL", attrVolume, 0, 0),
		entryOf("\xe5GONE", 0, 9, 10),
		longEntries("two runs of 日本.txt", long), long,
		entryOf("DIR", attrDirectory, 4, 0),
		entryOf("EMPTY", 0, 0, 0),
	)
	copy(b[testRoot:], root)
	file := entryOf("FILE    \x81", 0, 6, 512)
	file[12] = 0x08
	copy(b[testData+2*512:], slices.Concat(entryOf(".", attrDirectory, 4, 0), entryOf("..", attrDirectory, 0, 0), file))
	for c, s := range map[int]string{2: "2", 3: "3", 5: "5", 6: "6"} {
		copy(b[testData+(c-2)*512:], strings.Repeat(s, 512))
	}
	return b
}

func TestWalk(t *testing.T) {
	image := make12()
	v := open(t, image)
	got, err := walkAll(v, image)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]byte{
		".": nil, "DIR": nil, "EMPTY": {}, "DIR/file.ü": bytes.Repeat([]byte("6"), 512),
		"two runs of 日本.txt": []byte(strings.Repeat("2", 512) + strings.Repeat("3", 512) + strings.Repeat("5", 76)),
	}
	if !maps.EqualFunc(got.files, want, bytes.Equal) {
		t.Errorf("Walk = %q, want %q", got.files, want)
	}
	n := got.nodes[1]
	if s := fmt.Sprint(n.Path, n.ModTime.Format(" 2006-01-02 15:04:05 "), n.Extents); s != "two runs of 日本.txt 2024-02-29 12:30:10 [{0 2048 1024} {1024 3584 76}]" {
		t.Errorf("node is %s", s)
	}
	areas, err := v.Areas(context.Background())
	if s := fmt.Sprint(areas, err); s != "[{reserved sectors 0 512} {FAT 1 512 512} {FAT 2 1024 512} {directory . 1536 512} {directory DIR 3072 512}] <nil>" {
		t.Errorf("Areas = %s", s)
	}
	var free []Area
	if err := v.Free(func(off, size int64) error {
		free = append(free, Area{"", off, size})
		return nil
	}); err != nil || fmt.Sprint(free) != fmt.Sprint([]Area{{"", testData + 5*512, 91 * 512}}) {
		t.Errorf("Free = %v, %v", free, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := v.Walk(ctx, func(*Node) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled context gives %v", err)
	}
	if err := v.Walk(context.Background(), func(*Node) error { return io.ErrClosedPipe }); err != io.ErrClosedPipe {
		t.Errorf("an error of fn gives %v", err)
	}
}

// TestHostile changes one thing in a volume.
func TestHostile(t *testing.T) {
	const dir = testRoot + 32*5 // the entry of the directory: before it are label, removed, three of a file
	for _, test := range []struct {
		name   string
		change func(b []byte) []byte
		open   error
		walk   error
	}{
		{"nothing", func(b []byte) []byte { return b }, nil, nil},
		{"empty", func(b []byte) []byte { return nil }, ErrFormat, nil},
		{"no jump", func(b []byte) []byte { b[0] = 0; return b }, ErrFormat, nil},
		{"no signature", func(b []byte) []byte { b[510] = 0; return b }, ErrFormat, nil},
		{"sector size", func(b []byte) []byte { b[12] = 3; return b }, ErrFormat, nil},
		{"cluster size", func(b []byte) []byte { b[13] = 3; return b }, ErrFormat, nil},
		{"no FAT", func(b []byte) []byte { b[16] = 0; return b }, ErrFormat, nil},
		{"cut off", func(b []byte) []byte { return b[:60*512] }, ErrInvalid, nil},
		{"large FAT", func(b []byte) []byte { b[23] = 0xff; return b }, ErrInvalid, nil},
		{"no root directory", func(b []byte) []byte { b[17] = 0; return b }, ErrInvalid, nil},
		{"loop", func(b []byte) []byte { set12(b, 5, 2); return b }, nil, ErrInvalid},
		{"crossed", func(b []byte) []byte { set12(b, 5, 6); return b }, nil, ErrInvalid},
		{"short", func(b []byte) []byte { set12(b, 2, 0xfff); return b }, nil, ErrInvalid},
		{"free in a chain", func(b []byte) []byte { set12(b, 3, 0); return b }, nil, ErrInvalid},
		{"bad in a chain", func(b []byte) []byte { set12(b, 3, 0xff7); return b }, nil, ErrInvalid},
		{"outside", func(b []byte) []byte { set12(b, 3, 500); return b }, nil, ErrInvalid},
		{"directory in itself", func(b []byte) []byte { copy(b[testData+2*512+64:], entryOf("SUB", attrDirectory, 4, 0)); return b }, nil, ErrInvalid},
		{"directory without clusters", func(b []byte) []byte { b[dir+26] = 0; return b }, nil, ErrInvalid},
		{"name with a slash", func(b []byte) []byte { b[dir+1] = '/'; return b }, nil, ErrInvalid},
	} {
		t.Run(test.name, func(t *testing.T) {
			bad := test.change(make12())
			v, err := Open(bytes.NewReader(bad), int64(len(bad)))
			if !errors.Is(err, test.open) || (err == nil) != (test.open == nil) || (v == nil) != (err != nil) {
				t.Fatalf("Open = %v, want %v", err, test.open)
			}
			if err != nil {
				return
			}
			if _, err := walkAll(v, bad); !errors.Is(err, test.walk) || (err == nil) != (test.walk == nil) {
				t.Errorf("Walk = %v, want %v", err, test.walk)
			}
		})
	}
}

// TestTools reads what mkfs.fat and mcopy make.
func TestTools(t *testing.T) {
	for _, tool := range []string{"mkfs.fat", "mcopy"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(tool + " is not on PATH (packages dosfstools and mtools)")
		}
	}
	noise := make([]byte, 300_000)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	want := map[string][]byte{
		"EFI": nil, "EFI/BOOT": nil, "EFI/BOOT/BOOTX64.EFI": noise, "EFI/a long name with ümläuts and more than twenty-six characters.conf": []byte("x"),
		"lower.txt": noise[:512], "EMPTY": {}, "many": nil,
	}
	for i := range 300 {
		want[fmt.Sprintf("many/file number %d", i)] = noise[i : 2*i]
	}
	for _, test := range []struct {
		name string
		size int64
		args []string
	}{
		{"FAT12", 4 << 20, []string{"-F", "12"}},
		{"FAT16", 32 << 20, []string{"-F", "16"}},
		{"FAT32", 64 << 20, []string{"-F", "32"}},
		{"FAT32, 4096", 300 << 20, []string{"-F", "32", "-S", "4096"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			tree, name := t.TempDir(), filepath.Join(t.TempDir(), "image")
			for path, data := range want {
				full := filepath.Join(tree, path)
				if data == nil {
					os.MkdirAll(full, 0o777)
					continue
				}
				os.MkdirAll(filepath.Dir(full), 0o777)
				if err := os.WriteFile(full, data, 0o666); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(name, nil, 0o666); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(name, test.size); err != nil {
				t.Fatal(err)
			}
			run(t, "mkfs.fat", append(test.args, name)...)
			tops, _ := filepath.Glob(filepath.Join(tree, "*"))
			run(t, "mcopy", append(append([]string{"-s", "-i", name}, tops...), "::")...)
			image, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			v := open(t, image)
			got, err := walkAll(v, image)
			if err != nil {
				t.Fatal(err)
			}
			delete(got.files, ".")
			for path, data := range want {
				if g, ok := got.files[path]; !ok || !bytes.Equal(g, data) {
					t.Errorf("file %q has %d bytes, want %d; found %v", path, len(g), len(data), ok)
				}
			}
			if len(got.files) != len(want) {
				t.Errorf("there are %d files, want %d", len(got.files), len(want))
			}
			cover(t, v, got, int64(len(image)))
		})
	}
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MTOOLS_SKIP_CHECK=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// cover proves that no byte is in two places: of files, of areas, free.
func cover(t testing.TB, v *Volume, f found, size int64) {
	t.Helper()
	all, err := v.Areas(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range f.nodes {
		if n.IsDir {
			continue
		}
		for _, e := range n.Extents {
			all = append(all, Area{n.Path, e.Disk, e.Size})
		}
	}
	if err := v.Free(func(off, size int64) error {
		all = append(all, Area{"free", off, size})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(all, func(a, b Area) int { return cmp.Compare(a.Off, b.Off) })
	end := int64(0)
	for _, a := range all {
		if a.Off < end || a.Size <= 0 || a.Off+a.Size > size {
			t.Fatalf("%+v, what is before ends at %d", a, end)
		}
		end = a.Off + a.Size
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(make12())
	small := make12()
	small[17], small[22] = 0, 0 // FAT32 with a FAT of one sector
	le.PutUint32(small[36:], 1)
	le.PutUint32(small[44:], 4)
	for _, fat := range []int{512, 1024} {
		clear(small[fat : fat+512])
		for _, c := range []int{4, 6} {
			le.PutUint32(small[fat+4*c:], 0x0fffffff)
		}
	}
	copy(small[3*512+2*512:], entryOf("FILE", 0, 6, 300))
	f.Add(small)
	f.Fuzz(func(t *testing.T, image []byte) {
		v, err := Open(bytes.NewReader(image), int64(len(image)))
		if err != nil {
			if v != nil {
				t.Fatal("a volume and an error")
			}
			return
		}
		got, err := walkAll(v, image)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		cover(t, v, got, int64(len(image)))
	})
}
