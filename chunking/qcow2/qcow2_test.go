package qcow2

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ferry/chunking/vdisk"
	"ferry/chunking/vdisk/vdisktest"
)

func open(t testing.TB, image []byte) *Image {
	t.Helper()
	d, err := Open(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestOpen(t *testing.T) {
	for _, test := range []struct{ cluster, size int }{{512, 1 << 20}, {4096, 9<<20 + 512*5}, {64 << 10, 5 << 20}, {1 << 20, 3 << 20}} {
		disk := vdisktest.Sparse(1, test.size)
		image := vdisktest.Qcow2(disk, test.cluster)
		d := open(t, image)
		vdisktest.Same(t, d, image, disk)
		if all := vdisktest.Findings(t, d); all != "" {
			t.Errorf("Check finds %q", all)
		}
		if info := d.Info(); info.Kind != "dynamic" || info.BlockSize != int64(test.cluster) {
			t.Errorf("Info() = %+v", info)
		}
		at := int64(0)
		for _, a := range d.Structures() {
			if a.Off < at || a.Size <= 0 || a.Off+a.Size > int64(len(image)) {
				t.Errorf("area %+v, want one from %d on", a, at)
			}
			at = a.Off + a.Size
		}
	}
}

// TestHostile changes one thing in an image whose clusters 0 and 1 are there.
func TestHostile(t *testing.T) {
	const cluster = 4096
	disk := vdisktest.Sparse(3, 4<<20)
	copy(disk, "first")
	copy(disk[cluster:], "second")
	good := vdisktest.Qcow2(disk, cluster)
	const level1, level2 = 2 * cluster, 3 * cluster
	put := func(at int, v uint64) func(b []byte) []byte {
		return func(b []byte) []byte { be.PutUint64(b[at:], v); return b }
	}
	for _, test := range []struct {
		name   string
		change func(b []byte) []byte
		open   error  // of Open
		read   error  // of Extents
		found  string // by Check
	}{
		{name: "nothing", change: func(b []byte) []byte { return b }},
		{name: "empty", change: func(b []byte) []byte { return nil }, open: ErrFormat},
		{name: "no signature", change: func(b []byte) []byte { b[0] = 0; return b }, open: ErrFormat},
		{name: "version", change: func(b []byte) []byte { b[7] = 4; return b }, open: ErrUnsupported},
		{name: "short header", change: func(b []byte) []byte { b[103] = 72; return b }, open: ErrInvalid},
		{name: "cut off in the header", change: func(b []byte) []byte { return b[:100] }, open: ErrInvalid},
		{name: "small clusters", change: func(b []byte) []byte { b[23] = 8; return b }, open: ErrInvalid},
		{name: "large clusters", change: func(b []byte) []byte { b[23] = 40; return b }, open: ErrInvalid},
		{name: "large", change: put(24, 1<<60), open: ErrUnsupported},
		{name: "large for its clusters", change: put(24, 1<<50), open: ErrUnsupported},
		{name: "half a sector", change: put(24, 4<<20+100), open: ErrInvalid},
		{name: "larger than the table", change: put(24, 8<<20), open: ErrInvalid},
		{name: "backing file", change: put(8, 112), open: ErrUnsupported},
		{name: "encrypted", change: func(b []byte) []byte { b[35] = 2; return b }, open: ErrUnsupported},
		{name: "data elsewhere", change: put(72, featureData), open: ErrUnsupported},
		{name: "extended", change: put(72, featureExtended), open: ErrUnsupported},
		{name: "what nobody knows", change: put(72, 1<<40), open: ErrUnsupported},
		{name: "not closed", change: put(72, featureDirty), found: "not closed"},
		{name: "corrupt", change: put(72, featureCorrupt), found: "corrupt"},
		{name: "level 1 outside", change: put(40, 1<<40), open: ErrInvalid},
		{name: "level 1 in the header", change: put(40, 0), open: ErrInvalid},
		{name: "level 1 at no cluster", change: put(40, level1+8), open: ErrInvalid},
		{name: "counts outside", change: put(48, 1<<62), open: ErrInvalid},
		{name: "many counts", change: func(b []byte) []byte { b[56] = 0xff; return b }, open: ErrInvalid},
		{name: "level 2 outside", change: put(level1, 1<<40), open: ErrInvalid},
		{name: "level 2 twice", change: func(b []byte) []byte { copy(b[level1+8:], b[level1:level1+8]); return b }, open: ErrInvalid},
		{name: "level 2 over level 1", change: put(level1, level1), read: ErrInvalid, found: "a table of level 2 overlaps"},
		{name: "cluster outside", change: put(level2, 1<<40), read: ErrInvalid, found: "entry 0: a cluster at"},
		{name: "cluster at no cluster", change: put(level2, 5*cluster+512), read: ErrInvalid, found: "entry 0: a cluster at"},
		{name: "cluster twice", change: func(b []byte) []byte { copy(b[level2+8:], b[level2:level2+8]); return b }, read: ErrInvalid, found: "a cluster of the disk overlaps"},
		{name: "cluster over the header", change: put(level2, 1<<63), found: "", read: nil},
		{name: "cluster over level 1", change: put(level2, level1), read: ErrInvalid, found: "a cluster of the disk overlaps"},
		{name: "cut off", change: func(b []byte) []byte { return b[:len(b)-cluster] }, read: ErrInvalid, found: "a cluster at"},
	} {
		t.Run(test.name, func(t *testing.T) {
			want := bytes.Clone(disk)
			if test.name == "cluster over the header" { // 0 is no place: zeros
				clear(want[:cluster])
			}
			vdisktest.Changed(t, Open, test.change(bytes.Clone(good)), want, test.open, test.read, test.found)
		})
	}
}

// TestRead reads what QEMU writes.
func TestRead(t *testing.T) {
	if _, err := exec.LookPath("qemu-img"); err != nil {
		t.Skip("qemu-img is not on PATH (package qemu-utils)")
	}
	dir := t.TempDir()
	raw, name := filepath.Join(dir, "raw"), filepath.Join(dir, "image.qcow2")
	disk := vdisktest.Sparse(5, 20<<20+512*3)
	if err := os.WriteFile(raw, disk, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		options    string
		compressed bool
	}{
		{options: "compat=0.10"}, {options: "compat=1.1"}, {options: "cluster_size=512"}, {options: "cluster_size=2M"},
		{options: "preallocation=metadata"}, {options: "preallocation=full"}, {options: "lazy_refcounts=on"}, {options: "refcount_bits=1"},
		{options: "compat=1.1", compressed: true}, {options: "extended_l2=on", compressed: true}, // which is not read, either
	} {
		t.Run(test.options, func(t *testing.T) {
			args := []string{"convert", "-f", "raw", "-O", "qcow2", "-o", test.options}
			if test.compressed {
				args = append(args, "-c")
			}
			if out, err := exec.Command("qemu-img", append(args, raw, name)...).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			image, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if test.compressed {
				d, err := Open(bytes.NewReader(image), int64(len(image)))
				if err == nil {
					err = d.Extents(func(vdisk.Extent) error { return nil })
				}
				if !errors.Is(err, ErrUnsupported) {
					t.Fatalf("got %v, want %v", err, ErrUnsupported)
				}
				return
			}
			d := open(t, image)
			vdisktest.Same(t, d, image, disk)
			if all := vdisktest.Findings(t, d); all != "" {
				t.Errorf("Check finds %q", all)
			}
		})
	}
	// What a snapshot has besides is not the disk's.
	for _, args := range [][]string{{"convert", "-f", "raw", "-O", "qcow2", raw, name}, {"snapshot", "-c", "before", name}} {
		if out, err := exec.Command("qemu-img", args...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	image, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	vdisktest.Same(t, open(t, image), image, disk)
	backed := filepath.Join(dir, "backed.qcow2")
	if out, err := exec.Command("qemu-img", "create", "-f", "qcow2", "-F", "qcow2", "-b", name, backed).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if image, err = os.ReadFile(backed); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(bytes.NewReader(image), int64(len(image))); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "image.qcow2") {
		t.Errorf("Open of an image with a backing file = %v, want its name", err)
	}
}

func TestCompressed(t *testing.T) {
	image := vdisktest.Qcow2(bytes.Repeat([]byte("disk"), 1024), 4096)
	be.PutUint64(image[3*4096:], entryCompressed|4*4096)
	d := open(t, image)
	none := func(int64, string) error { return nil }
	for what, err := range map[string]error{"Extents": d.Extents(func(vdisk.Extent) error { return nil }), "Check": d.Check(none)} {
		if !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s = %v, want %v", what, err, ErrUnsupported)
		}
	}
}

func FuzzOpen(f *testing.F) {
	disk := make([]byte, 9*512)
	copy(disk[512:], "something")
	f.Add(vdisktest.Qcow2(disk, 512))
	f.Add(vdisktest.Qcow2(append(disk, make([]byte, 100<<10)...), 4096))
	f.Fuzz(func(t *testing.T, image []byte) {
		d, err := Open(bytes.NewReader(image), int64(len(image)))
		if err != nil {
			if d != nil {
				t.Fatal("an image and an error")
			}
			return
		}
		if d.Size() > 1<<30 {
			return // is read, but takes long
		}
		if err := d.Check(func(int64, string) error { return nil }); err != nil && !errors.Is(err, ErrUnsupported) {
			t.Fatal(err)
		}
		vdisktest.Extents(t, d, image)
	})
}
