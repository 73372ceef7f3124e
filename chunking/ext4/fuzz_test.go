package ext4

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"testing"
)

// FuzzOpen opens whatever it is given: nothing panics or runs on, and what comes out
// lies in the image and in order.
func FuzzOpen(f *testing.F) {
	f.Add(minimal())
	f.Add(minimal()[:2048])
	if _, err := exec.LookPath("mke2fs"); err == nil {
		for _, args := range [][]string{
			{"-t", "ext2", "-b", "1024", "-N", "16"},
			{"-t", "ext4", "-b", "1024", "-N", "16", "-O", "^has_journal,^resize_inode"},
			{"-t", "ext4", "-b", "1024", "-N", "16", "-O", "^has_journal,^resize_inode,inline_data"},
			{"-t", "ext4", "-b", "1024", "-N", "16", "-O", "^has_journal,^resize_inode,meta_bg,^64bit"},
		} {
			image, err := os.ReadFile(mkfs(f, "", "128K", args...))
			if err != nil {
				f.Fatal(err)
			}
			f.Add(image)
		}
	}
	f.Fuzz(func(t *testing.T, image []byte) {
		if len(image) > 1<<20 {
			return
		}
		fs, err := Open(bytes.NewReader(image), int64(len(image)))
		if err != nil {
			if fs != nil {
				t.Fatal("Open gives a file system and an error")
			}
			return
		}
		if fs.Size() > int64(len(image)) {
			t.Fatalf("Size() = %d of %d", fs.Size(), len(image))
		}
		fuzzWalk(t, fs)
		fuzzSpace(t, fs)
		if err := fs.Check(context.Background(), func(int64, string) {}); err != nil {
			t.Fatalf("Check: %v", err) // there are no errors of reads
		}
	})
}

func fuzzWalk(t *testing.T, fs *FS) {
	stop := errors.New("enough")
	count := 0
	buf := make([]byte, 16<<10)
	err := fs.Walk(context.Background(), func(n *Node) error {
		if count++; count > 1000 {
			return stop
		}
		end := int64(0)
		for _, e := range n.Extents {
			if e.File < end || e.Disk < 0 || e.Size <= 0 || e.Disk > fs.Size()-e.Size {
				t.Fatalf("%q: extent %+v", n.Path, e)
			}
			end = e.File + e.Size
		}
		if n.Inline != nil && int64(len(n.Inline)) != n.Size {
			t.Fatalf("%q: %d bytes inline of %d", n.Path, len(n.Inline), n.Size)
		}
		if k, err := fs.Open(n).ReadAt(buf, 0); err == nil && k != len(buf) {
			t.Fatalf("%q: ReadAt gives %d of %d", n.Path, k, len(buf))
		}
		return nil
	})
	if err != nil && !errors.Is(err, stop) && !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrUnsupported) {
		t.Fatalf("Walk: %v", err)
	}
}

func fuzzSpace(t *testing.T, fs *FS) {
	areas, err := fs.Areas(context.Background())
	if err != nil && !errors.Is(err, ErrInvalid) {
		t.Fatalf("Areas: %v", err)
	}
	end := int64(0)
	for _, a := range areas {
		if a.Off < end || a.Size <= 0 || a.Off > fs.Size()-a.Size {
			t.Fatalf("area %+v behind %d", a, end)
		}
		end = a.Off + a.Size
	}
	fixed := fs.fixed()
	end = -1
	err = fs.Free(func(off, size int64) error {
		if off <= end || size <= 0 || off > fs.Size()-size || overlap(fixed, off, off+size) != 0 {
			t.Fatalf("free [%d, %d) behind %d", off, off+size, end)
		}
		end = off + size
		return nil
	})
	if err != nil {
		t.Fatalf("Free: %v", err)
	}
}
