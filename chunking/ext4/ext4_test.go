package ext4

import (
	"bytes"
	"context"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// images are file systems over all that differs. mke2fs gives ones of this size blocks
// of 1 KiB.
var images = []struct {
	name, size string
	args       []string
	many       bool // 5,000 files in one directory
}{
	{"ext2 4K", "96M", []string{"-t", "ext2", "-b", "4096"}, false},
	{"ext2 1K", "96M", []string{"-t", "ext2", "-b", "1024"}, true},
	{"ext2 revision 0", "96M", []string{"-t", "ext2", "-r", "0", "-O", "none"}, false},
	{"ext3", "96M", []string{"-t", "ext3", "-b", "4096"}, false},
	{"ext4", "96M", []string{"-t", "ext4"}, true},
	{"ext4 4K", "96M", []string{"-t", "ext4", "-b", "4096"}, true},
	{"ext4 64K", "256M", []string{"-t", "ext4", "-b", "65536", "-O", "^has_journal"}, false},
	{"inline data", "96M", []string{"-t", "ext4", "-b", "4096", "-O", "inline_data"}, false},
	{"inline data, large inodes", "96M", []string{"-t", "ext4", "-O", "inline_data", "-I", "1024"}, false},
	{"block maps 4K", "96M", []string{"-t", "ext4", "-b", "4096", "-O", "^extent,^64bit"}, true},
	{"block maps 1K", "96M", []string{"-t", "ext4", "-b", "1024", "-O", "^extent,^64bit"}, false},
	{"64bit", "96M", []string{"-t", "ext4", "-O", "64bit"}, false},
	{"32bit", "96M", []string{"-t", "ext4", "-O", "^64bit"}, false},
	{"meta_bg", "96M", []string{"-t", "ext4", "-b", "1024", "-g", "1024", "-O", "meta_bg,^resize_inode"}, false},
	{"meta_bg, 32bit", "96M", []string{"-t", "ext4", "-b", "1024", "-g", "1024", "-O", "meta_bg,^resize_inode,^64bit,^flex_bg"}, false},
	{"many groups", "96M", []string{"-t", "ext4", "-b", "1024", "-g", "1024"}, false},
	{"no flex_bg", "96M", []string{"-t", "ext4", "-b", "1024", "-O", "^flex_bg"}, false},
	{"no checksums", "96M", []string{"-t", "ext4", "-O", "^metadata_csum"}, false},
	{"crc16", "96M", []string{"-t", "ext4", "-O", "^metadata_csum,uninit_bg", "-b", "1024"}, false},
	{"crc16, 32bit", "96M", []string{"-t", "ext4", "-O", "^metadata_csum,uninit_bg,^64bit", "-b", "1024"}, false},
	{"seed", "96M", []string{"-t", "ext4", "-O", "metadata_csum_seed"}, false},
	{"no sparse_super", "96M", []string{"-t", "ext4", "-b", "1024", "-O", "^sparse_super,^resize_inode"}, false},
	{"sparse_super2", "96M", []string{"-t", "ext4", "-b", "1024", "-O", "sparse_super2,^resize_inode"}, false},
	{"small inodes", "96M", []string{"-t", "ext4", "-I", "128"}, false},
	{"no file types", "96M", []string{"-t", "ext4", "-O", "^filetype"}, false},
	{"special files", "96M", []string{"-t", "ext4", "-O", "quota,mmp,project"}, false},
	{"orphan file", "96M", []string{"-t", "ext4", "-O", "orphan_file"}, false},
	{"ea_inode, large_dir", "96M", []string{"-t", "ext4", "-O", "ea_inode,large_dir"}, true},
}

// TestImages reads what e2fsprogs wrote, and compares with the folder it came from
// and with what e2fsprogs say.
func TestImages(t *testing.T) {
	needTools(t)
	large, small := source(t, 5000), source(t, 100)
	for i, image := range images {
		if testing.Short() && i%5 > 0 { // the others test features, not word sizes or races
			continue
		}
		t.Run(image.name, func(t *testing.T) {
			dir, args := small, image.args
			if image.many {
				dir, args = large, append(slices.Clone(args), "-N", "8192")
			}
			path := mkfs(t, dir, image.size, args...)
			testImage(t, path, dir)
			t.Run("hashed", func(t *testing.T) {
				run(t, "e2fsck", "-fyD", path)
				testImage(t, path, dir)
			})
		})
	}
}

func testImage(t *testing.T, path, dir string) {
	fs := openFile(t, path)
	compareTree(t, fs, dir)
	compareFree(t, fs, path)
	testOwners(t, fs)
	for _, name := range []string{"fragments", "hole", "sizes/3145728", "many"} {
		compareBlocks(t, fs, path, name)
	}
	for _, f := range check(t, fs) {
		t.Errorf("Check: %v", f)
	}
}

type finding struct {
	off  int64
	text string
}

func check(t testing.TB, fs *FS) []finding {
	t.Helper()
	var findings []finding
	err := fs.Check(context.Background(), func(off int64, text string) {
		findings = append(findings, finding{off, text})
	})
	if err != nil {
		t.Fatal(err)
	}
	return findings
}

func compareTree(t *testing.T, fs *FS, dir string) {
	t.Helper()
	var want, got []string
	err := filepath.WalkDir(dir, func(path string, _ iofs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, path)
		if rel == "." {
			rel = ""
		}
		want = append(want, filepath.ToSlash(rel))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	inodes := map[string]uint32{}
	err = fs.Walk(context.Background(), func(n *Node) error {
		if n.Path == "lost+found" {
			return nil
		}
		got = append(got, n.Path)
		inodes[n.Path] = n.Inode
		compareNode(t, fs, n, filepath.Join(dir, n.Path))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("Walk gives %d paths, want %d", len(got), len(want))
	}
	if a, b := inodes["hard link"], inodes["sizes/4097"]; a != b {
		t.Errorf("inodes of a hard link: %d and %d", a, b)
	}
}

func compareNode(t *testing.T, fs *FS, n *Node, path string) {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Error(err)
		return
	}
	if n.IsDir() != info.IsDir() || n.IsRegular() != info.Mode().IsRegular() {
		t.Errorf("%q: mode %#o, want %v", n.Path, n.Mode, info.Mode())
	}
	if n.Path == "" {
		return // its owner and times are not copied
	}
	if got, want := n.Mode&0o777, uint16(info.Mode().Perm()); got != want && !n.IsLink() {
		t.Errorf("%q: permissions %#o, want %#o", n.Path, got, want)
	}
	if n.IsRegular() && n.ModTime.Unix() != info.ModTime().Unix() {
		t.Errorf("%q: time %v, want %v", n.Path, n.ModTime, info.ModTime())
	}
	if n.IsLink() {
		if want, err := os.Readlink(path); err != nil || n.Link != want {
			t.Errorf("%q: link to %q, want %q (%v)", n.Path, n.Link, want, err)
		}
	}
	if !n.IsRegular() {
		return
	}
	f, err := os.Open(path)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	if n.Size != info.Size() || !sameContents(io.NewSectionReader(fs.Open(n), 0, n.Size), f) {
		t.Errorf("%q: contents differ, %d bytes, want %d", n.Path, n.Size, info.Size())
	}
}

func sameContents(a, b io.Reader) bool {
	var p, q [64 << 10]byte
	for {
		n, err := io.ReadFull(a, p[:])
		m, _ := io.ReadFull(b, q[:])
		if !bytes.Equal(p[:n], q[:m]) {
			return false
		}
		if err != nil {
			return err == io.EOF || err == io.ErrUnexpectedEOF
		}
	}
}

// compareFree compares with the free blocks that dumpe2fs lists.
func compareFree(t *testing.T, fs *FS, path string) {
	t.Helper()
	var want, got []int64
	for line := range strings.SplitSeq(run(t, "dumpe2fs", path), "\n") {
		list, ok := strings.CutPrefix(line, "  Free blocks: ")
		if !ok || list == "" {
			continue
		}
		for piece := range strings.SplitSeq(list, ", ") {
			first, last, ok := strings.Cut(piece, "-")
			if !ok {
				last = first
			}
			a, err1 := strconv.ParseInt(first, 10, 64)
			b, err2 := strconv.ParseInt(last, 10, 64)
			if err1 != nil || err2 != nil {
				t.Fatalf("dumpe2fs: %q", line)
			}
			for ; a <= b; a++ {
				want = append(want, a)
			}
		}
	}
	last := int64(-1)
	err := fs.Free(func(off, size int64) error {
		if off <= last || size <= 0 || off%fs.BlockSize() != 0 || size%fs.BlockSize() != 0 {
			t.Errorf("Free gives [%d, %d) behind %d", off, off+size, last)
		}
		last = off + size
		for ; size > 0; size -= fs.BlockSize() {
			got = append(got, off/fs.BlockSize())
			off += fs.BlockSize()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("Free gives %d blocks, dumpe2fs %d", len(got), len(want))
	}
}

// testOwners proves that every block is in an area, of one file, or free.
func testOwners(t *testing.T, fs *FS) {
	t.Helper()
	owners := make([]string, fs.Size()/1024)
	own := func(off, size int64, owner string) {
		for i := off / 1024; i < (off+size)/1024; i++ {
			if owners[i] != "" {
				t.Fatalf("byte %d is of %s and %s", i*1024, owners[i], owner)
			}
			owners[i] = owner
		}
	}
	areas, err := fs.Areas(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range areas {
		own(a.Off, a.Size, a.Kind.String())
	}
	if err := fs.Free(func(off, size int64) error { own(off, size, "free"); return nil }); err != nil {
		t.Fatal(err)
	}
	seen := map[uint32]bool{}
	err = fs.Walk(context.Background(), func(n *Node) error {
		if !seen[n.Inode] {
			seen[n.Inode] = true
			for _, e := range slices.Concat(n.Extents, n.Meta) {
				own(e.Disk, e.Size, fmt.Sprintf("%q", n.Path))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if i := slices.Index(owners, ""); i >= 0 {
		t.Errorf("byte %d has no owner", i*1024)
	}
}

// compareBlocks compares with the blocks of a file, and of its tree, that debugfs lists.
func compareBlocks(t *testing.T, fs *FS, path, name string) {
	t.Helper()
	n, err := fs.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	var got, want []int64
	for _, e := range slices.Concat(n.Extents, n.Meta) {
		for off := int64(0); off < e.Size; off += fs.BlockSize() {
			got = append(got, (e.Disk+off)/fs.BlockSize())
		}
	}
	out := run(t, "debugfs", "-R", "blocks /"+name, path)
	for _, f := range strings.Fields(out) {
		block, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			t.Fatalf("debugfs: %q", out)
		}
		want = append(want, block)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s: %d blocks, debugfs has %d", name, len(got), len(want))
	}
}

// TestCheckDamage flips one byte of each structure and expects a finding there.
func TestCheckDamage(t *testing.T) {
	needTools(t)
	path := mkfs(t, source(t, 500), "64M", "-t", "ext4", "-b", "1024", "-O", "metadata_csum,64bit")
	run(t, "e2fsck", "-fyD", path)
	value := filepath.Join(t.TempDir(), "value")
	if err := os.WriteFile(value, noise(1, 600), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "debugfs", "-w", "-R", "ea_set -f "+value+" /sizes/100 user.large", path)
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	fs := openFile(t, path)
	if findings := check(t, fs); len(findings) != 0 {
		t.Fatalf("Check before: %v", findings)
	}
	lookup := func(name string) *Node {
		n, err := fs.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	in, err := fs.reader().inode(lookup("sizes/59").Inode)
	if err != nil {
		t.Fatal(err)
	}
	many := lookup("many").Extents
	leaf := many[len(many)-1]
	d, bs := fs.group(0), fs.BlockSize()
	for _, place := range []struct {
		name           string
		off, size, hit int64 // the structure, and what of it is flipped
	}{
		{"superblock", superOff, superSize, 0x80},
		{"descriptor", fs.descOff(1), 64, 0x0C},
		{"block bitmap", d.blockBitmap * bs, bs, 100},
		{"inode bitmap", d.inodeBitmap * bs, bs, 0},
		{"inode", in.off, 256, 0x10},
		{"index of a directory", many[0].Disk, bs, 41},
		{"block of a directory", leaf.Disk + leaf.Size - bs, bs, 9},
		{"extent tree", lookup("fragments").Meta[0].Disk, bs, 14},
		{"attributes", lookup("sizes/100").Meta[0].Disk, bs, bs - 1},
	} {
		damaged := bytes.Clone(image)
		damaged[place.off+place.hit] ^= 1
		fs, err := Open(bytes.NewReader(damaged), int64(len(damaged)))
		if err != nil {
			t.Errorf("%s: %v", place.name, err)
			continue
		}
		findings := check(t, fs)
		if !slices.ContainsFunc(findings, func(f finding) bool {
			return f.off >= place.off && f.off < place.off+place.size
		}) {
			t.Errorf("%s, byte %d: findings %v", place.name, place.off+place.hit, findings)
		}
	}
}
