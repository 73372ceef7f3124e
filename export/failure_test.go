package export

import (
	"context"
	"errors"
	"path/filepath"
	"runtime"
	"testing"

	"ferry/manifest"
)

// manyFiles has small and large files by turns, so that exports are busy.
func manyFiles() *sample {
	s := newSample()
	large := append(make([]byte, zipSmall), text(deflateBlock+100)...)
	for i := range 12 {
		name := "dir/" + string(rune('a'+i))
		s.file(name+"-1 small", seeded(byte(i), 50_000)).file(name+"-2 medium", large[len(large)-300_000-i:])
		if i%4 == 1 {
			s.file(name+"-3 large", large[i:])
		}
	}
	return s
}

// TestFailsMidway fails at several files, before and within them: no file is
// left, and no goroutine.
func TestFailsMidway(t *testing.T) {
	s := manyFiles()
	m := s.manifest(t)
	broken := errors.New("broken")
	for _, v := range append(archives, variant{format: FormatDir}) {
		for _, bad := range []string{"dir/a-1 small", "dir/b-3 large", "dir/f-3 large", "dir/l-2 medium"} {
			for _, midway := range []bool{false, true} {
				dir := t.TempDir()
				before := runtime.NumGoroutine()
				fail := func(e manifest.Entry) error {
					if e.Path == bad {
						return broken
					}
					return nil
				}
				files := &memFiles{contents: s.files.contents, before: fail}
				if midway {
					files = &memFiles{contents: s.files.contents, midway: fail}
				}
				if _, err := Export(t.Context(), files, m, filepath.Join(dir, "target"), v.format, Options{Method: v.method}); !errors.Is(err, broken) {
					t.Errorf("Export as %s that fails at %s = %v, want %v", v, bad, err, broken)
				}
				if left := names(t, dir); len(left) > 0 {
					t.Errorf("Export as %s that fails at %s leaves %v", v, bad, left)
				}
				goroutinesSettle(t, before)
			}
		}
	}
}

func TestCancelled(t *testing.T) {
	s := manyFiles()
	m := s.manifest(t)
	for _, v := range append(archives, variant{format: FormatDir}) {
		for _, at := range []string{"", "dir/a-1 small", "dir/b-3 large", "dir/l-2 medium"} {
			dir := t.TempDir()
			before := runtime.NumGoroutine()
			ctx, cancel := context.WithCancel(t.Context())
			if at == "" {
				cancel()
			}
			files := &memFiles{contents: s.files.contents, midway: func(e manifest.Entry) error {
				if e.Path == at {
					cancel()
				}
				return nil
			}}
			_, err := Export(ctx, files, m, filepath.Join(dir, "target"), v.format, Options{Method: v.method})
			cancel()
			if !errors.Is(err, context.Canceled) {
				t.Errorf("Export as %s, cancelled at %q = %v, want %v", v, at, err, context.Canceled)
			}
			for _, left := range names(t, dir) {
				if v.format != FormatDir || left == "target" { // a directory leaves its staging folder
					t.Errorf("Export as %s, cancelled at %q, leaves %s", v, at, left)
				}
			}
			goroutinesSettle(t, before)
		}
	}
}
