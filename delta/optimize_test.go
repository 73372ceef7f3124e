package delta

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"ferry/cas/backend"
	"ferry/chunking"
	"ferry/manifest"
	"ferry/manifest/tree"
)

// archiveOf makes an archive of versions 0, 1 … of a package.
func archiveOf(t *testing.T, versions ...files) *manifest.Archive {
	t.Helper()
	b := backend.NewLocal(t.TempDir())
	must(t, manifest.CreateArchive(t.Context(), b, chunking.Default()))
	a, err := manifest.OpenArchive(t.Context(), b)
	must(t, err)
	t.Cleanup(func() { a.Close() })
	for i, f := range versions {
		addVersion(t, a, i, f)
	}
	return a
}

func addVersion(t *testing.T, a *manifest.Archive, n int, f files) {
	t.Helper()
	tr, err := tree.Open(f.write(t), tree.Options{})
	must(t, err)
	m, _, err := a.Add(t.Context(), tr, manifest.AddOptions{})
	must(t, err)
	must(t, tr.Close())
	_, err = a.Tag(t.Context(), manifest.Ref{Name: "app", Version: fmt.Sprint(n)}, m, "", time.Unix(int64(1000+n), 0), false)
	must(t, err)
}

// rebuilt returns release n of a program: every 4 KiB a byte is another one.
func rebuilt(seed uint64, n int) string {
	b := []byte(bytesOf(seed, 400<<10))
	for i := range n {
		for at := i * 331; at < len(b); at += 4 << 10 {
			b[at] ^= byte(i + 1)
		}
	}
	return string(b)
}

func TestOptimizeLineages(t *testing.T) {
	a := archiveOf(t,
		files{"bin/tool": rebuilt(1, 0), "old/lib.so": rebuilt(2, 0), "small": "abc", "other": bytesOf(9, 200<<10), "boot/6.1/linux-6.1.50": rebuilt(3, 0)},
		files{"bin/tool": rebuilt(1, 1), "old/lib.so": rebuilt(2, 0), "small": "abd", "other": bytesOf(10, 200<<10), "boot/6.1/linux-6.1.50": rebuilt(3, 0), "boot/6.1/linux-6.1.56": rebuilt(3, 1)},
		files{"bin/tool": rebuilt(1, 2), "new/lib.so": rebuilt(2, 1), "small": "abe", "other": bytesOf(11, 200<<10)},
		files{"bin/tool": rebuilt(1, 3), "new/lib.so": rebuilt(2, 2), "small": "abf"},
	)
	all, err := lineages(t.Context(), a, nil)
	must(t, err)
	var got []string
	for _, r := range all {
		line := ""
		for _, f := range r.releases {
			line += " " + f.Path
		}
		got = append(got, line[1:])
	}
	slices.Sort(got)
	want := []string{"bin/tool bin/tool bin/tool bin/tool", "boot/6.1/linux-6.1.50 boot/6.1/linux-6.1.56", "old/lib.so new/lib.so new/lib.so", "other other other"}
	if !slices.Equal(got, want) {
		t.Errorf("lineages are %q, want %q", got, want)
	}
	other, err := Optimize(t.Context(), a, OptimizeOptions{Names: []string{"another"}})
	must(t, err)
	if other.Files != 0 {
		t.Errorf("Optimize looked at %d files of another package", other.Files)
	}
	r, err := Optimize(t.Context(), a, OptimizeOptions{})
	must(t, err)
	// What resembles nothing stays what it is.
	if r.Files != 8 || r.Derived != 6 {
		t.Errorf("Optimize looked at %d files and derived %d, want 8 and 6", r.Files, r.Derived)
	}
	if r.Added > r.Replaced/4 {
		t.Errorf("Optimize wrote %d bytes in place of %d", r.Added, r.Replaced)
	}
	again, err := Optimize(t.Context(), a, OptimizeOptions{})
	must(t, err)
	if again.Derived != 0 {
		t.Errorf("a second call derived %d files", again.Derived)
	}
}

// TestOptimizeKeeps keeps a release that is far from those before it, and derives those
// behind it from that.
func TestOptimizeKeeps(t *testing.T) {
	a := archiveOf(t,
		files{"tool": rebuilt(1, 0)}, files{"tool": rebuilt(1, 1)},
		files{"tool": rebuilt(5, 0)}, files{"tool": rebuilt(5, 1)}, files{"tool": rebuilt(5, 2)}, files{"tool": rebuilt(5, 3)},
	)
	r, err := Optimize(t.Context(), a, OptimizeOptions{})
	must(t, err)
	if r.Files != 5 || r.Derived != 4 {
		t.Errorf("Optimize looked at %d files and derived %d, want 5 and 4", r.Files, r.Derived)
	}
	for _, v := range []string{"0", "1", "2", "3", "4", "5"} {
		version, err := a.Version(t.Context(), manifest.Ref{Name: "app", Version: v})
		must(t, err)
		m, err := a.Manifest(t.Context(), version.Manifest)
		must(t, err)
		must(t, a.WriteFile(t.Context(), io.Discard, m.Entries[0]))
	}
}

// TestOptimizeLooksAhead keeps a release, much of which is new, for the sake of two
// that are like it, and derives it where none follows.
func TestOptimizeLooksAhead(t *testing.T) {
	changed := func(n int) string { return bytesOf(7, 60<<10) + rebuilt(1, n)[60<<10:] }
	for _, test := range []struct {
		releases []files
		derived  int
	}{
		{[]files{{"tool": rebuilt(1, 0)}, {"tool": changed(1)}}, 1},
		{[]files{{"tool": rebuilt(1, 0)}, {"tool": changed(1)}, {"tool": changed(2)}, {"tool": changed(3)}}, 2},
	} {
		r, err := Optimize(t.Context(), archiveOf(t, test.releases...), OptimizeOptions{})
		must(t, err)
		if r.Derived != test.derived {
			t.Errorf("of %d releases %d are derived, want %d", len(test.releases), r.Derived, test.derived)
		}
	}
}

// TestOptimizeSideBySide derives releases of files whose names differ by a number and that
// have nothing to do with each other.
func TestOptimizeSideBySide(t *testing.T) {
	var versions []files
	for i := range 4 {
		f := files{"lib/a1.bin": rebuilt(1, i)}
		if i > 0 {
			f["lib/a2.bin"] = rebuilt(2, i)
		}
		versions = append(versions, f)
	}
	r, err := Optimize(t.Context(), archiveOf(t, versions...), OptimizeOptions{})
	must(t, err)
	if r.Derived != 5 {
		t.Errorf("%d releases are derived, want 5", r.Derived)
	}
}

// TestOptimizeGoesOn derives a release from one that an optimization before kept.
func TestOptimizeGoesOn(t *testing.T) {
	a := archiveOf(t, files{"tool": rebuilt(1, 0)}, files{"tool": rebuilt(5, 0)}, files{"tool": rebuilt(5, 1)})
	for n, want := range []int{1, 1, 1} {
		r, err := Optimize(t.Context(), a, OptimizeOptions{})
		must(t, err)
		if r.Derived != want {
			t.Errorf("call %d derived %d releases, want %d", n, r.Derived, want)
		}
		addVersion(t, a, n+3, files{"tool": rebuilt(5, n+2)})
	}
}

func TestCompareVersions(t *testing.T) {
	want := []string{"0.9", "0.25.5", "0.25.12", "1.4.0", "1.4.0+archive", "1.10", "2", "10", "a", "b10", "b010x"}
	for i, a := range want {
		for k, b := range want {
			if got := compareVersions(a, b); got != cmp.Compare(i, k) {
				t.Errorf("compareVersions(%s, %s) = %d, want %d", a, b, got, cmp.Compare(i, k))
			}
		}
	}
}
