package container

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"ferry/chunking/coded"
	"ferry/chunking/disk"
	"ferry/chunking/disk/disktest"
	"ferry/chunking/lz4"
	"ferry/chunking/xz"
)

// text returns n bytes that compress.
func text(seed uint64, n int) []byte {
	rng := rand.New(rand.NewPCG(seed, 2))
	var b []byte
	for len(b) < n {
		b = fmt.Appendf(b, "line %d of %x: %s\n", rng.IntN(100), rng.IntN(5000), strings.Repeat("ab", rng.IntN(9)))
	}
	return b[:n]
}

func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// memory is a Content in memory.
type memory struct{ *bytes.Reader }

func (memory) Close() error { return nil }

func inMemory(r io.Reader, _ int64) (Content, error) {
	b, err := io.ReadAll(r)
	return memory{bytes.NewReader(b)}, err
}

var options = Options{Spool: inMemory}

// content is a file taken apart, with the bytes of its streams.
type content struct {
	*Layout
	data [][]byte
}

// split takes a file apart and proves that it can be put together again.
func split(t testing.TB, file []byte) content {
	t.Helper()
	l, err := Split(context.Background(), bytes.NewReader(file), int64(len(file)), options)
	if err != nil {
		t.Fatal(err)
	}
	if l == nil {
		return content{}
	}
	c := content{l, make([][]byte, len(l.Streams))}
	given := 0
	err = l.Read(bytes.NewReader(file), func(i int, r io.Reader) error {
		given++
		c.data[i], err = io.ReadAll(r)
		return err
	})
	if err != nil || given != len(l.Streams) {
		t.Fatalf("read %d of %d streams: %v", given, len(l.Streams), err)
	}
	for i, s := range l.Streams {
		if int64(len(c.data[i])) != s.Size {
			t.Fatalf("stream %d (%s) has %d bytes, want %d", i, s.Name, len(c.data[i]), s.Size)
		}
	}
	if again := c.join(t, l.Parts); !bytes.Equal(again, file) {
		t.Fatalf("put together are %d bytes that differ from the file's %d", len(again), len(file))
	}
	return c
}

func (c content) join(t testing.TB, parts []Part) (b []byte) {
	for _, p := range parts {
		if !p.Deflated() {
			b = append(b, c.data[p.Stream][p.Off:p.Off+p.Size]...)
			continue
		}
		var w bytes.Buffer
		if err := coded.Encode(&w, bytes.NewReader(c.join(t, p.Inner)), p.Reconstruction); err != nil {
			t.Fatal(err)
		}
		if int64(w.Len()) != p.Size {
			t.Fatalf("a part is %d bytes, want %d", w.Len(), p.Size)
		}
		b = append(b, w.Bytes()...)
	}
	return b
}

// member returns the largest stream of that name; nil if there is none.
func (c content) member(name string) (data []byte) {
	for i, d := range c.data {
		if c.Streams[i].Name == name && len(d) > len(data) {
			data = d
		}
	}
	return data
}

type file struct {
	name string
	data []byte
}

func makeZip(t testing.TB, method uint16, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, f := range files {
		fw, err := w.CreateHeader(&zip.FileHeader{Name: f.name, Method: method})
		if err != nil {
			t.Fatal(err)
		}
		fw.Write(f.data)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func makeTar(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Size: int64(len(f.data)), Mode: 0o644, Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		w.Write(f.data)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func makeGzip(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Name = "some name"
	w.Write(data)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func makeAr(files ...file) []byte {
	b := []byte(arMagic)
	for _, f := range files {
		b = fmt.Appendf(b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", f.name, 0, 0, 0, "100644", len(f.data))
		b = append(b, f.data...)
		if len(f.data)%2 > 0 {
			b = append(b, '\n')
		}
	}
	return b
}

func makeCpio(files ...file) []byte {
	var b []byte
	for i, f := range append(files, file{name: cpioTrailer}) {
		b = fmt.Appendf(b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", i, 0o100644, 0, 0, 1, 0, len(f.data), 0, 0, 0, 0, len(f.name)+1, 0)
		b = append(b, f.name...)
		b = append(b, "\x00\x00\x00\x00"[:4-(110+len(f.name))%4]...)
		b = append(b, f.data...)
		for len(b)%4 > 0 {
			b = append(b, 0)
		}
	}
	for len(b)%512 > 0 {
		b = append(b, 0)
	}
	return b
}

func TestSplit(t *testing.T) {
	a, b, n := text(1, 50_000), text(2, 70_001), noise(3, 30_000)
	long := strings.Repeat("d/", 120) + "long"
	for _, test := range []struct {
		name string
		file []byte
		want map[string][]byte
	}{
		{"zip", makeZip(t, zip.Deflate, file{"a", a}, file{"dir/b", b}, file{"noise", n}), map[string][]byte{"a": a, "dir/b": b, "noise": n}},
		{"zip, stored", makeZip(t, zip.Store, file{"a", a}, file{"b", b}), map[string][]byte{"a": a, "b": b}},
		{"zip in a zip", makeZip(t, zip.Deflate, file{"in.zip", makeZip(t, zip.Deflate, file{"a", a})}, file{"b", b}), map[string][]byte{"in.zip!a": a, "b": b}},
		{"stored zip in a zip", makeZip(t, zip.Store, file{"in.zip", makeZip(t, zip.Deflate, file{"a", a})}), map[string][]byte{"in.zip!a": a}},
		{"tar", makeTar(t, file{"./a", a}, file{long, b}), map[string][]byte{"a": a, long: b}},
		{"tar.gz", makeGzip(t, makeTar(t, file{"a", a}, file{"b", b})), map[string][]byte{"a": a, "b": b}},
		{"gzip", makeGzip(t, a), map[string][]byte{"content": a}},
		{"gzip of two members", append(makeGzip(t, a), makeGzip(t, b)...), nil},
		{"ar", makeAr(file{"debian-binary", []byte("2.0\n")}, file{"control.tar.gz", makeGzip(t, makeTar(t, file{"./control", b}))}, file{"data.tar.xz", n}),
			map[string][]byte{"control.tar.gz!control": b, "data.tar.xz": n}},
		{"cpio", makeCpio(file{"./a", a}, file{"dir/b", b}), map[string][]byte{"a": a, "dir/b": b}},
		{"initial file system", append(makeCpio(file{"kernel/microcode", n}), makeGzip(t, makeCpio(file{"init", a}))...), map[string][]byte{"kernel/microcode": n, "next!init": a}},
		{"image", makeTar(t, file{"blobs/sha256/1", makeGzip(t, makeTar(t, file{"etc/a", a}))}, file{"index.json", b}), map[string][]byte{"blobs/sha256/1!etc/a": a, "index.json": b}},
		{"bytes before and behind", append(makeZip(t, zip.Deflate, file{"a", a}), noise(4, 1000)...), map[string][]byte{"a": a}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := split(t, test.file)
			if got.Layout == nil {
				t.Fatal("not taken apart")
			}
			for name, want := range test.want {
				if !bytes.Equal(got.member(name), want) {
					t.Errorf("member %q has %d bytes, want %d; there are %v", name, len(got.member(name)), len(want), got.Streams)
				}
			}
		})
	}
}

// TestKept leaves as they are what is no container, or a bad one.
func TestKept(t *testing.T) {
	a := text(1, 50_000)
	good := makeZip(t, zip.Deflate, file{"a", a}, file{"b", text(2, 40_000)})
	encrypted := bytes.Clone(good)
	for _, magic := range []string{"PK\x03\x04", "PK\x01\x02"} {
		for at := 0; ; {
			i := bytes.Index(encrypted[at:], []byte(magic))
			if i < 0 {
				break
			}
			at += i + 4
			encrypted[at+map[string]int{"PK\x03\x04": 2, "PK\x01\x02": 4}[magic]] |= 1
		}
	}
	for name, file := range map[string][]byte{
		"nothing":        nil,
		"text":           a,
		"cut off zip":    good[:len(good)-30],
		"cut off gzip":   makeGzip(t, a)[:5000],
		"tiny members":   makeZip(t, zip.Deflate, file{"a", a[:100]}, file{"b", a[:200]}),
		"zip magic only": append([]byte("PK\x03\x04"), noise(1, 5000)...),
		"gzip of noise":  append([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0}, noise(1, 5000)...),
		"ar of nothing":  []byte(arMagic + strings.Repeat("x", 600)),
		"encrypted zip":  encrypted,
	} {
		got := split(t, file)
		if name == "encrypted zip" {
			for _, s := range got.Streams {
				if s.Size == int64(len(a)) {
					t.Errorf("%s: member %q was decoded", name, s.Name)
				}
			}
			continue
		}
		if got.Layout != nil {
			t.Errorf("%s: taken apart as %v", name, got.Streams)
		}
	}
}

// TestDamaged takes what is damaged apart as far as it is not, and gives the same
// bytes back.
func TestDamaged(t *testing.T) {
	whole := makeGzip(t, makeTar(t, file{"a", text(1, 50_000)}, file{"in.zip", makeZip(t, zip.Deflate, file{"b", text(2, 50_000)})}))
	for _, inner := range [][]byte{
		whole, makeZip(t, zip.Deflate, file{"x", whole}), makeTar(t, file{"x", whole}, file{"y", text(3, 5000)}),
	} {
		rng := rand.New(rand.NewPCG(5, 6))
		for range 60 {
			bad := bytes.Clone(inner)
			for range 1 + rng.IntN(3) {
				bad[rng.IntN(len(bad))] ^= 1 << rng.IntN(8)
			}
			split(t, bad[:len(bad)-rng.IntN(2)*rng.IntN(len(bad))])
		}
	}
}

// TestBomb stops decoding where a file grows beyond all measure.
func TestBomb(t *testing.T) {
	zeros := makeGzip(t, make([]byte, 100<<20))
	bomb := makeGzip(t, makeTar(t, file{"1", zeros}, file{"2", zeros}, file{"3", zeros}))
	total := int64(0)
	l, err := Split(context.Background(), bytes.NewReader(bomb), int64(len(bomb)), options)
	if err != nil {
		t.Fatal(err)
	}
	if l != nil {
		for _, s := range l.Streams {
			total += s.Size
		}
	}
	if most := int64(len(bomb))*maxExpansion + freeExpansion; total > most {
		t.Errorf("%d bytes became %d, want at most %d", len(bomb), total, most)
	}
}

// TestSame takes a file apart the same way however many helpers there are, also
// where a member takes all that may be decoded.
func TestSame(t *testing.T) {
	var files []file
	for i, n := range []int{60 << 20, 1 << 20, 20 << 20, 1 << 20, 1 << 20} {
		files = append(files, file{fmt.Sprint(i), make([]byte, n)})
	}
	bomb := makeZip(t, zip.Deflate, files...)
	var first *Layout
	for busy := range cap(helpers) + 1 {
		for range busy {
			helpers <- struct{}{}
		}
		l, err := Split(context.Background(), bytes.NewReader(bomb), int64(len(bomb)), options)
		for range busy {
			<-helpers
		}
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = l
		}
		l.spool, first.spool = nil, nil // functions are not comparable
		if !reflect.DeepEqual(l, first) {
			t.Errorf("with %d helpers taken it is %v, else %v", busy, l, first)
		}
	}
}

func TestErrors(t *testing.T) {
	file := makeGzip(t, makeTar(t, file{"a", text(1, 100_000)}))
	broken := errors.New("disk full")
	_, err := Split(context.Background(), bytes.NewReader(file), int64(len(file)), Options{Spool: func(io.Reader, int64) (Content, error) { return nil, broken }})
	if !errors.Is(err, broken) {
		t.Errorf("a spool that fails gives %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Split(ctx, bytes.NewReader(file), int64(len(file)), options); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled context gives %v", err)
	}
	l, err := Split(context.Background(), bytes.NewReader(file), int64(len(file)), options)
	if err != nil {
		t.Fatal(err)
	}
	err = l.Read(bytes.NewReader(file[:len(file)/2]), func(_ int, r io.Reader) error { _, err := io.Copy(io.Discard, r); return err })
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("half of the file gives %v", err)
	}
}

// TestXZ takes apart xz streams that stand one behind the other, with zeros between.
func TestXZ(t *testing.T) {
	var file []byte
	var want [][]byte
	for _, name := range []string{"xz-6", "blocks"} {
		stream, err := os.ReadFile(filepath.Join("..", "xz", "testdata", "v3", name+".xz"))
		if err != nil {
			t.Fatal(err)
		}
		plain, err := io.ReadAll(xz.NewReader(bytes.NewReader(stream)))
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, plain)
		file = append(append(file, stream...), make([]byte, 8)...)
	}
	got := split(t, file)
	if got.Layout == nil || len(got.data) != 3 || !bytes.Equal(got.data[0], want[0]) || !bytes.Equal(got.data[2], want[1]) {
		t.Errorf("there are %d streams, want those of both and what is between", len(got.data))
	}
	file[200] ^= 1
	if got := split(t, file); got.Layout != nil {
		t.Errorf("a damaged stream is taken apart: %v", got.Streams)
	}
}

// TestFree finds whole Debian packages in what is left of deleted files, and no others.
func TestFree(t *testing.T) {
	deb := makeAr(file{"debian-binary", []byte("2.0\n")}, file{"control.tar.gz", makeGzip(t, makeTar(t, file{"./control", text(1, 6000)}))},
		file{"data.tar.gz", makeGzip(t, makeTar(t, file{"./usr/bin/a", text(2, 5000)}))})
	image := disktest.Target(t)
	// A run of free blocks with a package in it, whole, and one more that is cut off.
	streams, err := disk.Split(t.Context(), bytes.NewReader(image), int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	var room disk.Range
	for _, s := range streams {
		for _, g := range s.Ranges {
			if disk.IsFree(s.Name) && g.Size > room.Size {
				room = g
			}
		}
	}
	if room.Size < int64(len(deb))+5000 {
		t.Fatalf("the longest free run has %d bytes", room.Size)
	}
	run := image[room.Off : room.Off+room.Size]
	for i := range run {
		run[i] = 'x' // zeros are not claimed
	}
	copy(run[1000:], arMagic) // not at the start of a block
	copy(run[1024:], deb)
	copy(run[room.Size-1024:], deb)
	l, err := Split(t.Context(), bytes.NewReader(image), int64(len(image)), options)
	if err != nil || l == nil {
		t.Fatal(l, err)
	}
	found := map[string]string{}
	err = l.ReadAt(bytes.NewReader(image), func(i int, r io.Reader) error {
		name := l.Streams[i].Name
		if _, within, ok := strings.Cut(name, fmt.Sprintf(", package at %#x", room.Off+1024)); ok && disk.IsFree(name) {
			data, err := io.ReadAll(r)
			found[within] = string(data)
			return err
		} else if strings.Contains(name, ", package") {
			t.Errorf("there is %s", name)
		}
		return nil
	})
	want := map[string]string{"!control.tar.gz!control": string(text(1, 6000)), "!data.tar.gz!usr/bin/a": string(text(2, 5000))}
	if err != nil || !maps.Equal(found, want) {
		t.Errorf("found %d members, want %d: %v", len(found), len(want), err)
	}
}

// counting counts the bytes that are read.
type counting struct {
	io.ReaderAt
	n int
}

func (c *counting) ReadAt(p []byte, off int64) (int, error) {
	c.n += len(p)
	return c.ReaderAt.ReadAt(p, off)
}

// TestFreeHostile reads free blocks about once, though each begins like an archive whose
// members are all the blocks that follow.
func TestFreeHostile(t *testing.T) {
	var blocks []byte
	for range 4 << 10 {
		b := fmt.Appendf([]byte(arMagic), "%-48s%-10d`\n", "x", 1024-arHeaderSize)
		blocks = append(blocks, append(b, make([]byte, 1024-len(b))...)...)
	}
	r := &counting{ReaderAt: bytes.NewReader(blocks)}
	debs, err := debsIn(t.Context(), r, disk.Range{Size: int64(len(blocks))}, "free")
	if err != nil || len(debs) > 0 || r.n > 2*len(blocks) {
		t.Errorf("%d packages, %v; read %d bytes of %d", len(debs), err, r.n, len(blocks))
	}
}

// TestTools takes apart what the archivers of this system make.
func TestTools(t *testing.T) {
	dir := t.TempDir()
	var sources []byte // what people write: random text makes xz choose at random
	for _, pattern := range []string{"*.go", "../*/*.go"} {
		names, _ := filepath.Glob(pattern)
		for _, name := range names {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			sources = append(sources, data...)
		}
	}
	want := map[string][]byte{"one.txt": sources, "two.txt": sources[:90_000], "three.bin": noise(3, 50_000)}
	for name, data := range want {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, tool := range []string{
		"zip -q out.zip one.txt two.txt three.bin",
		"7z a -tzip -mx0 out.zip one.txt two.txt three.bin",
		"jar cfM out.zip one.txt two.txt three.bin",
		"python3 -m zipfile -c out.zip one.txt two.txt three.bin",
		"tar -cf out.tar one.txt two.txt three.bin",
		"tar --format=pax -cf out.tar one.txt two.txt three.bin",
		"tar --format=v7 -cf out.tar one.txt two.txt three.bin",
		"tar -czf out.tgz one.txt two.txt three.bin",
		"tar -cJf out.txz one.txt two.txt three.bin",
		"ar rc out.a one.txt two.txt three.bin",
		"cpio -o -H newc -O out.cpio",
		"cpio -o -H crc -O out.cpio",
	} {
		t.Run(tool, func(t *testing.T) {
			args := strings.Fields(tool)
			if _, err := exec.LookPath(args[0]); err != nil {
				t.Skipf("no %s on this system", args[0])
			}
			cmd := exec.Command(args[0], args[1:]...)
			cmd.Dir = dir
			cmd.Stdin = strings.NewReader("one.txt\ntwo.txt\nthree.bin\n") // for cpio
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			made, _ := filepath.Glob(filepath.Join(dir, "out.*"))
			data, err := os.ReadFile(made[0])
			if err != nil {
				t.Fatal(err)
			}
			os.Remove(made[0])
			got := split(t, data)
			for name, data := range want {
				if !bytes.Equal(got.member(name), data) {
					t.Errorf("member %s has %d bytes, want %d", name, len(got.member(name)), len(data))
				}
			}
		})
	}
}

func FuzzSplit(f *testing.F) {
	a := text(1, 2000)
	for _, seed := range [][]byte{
		makeZip(f, zip.Deflate, file{"a", a}, file{"b", makeGzip(f, a)}),
		makeZip(f, zip.Store, file{"a", a}),
		makeGzip(f, makeTar(f, file{"a", a})),
		makeTar(f, file{"a", a}, file{strings.Repeat("long/", 40) + "a", a}),
		makeAr(file{"a", a}, file{"b.gz", makeGzip(f, a)}),
		append(makeCpio(file{"a", a}), makeGzip(f, a)...),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, file []byte) { split(t, file) })
}

// lz4Frame is what lz4 -l -9 makes.
func lz4Frame(t testing.TB, plain []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := lz4.Encode(&b, bytes.NewReader(plain), []byte{lz4.Version, 9}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestLZ4 takes an initial file system apart.
func TestLZ4(t *testing.T) {
	files := []byte("070701" + strings.Repeat("0", 8) + "000081A4" + strings.Repeat("0", 32) + fmt.Sprintf("%08X", 2000) + strings.Repeat("0", 32) + "00000004" + strings.Repeat("0", 8) + "abc\x00\x00\x00")
	files = append(files, text(31, 2000)...)
	frame := lz4Frame(t, files)
	c := split(t, append(frame, "what is behind it"...))
	if got := c.member("abc"); !bytes.Equal(got, text(31, 2000)) {
		t.Errorf("a file of an initial file system is %d bytes, want 2000", len(got))
	}
	frame[len(frame)/2] ^= 1
	if c := split(t, frame); c.Layout != nil {
		t.Error("a damaged frame, or of another encoder, is taken apart")
	}
}

// TestNoDeflate leaves what a reader would take for another coder's.
func TestNoDeflate(t *testing.T) {
	var b bytes.Buffer
	zw := zip.NewWriter(&b)
	for _, data := range [][]byte{lz4Frame(t, text(32, 5000)), []byte(xz.Magic + string(noise(9, 2000)))} {
		w, err := zw.CreateRaw(&zip.FileHeader{Name: "a", Method: zip.Deflate, CompressedSize64: uint64(len(data)), UncompressedSize64: 5000})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	for _, p := range split(t, b.Bytes()).Parts {
		if p.Deflated() {
			t.Error("taken apart")
		}
	}
}
