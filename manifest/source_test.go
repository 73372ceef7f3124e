package manifest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"ferry/manifest/tree"
)

// readerNode is a file of size bytes whose content is what open gives.
func readerNode(path string, size int, open func() (io.Reader, error)) node {
	n := fileNode(path, nil)
	n.Size = int64(size)
	n.open = func() (io.ReadCloser, error) {
		r, err := open()
		return io.NopCloser(r), err
	}
	return n
}

// goroutinesSettle fails unless there are soon as many goroutines as before.
func goroutinesSettle(t *testing.T, before int) {
	t.Helper()
	for range 200 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	buf := make([]byte, 1<<16)
	t.Errorf("%d goroutines are left, want %d:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
}

// TestAddFails has sources fail in every place: the error comes through, names
// the path, and leaves neither a manifest nor a goroutine.
func TestAddFails(t *testing.T) {
	broken := errors.New("broken")
	failAt := func(n int) func() (io.Reader, error) {
		return func() (io.Reader, error) {
			return io.MultiReader(bytes.NewReader(seeded(1, n)), iotest.ErrReader(broken)), nil
		}
	}
	denied := func() (io.Reader, error) { return nil, fs.ErrPermission }
	tests := []struct {
		name string
		bad  node
		want error
	}{
		{"small file cannot be opened", readerNode("bad", 100, denied), fs.ErrPermission},
		{"large file cannot be opened", readerNode("bad", 8<<20, denied), fs.ErrPermission},
		{"small file cannot be read", readerNode("bad", 100, failAt(0)), broken},
		{"small file fails midway", readerNode("bad", 100, failAt(50)), broken},
		{"large file fails at its start", readerNode("bad", 8<<20, failAt(10)), broken},
		{"large file fails midway", readerNode("bad", 8<<20, failAt(5<<20)), broken},
		{"file of unknown size fails midway", readerNode("bad", 0, failAt(5<<20)), broken},
		{"hard link to nothing", node{Node: tree.Node{Path: "bad", Kind: tree.HardLink, Link: "nothing"}}, ErrInvalid},
		{"hard link to what comes later", node{Node: tree.Node{Path: "bad", Kind: tree.HardLink, Link: "z"}}, ErrInvalid},
		{"hard link to a folder", node{Node: tree.Node{Path: "bad", Kind: tree.HardLink, Link: "folder"}}, ErrInvalid},
		{"link not in UTF-8", linkNode("bad", "\xff"), ErrInvalid},
		{"link to nothing", linkNode("bad", ""), ErrInvalid},
		{"link with a NUL", linkNode("bad", "a\x00b"), ErrInvalid},
		{"link too long", linkNode("bad", strings.Repeat("x", maxLink+1)), ErrInvalid},
	}
	for _, test := range tests {
		for _, sequential := range []bool{false, true} {
			t.Run(test.name, func(t *testing.T) {
				a, dir := newArchive(t, testParams())
				nodes := []node{dirNode("folder"), fileNode("good", seeded(2, 100_000)), test.bad, fileNode("z", seeded(3, 5<<20))}
				before := runtime.NumGoroutine()
				m, _, err := a.Add(t.Context(), &memTree{nodes: nodes, sequential: sequential}, AddOptions{})
				if m != nil || !errors.Is(err, test.want) {
					t.Errorf("Add = %v, %v, want %v", m, err, test.want)
				}
				if err == nil || !strings.Contains(err.Error(), "bad") {
					t.Errorf("Add = %v, want an error that names the path", err)
				}
				goroutinesSettle(t, before)
				if left := objects(t, dir, "catalogue"); len(left) > 0 {
					t.Errorf("left %v in the catalogue", left)
				}
			})
		}
	}
}

func TestAddWalkFails(t *testing.T) {
	broken := errors.New("broken")
	for _, sequential := range []bool{false, true} {
		a, _ := newArchive(t, testParams())
		before := runtime.NumGoroutine()
		m, _, err := a.Add(t.Context(), &memTree{nodes: sampleTree(t), sequential: sequential, failed: broken}, AddOptions{})
		if m != nil || !errors.Is(err, broken) {
			t.Errorf("Add = %v, %v, want %v", m, err, broken)
		}
		goroutinesSettle(t, before)
	}
}

// TestAddChangedFile adds a file that is another one when it is opened again:
// the store knew its first chunk, so it was read once to look it up.
func TestAddChangedFile(t *testing.T) {
	data := seeded(4, 6<<20)
	other := append(slices.Clone(data[:5<<20]), seeded(5, 1<<20)...)
	a, _ := newArchive(t, testParams())
	mustAdd(t, a, &memTree{nodes: []node{fileNode("start", data[:5<<20])}})
	opened := 0
	changing := readerNode("changing", len(data), func() (io.Reader, error) {
		opened++
		if opened == 1 {
			return bytes.NewReader(data), nil
		}
		return bytes.NewReader(other), nil
	})
	m, _, err := a.Add(t.Context(), &memTree{nodes: []node{changing}}, AddOptions{})
	if m != nil || !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), "changing") {
		t.Errorf("Add = %v, %v, want %v, naming the file", m, err, ErrChanged)
	}
	if opened != 2 {
		t.Errorf("the file was opened %d times, want 2", opened)
	}
}

// TestAddOtherSize adds files that are not as long as the source says.
func TestAddOtherSize(t *testing.T) {
	for _, size := range []int{0, 10, smallFile, smallFile + 1} {
		for _, says := range []int{0, 10, smallFile, smallFile + 1} {
			data := bytes.Repeat(seeded(6, 100), size/100+1)[:size]
			n := readerNode("file", says, func() (io.Reader, error) { return bytes.NewReader(data), nil })
			n.data = data
			for _, sequential := range []bool{false, true} {
				a, _ := newArchive(t, testParams())
				m, _ := mustAdd(t, a, &memTree{nodes: []node{n}, sequential: sequential})
				checkContent(t, a, m, []node{n})
			}
		}
	}
}

// cancellingReader gives data, and cancels when it has given half.
type cancellingReader struct {
	r      io.Reader
	left   int
	cancel func()
}

func (r *cancellingReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if r.left -= n; r.left <= 0 {
		r.cancel()
		time.Sleep(time.Millisecond) // lets the others see it first
	}
	return n, err
}

// TestAddCancelled cancels while a file is read: small, large, and large with a
// start that the store knows.
func TestAddCancelled(t *testing.T) {
	large := seeded(7, 8<<20)
	for name, size := range map[string]int{"small": 100_000, "large": 8 << 20} {
		for _, known := range []bool{false, true} {
			for _, sequential := range []bool{false, true} {
				t.Run(name, func(t *testing.T) {
					a, _ := newArchive(t, testParams())
					if known {
						mustAdd(t, a, &memTree{nodes: []node{fileNode("start", large[:5<<20])}})
					}
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					nodes := []node{fileNode("before", seeded(8, 10_000)), readerNode("file", size, func() (io.Reader, error) {
						return &cancellingReader{bytes.NewReader(large[:size]), size / 2, cancel}, nil
					})}
					for i := range 3 * itemsAhead {
						nodes = append(nodes, fileNode("z"+string(rune('A'+i)), seeded(byte(i), 1000)))
					}
					before := runtime.NumGoroutine()
					m, _, err := a.Add(ctx, &memTree{nodes: nodes, sequential: sequential}, AddOptions{})
					if m != nil || !errors.Is(err, context.Canceled) {
						t.Errorf("Add = %v, %v, want %v", m, err, context.Canceled)
					}
					goroutinesSettle(t, before)
				})
			}
		}
	}
}

// TestAddCancelledClosesFiles cancels while many large files wait their turn.
func TestAddCancelledClosesFiles(t *testing.T) {
	for range 10 {
		a, _ := newArchive(t, testParams())
		ctx, cancel := context.WithCancel(t.Context())
		var nodes []node
		var open opens
		for i := range 2 * bytesAhead / largeAhead {
			n := fileNode("file"+string(rune('A'+i)), nil)
			n.Size = 8 << 20
			n.open = func() (io.ReadCloser, error) {
				if i == bytesAhead/largeAhead+2 {
					cancel()
				}
				open.add(1)
				return &closeNoting{bytes.NewReader(seeded(byte(i), 1<<20)), &open}, nil
			}
			nodes = append(nodes, n)
		}
		if m, _, err := a.Add(ctx, &memTree{nodes: nodes}, AddOptions{}); m != nil || !errors.Is(err, context.Canceled) {
			t.Errorf("Add = %v, %v, want %v", m, err, context.Canceled)
		}
		cancel()
		if n := open.count(); n != 0 {
			t.Fatalf("%d files are still open", n)
		}
	}
}

// warnings returns what Add warns of, and how many it skips.
func warnings(t *testing.T, nodes ...node) ([]Warning, AddStats) {
	t.Helper()
	a, _ := newArchive(t, testParams())
	var got []Warning
	_, stats, err := a.Add(t.Context(), &memTree{nodes: nodes}, AddOptions{Warn: func(w Warning) { got = append(got, w) }})
	if err != nil {
		t.Fatalf("Add = %v", err)
	}
	return got, stats
}

func TestAddSpecial(t *testing.T) {
	got, stats := warnings(t, fileNode("a", []byte("x")), node{Node: tree.Node{Path: "pipe", Kind: tree.Special}})
	if len(got) != 1 || got[0].Path != "pipe" || !got[0].Skipped || stats.Skipped != 1 || stats.Files != 1 {
		t.Errorf("warnings = %+v, stats %+v, want one of a skipped pipe", got, stats)
	}
}

func TestAddTwice(t *testing.T) {
	tests := []struct {
		name  string
		nodes []node
	}{
		{"a file", []node{fileNode("a", []byte("x")), fileNode("a", []byte("x"))}},
		{"a file and a link", []node{fileNode("a", []byte("x")), linkNode("a", "b")}},
		{"a file and a folder", []node{fileNode("a", []byte("x")), dirNode("a")}},
		{"a folder and a file", []node{dirNode("a"), fileNode("a", []byte("x"))}},
		{"a file in a file", []node{fileNode("a", []byte("x")), fileNode("a/b", []byte("x"))}},
		{"a file in a link", []node{linkNode("a", "c"), fileNode("a/b", []byte("x"))}},
		{"a folder in a file", []node{fileNode("a", []byte("x")), dirNode("a/b/c")}},
	}
	for _, test := range tests {
		a, _ := newArchive(t, testParams())
		m, _, err := a.Add(t.Context(), &memTree{nodes: test.nodes}, AddOptions{})
		if m != nil || !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "a") {
			t.Errorf("%s: Add = %v, %v, want %v", test.name, m, err, ErrInvalid)
		}
	}
}

// counter counts bytes.
type counter struct{ opens }

func (c *counter) Add(n int64) { c.add(n) }

func TestAddProgress(t *testing.T) {
	nodes := sampleTree(t)
	a, _ := newArchive(t, testParams())
	for _, sequential := range []bool{false, true} {
		for range 2 { // the second time, all is known
			var c counter
			m, _, err := a.Add(t.Context(), &memTree{nodes: nodes, sequential: sequential}, AddOptions{Progress: &c})
			if err != nil || c.count() != m.Size() {
				t.Errorf("progress counted %d bytes, %v, want %d", c.count(), err, m.Size())
			}
		}
	}
}

func TestAddUnreadableFile(t *testing.T) {
	if os.Geteuid() <= 0 {
		t.Log("this user may read everything, or the system has no modes: a file that cannot be opened is in TestAddFails")
		return
	}
	dir := writeDir(t, []node{fileNode("good", []byte("x")), fileNode("secret", []byte("x"))})
	if err := os.Chmod(dir+"/secret", 0); err != nil {
		t.Fatal(err)
	}
	a, _ := newArchive(t, testParams())
	m, _, err := a.Add(t.Context(), openTree(t, dir), AddOptions{})
	if m != nil || !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "secret") {
		t.Errorf("Add = %v, %v, want %v, naming the file", m, err, fs.ErrPermission)
	}
}
