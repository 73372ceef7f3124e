package export

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"ferry/manifest"
	"ferry/manifest/place"
)

func TestRoundTrip(t *testing.T) {
	s := fixedSample().link("link", "gr\u00fc\u00df/x").link("large/up", "../no/where")
	m := s.manifest(t)
	for _, v := range archives {
		t.Run(v.String(), func(t *testing.T) { checkTree(t, mustExport(t, s, v), m) })
	}
	t.Run("dir", func(t *testing.T) {
		s := smallSample()
		if haveLinks(t) {
			s.link("link", "text").link("bin/up", "../no/where")
		}
		checkTree(t, mustExport(t, s, variant{format: FormatDir}), s.manifest(t))
	})
}

func TestEmptyTree(t *testing.T) {
	s := newSample()
	for _, v := range archives {
		target := mustExport(t, s, v)
		if v.format == FormatZip {
			checkTree(t, target, s.manifest(t))
		}
		if fi, err := os.Stat(target); err != nil || fi.Size() == 0 {
			t.Errorf("%s of nothing: %v, %v, want a file", v, fi, err)
		}
	}
}

func TestProgress(t *testing.T) {
	s := smallSample()
	m := s.manifest(t)
	for _, v := range append(archives, variant{format: FormatDir}) {
		c := newCounter()
		opts := Options{Method: v.method, Place: place.Options{Progress: c}}
		if _, err := Export(t.Context(), &s.files, m, filepath.Join(t.TempDir(), "target"), v.format, opts); err != nil {
			t.Fatalf("Export as %s = %v", v, err)
		}
		if got := c.sum(); got != m.Size() {
			t.Errorf("Export as %s: progress %d, want %d", v, got, m.Size())
		}
	}
}

func TestFormatOf(t *testing.T) {
	for target, want := range map[string]Format{
		"a.zip": FormatZip, "A.ZIP": FormatZip, "a.tar": FormatTar, "a.tar.gz": FormatTarGzip, "a.tgz": FormatTarGzip, "a.Tar.Gz": FormatTarGzip,
		"a.tar.zst": FormatTarZstd, "a.tzst": FormatTarZstd, "a": FormatDir, "a.gz": FormatDir, "a.zst": FormatDir, "a.zip.d": FormatDir, "zip": FormatDir,
		filepath.Join("x.zip", "y"): FormatDir, filepath.Join("x", "y.tar"): FormatTar, "": FormatDir, "folder.zip" + string(filepath.Separator): FormatZip,
	} {
		if got := FormatOf(target); got != want {
			t.Errorf("FormatOf(%q) = %s, want %s", target, got, want)
		}
	}
}

func TestUnknown(t *testing.T) {
	s := newSample().file("a", []byte("x"))
	tests := []struct {
		v    variant
		want error
	}{
		{variant{FormatZip, "lzma"}, ErrMethod},
		{variant{FormatTar, MethodStore}, ErrMethod},
		{variant{FormatTarGzip, MethodZstd}, ErrMethod},
		{variant{FormatDir, MethodStore}, ErrMethod},
		{variant{FormatDir, "lzma"}, ErrMethod},
		{variant{"rar", ""}, nil},
		{variant{"", ""}, nil},
	}
	for _, test := range tests {
		dir := t.TempDir()
		_, err := Export(t.Context(), &s.files, s.manifest(t), filepath.Join(dir, "target"), test.v.format, Options{Method: test.v.method})
		if err == nil || test.want != nil && !errors.Is(err, test.want) {
			t.Errorf("Export as %s = %v, want %v", test.v, err, test.want)
		}
		if left := names(t, dir); len(left) > 0 {
			t.Errorf("Export as %s leaves %v", test.v, left)
		}
	}
}

func TestForce(t *testing.T) {
	s := newSample().file("a", []byte("x"))
	m := s.manifest(t)
	for _, v := range archives {
		target := filepath.Join(t.TempDir(), "target")
		if err := os.WriteFile(target, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		s.files.before = func(manifest.Entry) error {
			t.Errorf("%s: files are read, though the target stands", v)
			return nil
		}
		_, err := Export(t.Context(), &s.files, m, target, v.format, Options{Method: v.method})
		if !errors.Is(err, place.ErrExists) || !strings.Contains(err.Error(), "target") {
			t.Errorf("Export as %s over a file = %v, want %v that names it", v, err, place.ErrExists)
		}
		broken := errors.New("broken")
		s.files.before = func(manifest.Entry) error { return broken }
		if _, err := Export(t.Context(), &s.files, m, target, v.format, Options{Method: v.method, Force: true}); !errors.Is(err, broken) {
			t.Errorf("Export as %s = %v, want %v", v, err, broken)
		}
		if got := readFile(t, target); string(got) != "mine" {
			t.Errorf("%s: what stood there is now %q", v, got)
		}
		s.files.before = nil
		if _, err := Export(t.Context(), &s.files, m, target, v.format, Options{Method: v.method, Force: true}); err != nil {
			t.Errorf("Export as %s by force = %v", v, err)
		}
		checkTree(t, target, m)
		if got := names(t, filepath.Dir(target)); !slices.Equal(got, []string{"target"}) {
			t.Errorf("%s: left %v", v, got)
		}
	}
}

// TestForceKeepsFolders never replaces a folder.
func TestForceKeepsFolders(t *testing.T) {
	s := newSample().file("a", []byte("x"))
	for _, v := range append(archives, variant{format: FormatDir}) {
		target := filepath.Join(t.TempDir(), "target")
		if err := errors.Join(os.Mkdir(target, 0o777), os.WriteFile(filepath.Join(target, "f"), nil, 0o666)); err != nil {
			t.Fatal(err)
		}
		if _, err := Export(t.Context(), &s.files, s.manifest(t), target, v.format, Options{Method: v.method, Force: true}); err == nil {
			t.Errorf("Export as %s over a folder = nil, want an error", v)
		}
		if got := names(t, target); !slices.Equal(got, []string{"f"}) {
			t.Errorf("%s: the folder has %v now", v, got)
		}
		if got := names(t, filepath.Dir(target)); !slices.Equal(got, []string{"target"}) {
			t.Errorf("%s: left %v", v, got)
		}
	}
}

// TestTargetAppears has somebody else make the target meanwhile.
func TestTargetAppears(t *testing.T) {
	s := newSample().file("a", []byte("x"))
	for _, v := range archives {
		target := filepath.Join(t.TempDir(), "target")
		s.files.before = func(manifest.Entry) error { return os.WriteFile(target, []byte("mine"), 0o666) }
		_, err := Export(t.Context(), &s.files, s.manifest(t), target, v.format, Options{Method: v.method})
		if !errors.Is(err, place.ErrExists) {
			t.Errorf("Export as %s = %v, want %v", v, err, place.ErrExists)
		}
		if got := readFile(t, target); string(got) != "mine" {
			t.Errorf("%s: what stood there is now %q", v, got)
		}
		if got := names(t, filepath.Dir(target)); !slices.Equal(got, []string{"target"}) {
			t.Errorf("%s: left %v", v, got)
		}
	}
}

func TestNoSuchFolder(t *testing.T) {
	s := newSample().file("a", []byte("x"))
	for _, v := range archives {
		if _, err := Export(t.Context(), &s.files, s.manifest(t), filepath.Join(t.TempDir(), "no", "target"), v.format, Options{Method: v.method}); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("Export as %s to no folder = %v, want %v", v, err, os.ErrNotExist)
		}
	}
}

func TestModeOfArchive(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Log("this system has no modes")
		return
	}
	for _, v := range archives {
		fi, err := os.Stat(mustExport(t, newSample(), v))
		if err != nil || fi.Mode().Perm() != 0o644 {
			t.Errorf("%s has mode %v, %v, want 0644", v, fi.Mode(), err)
		}
	}
}
