package delta

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ferry/chunking/disk/disktest"
	"ferry/delta/codec"
	"ferry/manifest"
	"ferry/manifest/place"
)

// TestImages patches the files of disk images.
func TestImages(t *testing.T) {
	base, target := string(disktest.Base(t)), string(disktest.Target(t))
	for name, test := range map[string]struct{ base, target files }{
		"as it is":   {files{"bin/a.vhdx": base, "x": "y"}, files{"bin/a.vhdx": target, "x": "y"}},
		"renamed":    {files{"one.vhdx": base}, files{"two.vhdx": target}},
		"in a zip":   {files{"p.zip": zipped(files{"a.vhdx": base}, zip.Deflate)}, files{"p.zip": zipped(files{"a.vhdx": target}, zip.Deflate)}},
		"from a zip": {files{"p.zip": zipped(files{"a.vhdx": base}, zip.Deflate)}, files{"a.vhdx": target}},
	} {
		t.Run(name, func(t *testing.T) {
			info := applied(t, test.base, test.target)
			if info.PayloadSize > 120<<10 {
				t.Errorf("payload is %d bytes: %+v", info.PayloadSize, info.Dearest(3))
			}
			i := slices.IndexFunc(info.Files, func(f InfoFile) bool { return len(f.Members) > 0 })
			if i < 0 || !slices.ContainsFunc(info.Files[i].Members, func(m InfoMember) bool { return strings.HasSuffix(m.Name, "2/usr/bin/scattered") }) {
				t.Errorf("no member is 2/usr/bin/scattered: %+v", info.Files)
			}
		})
	}
}

// TestScattered needs a stream in pieces that is larger than what is kept in memory:
// it is made once, in a file.
func TestScattered(t *testing.T) {
	c := &streamCache{}
	defer c.Close()
	want := []byte(bytesOf(1, keptStream+1000))
	small := []byte(bytesOf(2, 1000))
	made := 0
	read := func(ref int, data []byte, off, size int64) {
		t.Helper()
		var b bytes.Buffer
		must(t, c.write(&b, op{ref: ref, off: off, size: size}, int64(len(data)), func(w io.Writer) error {
			made++
			_, err := w.Write(data)
			return err
		}))
		if !bytes.Equal(b.Bytes(), data[off:off+size]) {
			t.Errorf("stream %d at %d gives other bytes", ref, off)
		}
	}
	for range 3 {
		read(1, want, 5000, 70_000)
		read(2, small, 10, 100)
		read(1, want, keptStream-10, 1010)
		read(3, want, 0, keptStream)
	}
	if made != 3 {
		t.Errorf("3 streams were made %d times", made)
	}
}

// TestLocationOrder gives streams whose slices are in any order, which need version 3.
func TestLocationOrder(t *testing.T) {
	for _, want := range [][]manifest.Slice{
		{{Off: 100, Size: 10}, {Off: 300, Size: 20}},
		{{Off: 300, Size: 20}, {Off: 100, Size: 10}, {Off: 110, Size: 5}},
	} {
		at := &manifest.Location{Slices: want}
		p := &plan{bases: []planBase{{label: "b"}}, sources: []source{{size: at.Size(), places: []sourcePlace{{"f", at}}}}}
		back, err := decodePlan(p.encode(nil, codec.Fast), nil)
		must(t, err)
		if got := back.sources[0].places[0].at.Slices; !slices.Equal(got, want) {
			t.Errorf("slices are %v, want %v", got, want)
		}
	}
}

// TestImageOfSite tells an image that a site has changed from a damaged delta, and
// leaves everything as it was.
func TestImageOfSite(t *testing.T) {
	base, target := files{"a.vhdx": string(disktest.Base(t))}, files{"a.vhdx": string(disktest.Target(t))}
	path, _ := create(t, target, base)
	changed := []byte(base["a.vhdx"])
	changed[strings.Index(base["a.vhdx"], "3000009\n")] ^= 1 // in usr/bin/moved, which stays
	to := filepath.Join(t.TempDir(), "new")
	_, err := Apply(context.Background(), open(t, path), treeBase(t, files{"a.vhdx": string(changed)}.write(t)), to, place.Options{})
	var mismatch *BaseMismatchError
	if !errors.As(err, &mismatch) || mismatch.Path != "a.vhdx" {
		t.Errorf("Apply = %v, want a mismatch of a.vhdx", err)
	}
	if _, err := os.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the target is there: %v", err)
	}
}
