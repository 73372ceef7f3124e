package place

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ferry/cas"
	"ferry/manifest"
	"ferry/manifest/tree"
)

const testTime = 1_600_000_000

// sample is the content of files by path.
type sample map[string]string

// manifest returns the sample's manifest, with other entries. Paths that end in
// "+" are programs, whose path does not have it.
func (s sample) manifest(t testing.TB, more ...manifest.Entry) *manifest.Manifest {
	t.Helper()
	entries := more
	for path, content := range s {
		name, exec := strings.CutSuffix(path, "+")
		entries = append(entries, manifest.Entry{Path: name, Type: manifest.TypeFile, Exec: exec, ModTime: testTime,
			Size: int64(len(content)), Digest: cas.Sum([]byte(content))})
	}
	m, err := manifest.New(entries)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// fill is a Fill that writes the sample's contents.
func (s sample) fill(_ context.Context, e manifest.Entry, w io.Writer) error {
	content, ok := s[e.Path]
	if !ok {
		content = s[e.Path+"+"]
	}
	_, err := io.WriteString(w, content)
	return err
}

// check fails unless the tree at dir is m.
func check(t testing.TB, dir string, m *manifest.Manifest) {
	t.Helper()
	tr, err := tree.Open(dir, tree.Options{})
	if err != nil {
		t.Errorf("what was placed: %v", err)
		return
	}
	defer tr.Close()
	report, err := manifest.Verify(t.Context(), tr, m, manifest.VerifyOptions{IgnoreModes: runtime.GOOS == "windows"})
	if err != nil || len(report.Findings) > 0 {
		t.Errorf("what was placed is not the manifest: %+v, %v", report, err)
	}
}

// names lists a folder.
func names(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
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

// counter counts bytes.
type counter struct {
	mu sync.Mutex
	n  int64
}

func (c *counter) Add(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n += n
}

func TestTree(t *testing.T) {
	s := sample{"a": "content of a", "dir/sub/b": strings.Repeat("b", 300_000), "dir/empty": "", "bin/run+": "#!/bin/sh\n", "gr\u00fc\u00df": "x"}
	more := []manifest.Entry{{Path: "folder/inner", Type: manifest.TypeDir}}
	if haveLinks(t) {
		more = append(more, manifest.Entry{Path: "link", Type: manifest.TypeLink, Link: "dir/sub"}, manifest.Entry{Path: "dir/lost", Type: manifest.TypeLink, Link: "../../no/where"})
	}
	m := s.manifest(t, more...)
	for name, prepare := range map[string]func(string) error{
		"new":                func(string) error { return nil },
		"empty folder":       func(target string) error { return os.Mkdir(target, 0o777) },
		"in folders to make": func(string) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			target := filepath.Join(parent, "target")
			if name == "in folders to make" {
				parent = filepath.Join(parent, "x", "y")
				target = filepath.Join(parent, "target")
			}
			if err := prepare(target); err != nil {
				t.Fatal(err)
			}
			var c counter
			stats, err := Tree(t.Context(), target, m, s.fill, Options{Progress: &c})
			if err != nil {
				t.Fatalf("Tree = %v", err)
			}
			if want := (Stats{Files: len(s), Size: m.Size()}); stats != want || c.n != m.Size() {
				t.Errorf("Tree = %+v, progress %d, want %+v", stats, c.n, want)
			}
			check(t, target, m)
			if got := names(t, parent); !slices.Equal(got, []string{"target"}) {
				t.Errorf("left %v, want the target alone", got)
			}
			fi, err := os.Stat(filepath.Join(target, "a"))
			if err != nil || fi.ModTime().Unix() != testTime {
				t.Errorf("a has time %v, %v, want %v", fi.ModTime(), err, time.Unix(testTime, 0))
			}
		})
	}
}

func TestTreeOfNothing(t *testing.T) {
	target := filepath.Join(t.TempDir(), "target")
	if _, err := Tree(t.Context(), target, sample{}.manifest(t), sample{}.fill, Options{}); err != nil {
		t.Fatalf("Tree = %v", err)
	}
	if got := names(t, target); len(got) > 0 {
		t.Errorf("placed %v, want nothing", got)
	}
}

// TestTreeWrongContent has a Fill that does not give what the manifest says.
func TestTreeWrongContent(t *testing.T) {
	s := sample{"good": "good", "other/good": "good too", "bad": "right content"}
	broken := errors.New("broken")
	for name, test := range map[string]struct {
		content string
		err     error
		want    error
	}{
		"other bytes":        {"wrong content", nil, ErrContent},
		"nothing":            {"", nil, ErrContent},
		"one byte less":      {"right conten", nil, ErrContent},
		"one byte more":      {"right content!", nil, ErrContent},
		"fails":              {"", broken, broken},
		"fails behind all":   {"right content", broken, broken},
		"far too many":       {strings.Repeat("right content", 10_000), nil, ErrContent},
		"zeros in its place": {string(make([]byte, 13)), nil, ErrContent},
	} {
		parent := t.TempDir()
		stats, err := Tree(t.Context(), filepath.Join(parent, "target"), s.manifest(t), func(ctx context.Context, e manifest.Entry, w io.Writer) error {
			if e.Path != "bad" {
				return s.fill(ctx, e, w)
			}
			_, err := io.WriteString(w, test.content)
			return errors.Join(test.err, err)
		}, Options{})
		if !errors.Is(err, test.want) || !strings.Contains(err.Error(), "bad") {
			t.Errorf("%s: Tree = %+v, %v, want %v that names the file", name, stats, err, test.want)
		}
		if got := names(t, parent); len(got) > 0 {
			t.Errorf("%s: left %v, want nothing", name, got)
		}
	}
}

func TestSpace(t *testing.T) {
	huge := func(path string, size int64) manifest.Entry {
		return manifest.Entry{Path: path, Type: manifest.TypeFile, Size: size, Digest: cas.Sum([]byte("x"))}
	}
	for name, more := range map[string][]manifest.Entry{
		"an exabyte":             {huge("a", 1<<60)},
		"more than can be added": {huge("a", 1<<62), huge("b", 1<<62), huge("c", 1<<62)},
		"the greatest size":      {huge("a", 1<<63-1), huge("b", 1<<63-1)},
	} {
		m := sample{}.manifest(t, more...)
		parent := t.TempDir()
		_, err := Tree(t.Context(), filepath.Join(parent, "x", "target"), m, sample{}.fill, Options{})
		var space *SpaceError
		if !errors.As(err, &space) || space.Need < 1<<60 || space.Free <= 0 || space.Dir != parent {
			t.Errorf("%s: Tree = %v, want a SpaceError of %s", name, err, parent)
		}
		if got := names(t, parent); len(got) > 0 {
			t.Errorf("%s: left %v, want nothing", name, got)
		}
	}
}

// TestTimes has times that file systems cannot hold: near enough will do.
func TestTimes(t *testing.T) {
	var entries []manifest.Entry
	for path, year := range map[string]int{"1": 1, "1900": 1900, "1969": 1969, "2100": 2100, "2300": 2300, "9999": 9999} {
		entries = append(entries, manifest.Entry{Path: path, Type: manifest.TypeFile, Digest: cas.Sum(nil), ModTime: time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC).Unix()})
	}
	target := filepath.Join(t.TempDir(), "target")
	if _, err := Tree(t.Context(), target, sample{}.manifest(t, entries...), sample{}.fill, Options{}); err != nil {
		t.Fatalf("Tree = %v", err)
	}
	for _, e := range entries {
		fi, err := os.Stat(filepath.Join(target, e.Path))
		if err != nil {
			t.Fatal(err)
		}
		if past := e.ModTime < 0; past && fi.ModTime().Year() > 1980 || !past && fi.ModTime().Year() < 2037 {
			t.Errorf("a file of the year %s is placed with time %v", e.Path, fi.ModTime())
		}
	}
}

// TestNames places names that differ in case, where the file system tells them apart.
func TestNames(t *testing.T) {
	s := sample{"readme": "lower", "README": "upper", "Dir/a": "a", "dir/b": "b"}
	parent := t.TempDir()
	target := filepath.Join(parent, "target")
	_, err := Tree(t.Context(), target, s.manifest(t), s.fill, Options{})
	if _, statErr := os.Stat(strings.ToUpper(parent)); statErr == nil {
		var unsafe *tree.UnsafePathError
		if !errors.As(err, &unsafe) || len(names(t, parent)) > 0 {
			t.Errorf("Tree = %v, leaving %v, want an UnsafePathError", err, names(t, parent))
		}
		return
	}
	if err != nil {
		t.Fatalf("Tree = %v", err)
	}
	check(t, target, s.manifest(t))
}
