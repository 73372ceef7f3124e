package manifest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"pgregory.net/rapid"

	"ferry/cas"
)

// putContainer stores a file that is put together from slices of two streams
// and zeros, as no add does yet, and returns its entry and content.
func putContainer(t *testing.T, a *Archive) (Entry, []byte) {
	t.Helper()
	tx := a.store.Begin(t.Context())
	defer tx.Abort()
	put := func(data []byte) Run {
		if _, err := tx.Put(cas.Sum(data), data); err != nil {
			t.Fatal(err)
		}
		return Run{cas.Sum(data), int64(len(data))}
	}
	one, two, three := seeded(31, 5000), seeded(32, 3000), seeded(33, 7000)
	first := append(append(bytes.Clone(one), make([]byte, 20_000)...), two...)
	r := &Recipe{Streams: []Stream{
		{Name: "first", Size: int64(len(first)), Runs: []Run{put(one), {Size: 20_000}, put(two)}},
		{Name: "second", Size: 14_000, Runs: []Run{put(three), put(three)}},
	}}
	slice := func(stream int, off, size int64) {
		r.Layout = append(r.Layout, Op{Kind: OpSlice, Stream: stream, Off: off, Size: size})
	}
	slice(1, 6000, 2000)
	slice(0, 0, int64(len(first)))
	r.Layout = append(r.Layout, Op{Kind: OpZero, Size: 100_000})
	slice(0, 4999, 1)
	slice(0, 4000, 22_000)
	second := append(bytes.Clone(three), three...)
	content := bytes.Join([][]byte{second[6000:8000], first, make([]byte, 100_000), first[4999:5000], first[4000:26_000]}, nil)
	e := file("container", string(content))
	r.Digest, r.Size = e.Digest, e.Size
	if err := tx.PutRecord(e.Digest, append([]byte{recipeInline}, r.Encode()...)); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	return e, content
}

func TestReadAtRandom(t *testing.T) {
	a, _ := newArchive(t, testParams())
	nodes := sampleTree(t)
	m, _ := mustAdd(t, a, &memTree{nodes: nodes})
	contents := map[Entry][]byte{}
	for _, n := range nodes {
		if e, ok := m.Find(n.Path); ok && e.Type == TypeFile {
			contents[e] = n.data
		}
	}
	container, content := putContainer(t, a)
	contents[container] = content
	for e, want := range contents {
		t.Run(e.Path, func(t *testing.T) { checkReadAt(t, a, e, want) })
	}
}

func checkReadAt(t *testing.T, a *Archive, e Entry, want []byte) {
	if got := readAll(t, a, e); !bytes.Equal(got, want) {
		t.Fatalf("%d other bytes come back, want %d", len(got), len(want))
	}
	c, err := a.OpenAt(t.Context(), e)
	if err != nil || c.Size() != int64(len(want)) {
		t.Fatalf("OpenAt has %d bytes, %v, want %d", c.Size(), err, len(want))
	}
	if n, err := c.ReadAt(make([]byte, 10), -1); n != 0 || err == nil || err == io.EOF {
		t.Errorf("ReadAt(-1) = %d, %v, want an error", n, err)
	}
	ref := bytes.NewReader(want)
	rapid.Check(t, func(t *rapid.T) {
		off := rapid.Int64Range(0, e.Size+10).Draw(t, "offset")
		got := make([]byte, rapid.IntRange(0, 300_000).Draw(t, "bytes"))
		expect := make([]byte, len(got))
		n, err := c.ReadAt(got, off)
		wantN, wantErr := ref.ReadAt(expect, off)
		if n != wantN || !bytes.Equal(got[:n], expect[:n]) || len(got) > 0 && err != wantErr {
			t.Fatalf("ReadAt(%d bytes, %d) = %d, %v, want %d, %v", len(got), off, n, err, wantN, wantErr)
		}
	})
}

func TestChunks(t *testing.T) {
	a, _ := newArchive(t, testParams())
	data := holes(1, 500_000)
	m, _ := mustAdd(t, a, &memTree{nodes: []node{fileNode("file", data), fileNode("empty", nil)}})
	e, _ := m.Find("file")
	chunks, err := a.Chunks(t.Context(), e)
	if err != nil || len(chunks) < 5 {
		t.Fatalf("Chunks = %d, %v, want several", len(chunks), err)
	}
	off := int64(0)
	for _, c := range chunks {
		part := data[c.Off : c.Off+c.Size]
		if c.Off != off || c.Key.IsZero() != (len(bytes.Trim(part, "\x00")) == 0) || !c.Key.IsZero() && cas.Sum(part) != c.Key {
			t.Errorf("chunk %+v is not what stands at %d", c, off)
		}
		off += c.Size
	}
	if off != e.Size {
		t.Errorf("chunks have %d bytes, want %d", off, e.Size)
	}
	empty, _ := m.Find("empty")
	if chunks, err := a.Chunks(t.Context(), empty); err != nil || len(chunks) != 0 {
		t.Errorf("Chunks of an empty file = %v, %v, want none", chunks, err)
	}
	container, content := putContainer(t, a)
	chunks, err = a.Chunks(t.Context(), container)
	if err != nil || len(chunks) == 0 {
		t.Fatalf("Chunks of a container = %v, %v", chunks, err)
	}
	for _, c := range chunks {
		if part := content[c.Off : c.Off+c.Size]; !c.Key.IsZero() && cas.Sum(part) != c.Key {
			t.Errorf("chunk %+v of a container is not what stands there", c)
		}
	}
}

func TestReadUnknownFile(t *testing.T) {
	a, _ := newArchive(t, testParams())
	m, _ := mustAdd(t, a, &memTree{nodes: []node{fileNode("file", seeded(1, 1000))}})
	known, _ := m.Find("file")
	longer := known
	longer.Size++
	for name, test := range map[string]struct {
		e    Entry
		want error
	}{"unknown": {file("nowhere", "x"), cas.ErrNotFound}, "another size": {longer, cas.ErrCorrupt}} {
		var b bytes.Buffer
		if err := a.WriteFile(t.Context(), &b, test.e); !errors.Is(err, test.want) || b.Len() > 0 {
			t.Errorf("%s: WriteFile = %v, %d bytes, want %v", name, err, b.Len(), test.want)
		}
		if r, err := a.Open(t.Context(), test.e); r != nil || !errors.Is(err, test.want) {
			t.Errorf("%s: Open = %v, %v, want %v", name, r, err, test.want)
		}
		if c, err := a.OpenAt(t.Context(), test.e); c != nil || !errors.Is(err, test.want) {
			t.Errorf("%s: OpenAt = %v, %v, want %v", name, c, err, test.want)
		}
		if c, err := a.Chunks(t.Context(), test.e); c != nil || !errors.Is(err, test.want) {
			t.Errorf("%s: Chunks = %v, %v, want %v", name, c, err, test.want)
		}
	}
}

// TestReadDamaged reads files whose pack was damaged: never wrong bytes, always
// an error.
func TestReadDamaged(t *testing.T) {
	a, dir := newArchive(t, testParams())
	data := seeded(1, 300_000)
	m, _ := mustAdd(t, a, &memTree{nodes: []node{fileNode("file", data)}})
	e, _ := m.Find("file")
	for _, name := range objects(t, dir, "packs") {
		damageFile(t, filepath.Join(dir, name), 100_000)
	}
	a = openArchive(t, dir)
	var b bytes.Buffer
	if err := a.WriteFile(t.Context(), &b, e); !errors.Is(err, cas.ErrCorrupt) || !bytes.HasPrefix(data, b.Bytes()) {
		t.Errorf("WriteFile = %v after %d bytes, want %v after good ones", err, b.Len(), cas.ErrCorrupt)
	}
	r, err := a.Open(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); !errors.Is(err, cas.ErrCorrupt) || !bytes.HasPrefix(data, got) {
		t.Errorf("Open gives %d bytes, %v, want %v after good ones", len(got), err, cas.ErrCorrupt)
	}
	c, err := a.OpenAt(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := c.ReadAt(make([]byte, len(data)), 0); !errors.Is(err, cas.ErrCorrupt) {
		t.Errorf("ReadAt = %d, %v, want %v", n, err, cas.ErrCorrupt)
	}
}

// damageFile flips all bits of a byte.
func damageFile(t testing.TB, name string, off int) {
	t.Helper()
	if err := os.Chmod(name, 0o666); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	data[off] ^= 0xff
	if err := os.WriteFile(name, data, 0o666); err != nil {
		t.Fatal(err)
	}
}

// TestWrongRecipe reads a file whose chunks are all sound and in wrong order.
func TestWrongRecipe(t *testing.T) {
	a, _ := newArchive(t, testParams())
	one, two := seeded(1, 1000), seeded(2, 1000)
	mustAdd(t, a, &memTree{nodes: []node{fileNode("one", one), fileNode("two", two)}})
	e := file("both", string(append(bytes.Clone(one), two...)))
	wrong := plainRecipe(e.Digest, e.Size, []Run{{cas.Sum(two), 1000}, {cas.Sum(one), 1000}})
	tx := a.store.Begin(t.Context())
	defer tx.Abort()
	if err := tx.PutRecord(e.Digest, append([]byte{recipeInline}, wrong.Encode()...)); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := a.WriteFile(t.Context(), io.Discard, e); !errors.Is(err, cas.ErrCorrupt) {
		t.Errorf("WriteFile = %v, want %v", err, cas.ErrCorrupt)
	}
	r, err := a.Open(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadAll(r); !errors.Is(err, cas.ErrCorrupt) {
		t.Errorf("Open ends with %v, want %v", err, cas.ErrCorrupt)
	}
}

func TestReadCancelled(t *testing.T) {
	a, _ := newArchive(t, testParams())
	m, _ := mustAdd(t, a, &memTree{nodes: []node{fileNode("data", seeded(1, 3<<20)), fileNode("zeros", make([]byte, 3<<20))}})
	before := runtime.NumGoroutine()
	for _, e := range m.Entries {
		ctx, cancel := context.WithCancel(t.Context())
		r, err := a.Open(ctx, e)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Read(make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		cancel()
		if n, err := io.Copy(io.Discard, r); err == nil || n >= e.Size-10 {
			t.Errorf("%s: after cancelling, Open gives %d more bytes, %v, want an error", e.Path, n, err)
		}
		r.Close()
		half, err := a.Open(t.Context(), e) // closed before its end
		if err != nil {
			t.Fatal(err)
		}
		if _, err := half.Read(make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		half.Close()
	}
	goroutinesSettle(t, before)
}

// TestWriteFails writes to a writer that breaks off.
func TestWriteFails(t *testing.T) {
	a, _ := newArchive(t, testParams())
	m, _ := mustAdd(t, a, &memTree{nodes: []node{fileNode("data", seeded(1, 300_000)), fileNode("one", seeded(1, 1000)), fileNode("zeros", make([]byte, 300_000))}})
	before := runtime.NumGoroutine()
	for _, e := range m.Entries {
		if err := a.WriteFile(t.Context(), fullWriter{}, e); !errors.Is(err, errFull) {
			t.Errorf("WriteFile(%s) to a full disk = %v, want %v", e.Path, err, errFull)
		}
	}
	goroutinesSettle(t, before)
}

var errFull = errors.New("no space left")

type fullWriter struct{}

func (fullWriter) Write([]byte) (int, error) { return 0, errFull }
