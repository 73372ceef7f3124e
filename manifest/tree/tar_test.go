package tree

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// tarEntry is a header with its content.
type tarEntry struct {
	tar.Header
	data []byte
}

func tarFile(name, content string) tarEntry {
	return tarEntry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content)), ModTime: time.Unix(1_700_000_000, 0)}, []byte(content)}
}

func tarHeader(kind byte, name, link string) tarEntry {
	return tarEntry{tar.Header{Typeflag: kind, Name: name, Linkname: link, Mode: 0o755}, nil}
}

// tarOf writes a tar.
func tarOf(t testing.TB, entries ...tarEntry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// packed compresses data.
func packed(t testing.TB, data []byte, open func(io.Writer) (io.WriteCloser, error)) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := open(&b)
	if err == nil {
		_, err = w.Write(data)
		err = errors.Join(err, w.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipOf(t testing.TB, data []byte) []byte {
	return packed(t, data, func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil })
}

func zstdOf(t testing.TB, data []byte) []byte {
	return packed(t, data, func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) })
}

func xzOf(t testing.TB, data []byte) []byte {
	return packed(t, data, func(w io.Writer) (io.WriteCloser, error) { return xz.WriterConfig{DictCap: 64 << 10}.NewWriter(w) })
}

// everyTar returns a tar as it is, and compressed in all ways.
func everyTar(t testing.TB, data []byte) map[string][]byte {
	return map[string][]byte{"tar": data, "tar.gz": gzipOf(t, data), "tar.zst": zstdOf(t, data), "tar.xz": xzOf(t, data)}
}

func TestTar(t *testing.T) {
	long := strings.Repeat("long/", 40) + "name"
	program := tarFile("./bin/run", "#!")
	program.Mode = 0o755
	global := tarEntry{tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "/tmp/GlobalHead.1.1", PAXRecords: map[string]string{"comment": "x"}, Format: tar.FormatPAX}, nil}
	data := tarOf(t, global, tarHeader(tar.TypeDir, "./", ""), tarHeader(tar.TypeDir, "bin/", ""), program, tarFile(long, "deep"),
		tarFile("gr\u00fc\u00df", "unicode"), tarFile("empty", ""), tarFile("large", string(seeded(1, 5<<20))), tarHeader(tar.TypeSymlink, "link", "../any/where"),
		tarHeader(tar.TypeLink, "hard", "./bin/run"), tarHeader(tar.TypeLink, "hard again", "hard"),
		tarHeader(tar.TypeFifo, "pipe", ""), tarHeader(tar.TypeChar, "tty", ""), tarHeader(tar.TypeBlock, "disk", ""), tarEntry{tar.Header{Typeflag: tar.TypeCont, Name: "contiguous", Size: 4, ModTime: time.Unix(1, 0)}, []byte("cont")})
	want := []Node{
		{Path: "bin", Kind: Dir},
		{Path: "bin/run", Kind: File, Exec: true, Size: 2, ModTime: 1_700_000_000},
		{Path: long, Kind: File, Size: 4, ModTime: 1_700_000_000},
		{Path: "gr\u00fc\u00df", Kind: File, Size: 7, ModTime: 1_700_000_000},
		{Path: "empty", Kind: File, ModTime: 1_700_000_000},
		{Path: "large", Kind: File, Size: 5 << 20, ModTime: 1_700_000_000},
		{Path: "link", Kind: Link, Link: "../any/where"},
		{Path: "hard", Kind: HardLink, Link: "bin/run"},
		{Path: "hard again", Kind: HardLink, Link: "hard"},
		{Path: "pipe", Kind: Special}, {Path: "tty", Kind: Special}, {Path: "disk", Kind: Special},
		{Path: "contiguous", Kind: File, Size: 4, ModTime: 1},
	}
	for format, data := range everyTar(t, data) {
		t.Run(format, func(t *testing.T) {
			tr := mustOpen(t, data, format)
			if tr.Sequential() != (format != "tar") {
				t.Errorf("Sequential() = %t", tr.Sequential())
			}
			all, err := walk(t, tr)
			if err != nil {
				t.Fatalf("walk = %v", err)
			}
			var got []Node
			for _, f := range all {
				got = append(got, f.Node)
				if f.Kind == File {
					checkOpen(t, tr, f.Path, f.data)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("walk = %+v\nwant %+v", got, want)
			}
			checkOpen(t, tr, "hard again", []byte("#!"))
			if again, err := walk(t, tr); err != nil || len(again) != len(all) {
				t.Errorf("second walk = %d nodes, %v, want %d", len(again), err, len(all))
			}
			for _, path := range []string{"nowhere", "bin", "link", "pipe"} {
				if _, err := tr.Open(t.Context(), path); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("Open(%s) = %v, want %v", path, err, fs.ErrNotExist)
				}
			}
		})
	}
}

func TestTarRefusesPaths(t *testing.T) {
	for _, name := range []string{"../a", "a/../../b", "/etc/passwd", "./../a", "C:/x", `a\b`, `..\a`, "a//b", "a/./b", "..", "gr\xfc\xdf", strings.Repeat("x", 256)} {
		for _, kind := range []byte{tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink} {
			e := tarHeader(kind, name, "target")
			e.Format = tar.FormatGNU // does not mind what a name holds
			tr := mustOpen(t, tarOf(t, tarFile("good", "x"), e), "tar")
			all, err := walk(t, tr)
			var unsafe *UnsafePathError
			if len(all) != 1 || !errors.As(err, &unsafe) {
				t.Errorf("walk with %q of type %c = %v, %v, want an UnsafePathError behind the good file", name, kind, all, err)
			}
		}
	}
}

// TestTarLinkTargets has links that lead out of the tree: they are given as they
// are, for nothing follows them.
func TestTarLinkTargets(t *testing.T) {
	data := tarOf(t, tarHeader(tar.TypeSymlink, "up", "../../etc/passwd"), tarHeader(tar.TypeSymlink, "abs", "/etc/passwd"))
	all, err := walk(t, mustOpen(t, data, "tar"))
	if err != nil || len(all) != 2 || all[0].Link != "../../etc/passwd" || all[1].Link != "/etc/passwd" {
		t.Errorf("walk = %+v, %v, want both links", all, err)
	}
}

func TestTarHardLinkToNothing(t *testing.T) {
	data := tarOf(t, tarHeader(tar.TypeLink, "early", "file"), tarHeader(tar.TypeLink, "lost", "nowhere"), tarHeader(tar.TypeLink, "out", "../x"), tarFile("file", "content"))
	for format, data := range everyTar(t, data) {
		tr := mustOpen(t, data, format)
		all, err := walk(t, tr)
		if err != nil || len(all) != 4 {
			t.Errorf("%s: walk = %v, %v, want four nodes", format, all, err)
		}
		for _, path := range []string{"early", "lost", "out"} {
			if r, err := tr.Open(t.Context(), path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: Open(%s) = %v, %v, want %v", format, path, r, err, fs.ErrNotExist)
			}
		}
	}
}

// TestTarCutOff cuts a tar at every block. What was read before is right; unless
// the cut is between two members, there is an error too.
func TestTarCutOff(t *testing.T) {
	first, second := seeded(1, 3000), seeded(2, 1024)
	whole := tarOf(t, tarFile("first", string(first)), tarHeader(tar.TypeDir, "dir/", ""), tarFile("second", string(second)))
	between := map[int]bool{512 + 3072: true, 512 + 3072 + 512: true, 512 + 3072 + 512 + 512 + 1024: true, len(whole) - 512: true}
	for n := 512; n < len(whole); n += 512 {
		tr := mustOpen(t, whole[:n], "tar")
		all, err := walk(t, tr)
		if (err == nil) != between[n] {
			t.Errorf("walk of %d of %d bytes = %d nodes, %v", n, len(whole), len(all), err)
		}
		if err != nil && !errors.Is(err, ErrFormat) {
			t.Errorf("walk of %d of %d bytes = %v, want %v", n, len(whole), err, ErrFormat)
		}
		for i, f := range all {
			if i < len(all)-1 && f.Path == "first" && !bytes.Equal(f.data, first) {
				t.Errorf("walk of %d of %d bytes gives other bytes of a file, and goes on", n, len(whole))
			}
		}
	}
}

// TestPackedTarDamaged cuts and damages compressed tars everywhere.
func TestPackedTarDamaged(t *testing.T) {
	plain := tarOf(t, tarFile("a", string(seeded(1, 3000))), tarFile("b", strings.Repeat("text ", 1000)), tarFile("c", string(seeded(2, 500))))
	for format, whole := range everyTar(t, plain) {
		if format == "tar" {
			continue
		}
		t.Run(format, func(t *testing.T) {
			end := len(whole)
			if format == "tar.xz" {
				end -= 24 // the index and the footer: the xz library does without
			}
			for n := end / 2; n < end; n += 1 + (end-n)/8 {
				if !tellsDamage(t, whole[:n]) {
					t.Fatalf("the first %d of %d bytes are taken for whole", n, len(whole))
				}
			}
			for off := len(whole) / 3; off < len(whole); off += 293 {
				damaged := slices.Clone(whole)
				damaged[off] ^= 0x10
				if !tellsDamage(t, damaged) {
					t.Fatalf("damage at %d of %d bytes is not told", off, len(whole))
				}
			}
		})
	}
}

// tellsDamage reports whether a walk and a look at the last file tell that a
// compressed tar is damaged.
func tellsDamage(t *testing.T, data []byte) bool {
	t.Helper()
	tr, err := openBytes(t, data)
	if err != nil {
		t.Fatal(err)
	}
	if tr.Format() == "file" {
		return true
	}
	all, walkErr := walk(t, tr)
	r, openErr := tr.Open(t.Context(), "c")
	if !errors.Is(walkErr, ErrFormat) || !errors.Is(openErr, ErrFormat) {
		t.Errorf("walk = %d nodes, %v; Open = %v, %v; want %v", len(all), walkErr, r, openErr, ErrFormat)
		return false
	}
	return true
}

// TestGzipWithWrongChecksum has a gzip whose bytes can be unpacked, and are not
// what its trailer says.
func TestGzipWithWrongChecksum(t *testing.T) {
	data := gzipOf(t, tarOf(t, tarFile("a", "content")))
	for _, back := range []int{8, 4} { // the CRC, the length
		lying := slices.Clone(data)
		lying[len(lying)-back] ^= 1
		if all, err := walk(t, mustOpen(t, lying, "tar.gz")); !errors.Is(err, ErrFormat) {
			t.Errorf("walk = %d nodes, %v, want %v", len(all), err, ErrFormat)
		}
	}
}

func TestWalkCancelled(t *testing.T) {
	tarred := tarOf(t, tarFile("a", "1"), tarFile("b", "2"), tarFile("c", "3"))
	sources := everyTar(t, tarred)
	sources["zip"] = buildZip(zipEntry{name: "a"}, zipEntry{name: "b"}, zipEntry{name: "c"})
	for format, data := range sources {
		tr := mustOpen(t, data, format)
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		err := tr.Walk(ctx, func(Node, func() (io.ReadCloser, error)) error {
			n++
			cancel()
			return nil
		})
		if n != 1 || !errors.Is(err, context.Canceled) {
			t.Errorf("%s: cancelled walk = %d nodes, %v, want 1, %v", format, n, err, context.Canceled)
		}
		stop := errors.New("stop")
		err = tr.Walk(t.Context(), func(Node, func() (io.ReadCloser, error)) error { return stop })
		if !errors.Is(err, stop) {
			t.Errorf("%s: walk that is stopped = %v, want %v", format, err, stop)
		}
	}
}
