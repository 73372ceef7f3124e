package export

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"ferry/cas"
	"ferry/chunking"
	"ferry/manifest"
	"ferry/manifest/tree"
)

// seeded returns n bytes that depend on seed alone.
func seeded(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// text returns n bytes that compress.
func text(n int) []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	words := strings.Fields("a manifest lists the entries of one version sorted by path and every file is read once from front to back")
	var b []byte
	for len(b) < n {
		line := len(b)
		for range 20 {
			b = append(append(b, words[rng.IntN(len(words))]...), ' ')
		}
		b = append(b, b[line:]...) // twice, for longer matches
		b = fmt.Appendf(b, "%d\n", line)
	}
	return b[:n]
}

// memFiles are files in memory, by their digest. It is a Files.
type memFiles struct {
	contents map[cas.Digest][]byte
	before   func(e manifest.Entry) error // called before a file is written; nil is allowed
	midway   func(e manifest.Entry) error // called when half of it is
}

func (f *memFiles) WriteFile(ctx context.Context, w io.Writer, e manifest.Entry) error {
	content, ok := f.contents[e.Digest]
	if !ok {
		return fmt.Errorf("%s: %w", e.Path, cas.ErrNotFound)
	}
	for _, hook := range []func(manifest.Entry) error{f.before, f.midway} {
		if hook != nil {
			if err := hook(e); err != nil {
				return err
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		half := content[:(len(content)+1)/2]
		content = content[len(half):]
		for len(half) > 0 { // as pieces, like an archive does
			n := min(len(half), 100_000)
			if _, err := w.Write(half[:n]); err != nil {
				return err
			}
			half = half[n:]
		}
	}
	_, err := w.Write(content)
	return err
}

// sample builds manifests and the files that go with them.
type sample struct {
	entries []manifest.Entry
	files   memFiles
}

func newSample() *sample { return &sample{files: memFiles{contents: map[cas.Digest][]byte{}}} }

func (s *sample) file(path string, content []byte) *sample {
	return s.fileAt(path, content, 1_700_000_001)
}

func (s *sample) fileAt(path string, content []byte, mtime int64) *sample {
	digest := cas.Sum(content)
	s.files.contents[digest] = content
	s.entries = append(s.entries, manifest.Entry{Path: path, Type: manifest.TypeFile, Size: int64(len(content)), Digest: digest, ModTime: mtime})
	return s
}

func (s *sample) program(path string, content []byte) *sample {
	s.file(path, content)
	s.entries[len(s.entries)-1].Exec = true
	return s
}

func (s *sample) link(path, target string) *sample {
	s.entries = append(s.entries, manifest.Entry{Path: path, Type: manifest.TypeLink, Link: target})
	return s
}

func (s *sample) dir(path string) *sample {
	s.entries = append(s.entries, manifest.Entry{Path: path, Type: manifest.TypeDir})
	return s
}

func (s *sample) manifest(t testing.TB) *manifest.Manifest {
	t.Helper()
	m, err := manifest.New(s.entries)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// fixedSample is the tree whose exports the golden file holds. It has files
// around every size at which something changes. Programs start like one, so that
// they are told on Windows too.
func fixedSample() *sample {
	s := newSample().
		program("bin/run", []byte("#!/bin/sh\necho hello\n")).
		dir("empty folder").
		file("empty", nil).
		file("one byte", []byte("x")).
		file("gr\u00fc\u00df/dich \u2713.txt", text(5000)).
		file(strings.Repeat("long name/", 25)+"end", []byte("deep")).
		file("random", seeded(1, 100_000)).
		file("text", text(300_000)).
		file("zeros", make([]byte, 2<<20))
	large := text(zstdBlock + 1)
	for _, n := range []int{deflateBlock, deflateBlock + 1, zipSmall, zipSmall + 1, zstdBlock + 1} {
		s.file(fmt.Sprintf("large/%d", n), large[:n])
	}
	return s.file("large/random", seeded(2, zipSmall+100)).file("large/zeros", make([]byte, zstdBlock))
}

// smallSample is like fixedSample, without most of its bytes.
func smallSample() *sample {
	return newSample().program("bin/run", []byte("#!/bin/sh\necho hello\n")).dir("empty folder").file("empty", nil).
		file("gr\u00fc\u00df/dich \u2713.txt", text(5000)).file(strings.Repeat("long name/", 25)+"end", []byte("deep")).
		file("random", seeded(1, 100_000)).file("text", text(300_000)).file("large", append(make([]byte, zipSmall), text(deflateBlock+1)...))
}

// variant is a way to export.
type variant struct {
	format Format
	method Method
}

func (v variant) String() string {
	if v.method == "" {
		return string(v.format)
	}
	return string(v.format) + " " + string(v.method)
}

// archives are all variants that give one file.
var archives = []variant{
	{FormatZip, MethodDeflate}, {FormatZip, MethodStore}, {FormatZip, MethodZstd}, {FormatTar, ""}, {FormatTarGzip, ""}, {FormatTarZstd, ""},
}

// mustExport exports s to a new target, and returns it.
func mustExport(t testing.TB, s *sample, v variant) string {
	t.Helper()
	target := filepath.Join(t.TempDir(), "target."+string(v.format))
	m := s.manifest(t)
	stats, err := Export(t.Context(), &s.files, m, target, v.format, Options{Method: v.method})
	if err != nil {
		t.Fatalf("Export as %s = %v", v, err)
	}
	if stats.Files != m.Files() || stats.Size != m.Size() || stats.Skipped != 0 {
		t.Errorf("Export as %s = %+v, want %d files, %d bytes", v, stats, m.Files(), m.Size())
	}
	return target
}

// checkTree fails unless what stands at target reads as m.
func checkTree(t testing.TB, target string, m *manifest.Manifest) {
	t.Helper()
	tr, err := tree.Open(target, tree.Options{})
	if err != nil {
		t.Errorf("what was exported: %v", err)
		return
	}
	defer tr.Close()
	scan, err := manifest.ScanTree(t.Context(), tr, chunking.Default(), manifest.AddOptions{})
	if err != nil {
		t.Errorf("what was exported as %s: %v", tr.Format(), err)
		return
	}
	if got := scan.Manifest; got.ID() != m.ID() {
		for _, c := range manifest.Diff(m, got) {
			if c.Kind != manifest.Same {
				t.Errorf("as %s: %s %+v, want %+v", tr.Format(), c.Kind, c.Target, c.Base)
			}
		}
	}
}

// goroutinesSettle fails unless there are soon as many goroutines as before.
func goroutinesSettle(t testing.TB, before int) {
	t.Helper()
	for range 400 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	buf := make([]byte, 1<<16)
	t.Errorf("%d goroutines are left, want %d:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
}

// names lists a folder.
func names(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// haveLinks reports whether this system lets us make symbolic links.
func haveLinks(t testing.TB) bool {
	t.Helper()
	err := os.Symlink("nowhere", filepath.Join(t.TempDir(), "probe"))
	if err != nil {
		t.Logf("without symbolic links: %v", err)
	}
	return err == nil
}

// writeTo is an in-test Files of any function.
type writeTo func(ctx context.Context, w io.Writer, e manifest.Entry) error

func (f writeTo) WriteFile(ctx context.Context, w io.Writer, e manifest.Entry) error {
	return f(ctx, w, e)
}

var _ Files = (*memFiles)(nil)

// counter counts bytes; exports of directories tell it from all cores.
type counter struct{ n chan int64 }

func newCounter() *counter { return &counter{make(chan int64, 1<<20)} }

func (c *counter) Add(n int64) { c.n <- n }

func (c *counter) sum() (sum int64) {
	for len(c.n) > 0 {
		sum += <-c.n
	}
	return sum
}

// readFile returns what stands at a path.
func readFile(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(data)
}
