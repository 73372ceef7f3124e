package place

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"ferry/manifest"
)

// resumable has enough files that an interruption falls between them.
func resumable() sample {
	s := sample{}
	for i := range 20 {
		s[fmt.Sprintf("dir%d/file%02d", i%3, i)] = strings.Repeat(fmt.Sprint(i, " "), 1000)
	}
	return s
}

// interrupt cancels Tree when n files were asked for, and returns the staging
// folder.
func interrupt(t *testing.T, s sample, target string, n int) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	asked := 0
	_, err := Tree(ctx, target, s.manifest(t), func(ctx context.Context, e manifest.Entry, w io.Writer) error {
		mu.Lock()
		asked++
		if asked >= n {
			cancel()
		}
		mu.Unlock()
		return s.fill(ctx, e, w)
	}, Options{})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("Tree = %v, want %v", err, context.Canceled)
	}
	if _, err := os.Lstat(target); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("interrupted, the target is there: %v", err)
	}
	stage := StagingDir(target, s.manifest(t))
	if got := names(t, filepath.Dir(target)); !slices.Equal(got, []string{filepath.Base(stage)}) {
		t.Fatalf("interrupted, Tree leaves %v, want %s", got, filepath.Base(stage))
	}
	return stage
}

// files lists the files of a folder.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var paths []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func TestResume(t *testing.T) {
	s := resumable()
	m := s.manifest(t)
	change := func(path string, fn func([]byte) []byte) error {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(path, fn(data), 0o666)
	}
	tests := []struct {
		name   string
		damage func(stage string, done []string) error
		redone int // files that stood, and must be made again
	}{
		{"as it was", func(string, []string) error { return nil }, 0},
		{"byte flipped", func(_ string, done []string) error {
			return change(done[0], func(b []byte) []byte { b[10] ^= 1; return b })
		}, 1},
		{"cut off", func(_ string, done []string) error { return os.Truncate(done[1], 10) }, 1},
		{"longer", func(_ string, done []string) error {
			return change(done[1], func(b []byte) []byte { return append(b, 1) })
		}, 1},
		{"removed", func(_ string, done []string) error { return os.Remove(done[2]) }, 1},
		{"folder in its place", func(_ string, done []string) error {
			return errors.Join(os.Remove(done[0]), os.MkdirAll(filepath.Join(done[0], "x", "y"), 0o777))
		}, 1},
		{"other time", func(_ string, done []string) error { return change(done[0], func(b []byte) []byte { return b }) }, 0},
		{"files too many", func(stage string, _ []string) error {
			return errors.Join(os.MkdirAll(filepath.Join(stage, "extra", "sub"), 0o777), os.WriteFile(filepath.Join(stage, "extra", "sub", "f"), nil, 0o666),
				os.WriteFile(filepath.Join(stage, "dir0", "extra"), nil, 0o666), os.WriteFile(filepath.Join(stage, ".ferry-tmp-0123"), nil, 0o666),
				os.WriteFile(filepath.Join(stage, "dir1", ".ferry-tmp-4567"), nil, 0o666), os.Mkdir(filepath.Join(stage, ".empty"), 0o777))
		}, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			parent := t.TempDir()
			target := filepath.Join(parent, "target")
			stage := interrupt(t, s, target, 8)
			done := files(t, stage)
			if len(done) < 3 {
				t.Fatalf("%d files are done, want several", len(done))
			}
			if err := test.damage(stage, done); err != nil {
				t.Fatal(err)
			}
			var mu sync.Mutex
			made := 0
			stats, err := Tree(t.Context(), target, m, func(ctx context.Context, e manifest.Entry, w io.Writer) error {
				mu.Lock()
				made++
				mu.Unlock()
				return s.fill(ctx, e, w)
			}, Options{})
			if err != nil {
				t.Fatalf("Tree = %v", err)
			}
			stood := len(done) - test.redone
			if want := (Stats{Files: len(s), Size: m.Size(), Resumed: stood}); stats != want || made != len(s)-stood {
				t.Errorf("Tree = %+v, %d files made, want %+v", stats, made, want)
			}
			check(t, target, m)
			for _, path := range files(t, target) {
				if fi, err := os.Stat(path); err != nil || fi.ModTime().Unix() != testTime {
					t.Errorf("%s has time %v, %v", path, fi.ModTime(), err)
				}
			}
			if got := names(t, parent); !slices.Equal(got, []string{"target"}) {
				t.Errorf("left %v, want the target alone", got)
			}
		})
	}
}

// TestResumeOfOtherWork leaves the staging folders of other targets and other
// manifests alone.
func TestResumeOfOtherWork(t *testing.T) {
	s := resumable()
	parent := t.TempDir()
	target := filepath.Join(parent, "target")
	stage := interrupt(t, s, target, 8)
	other := sample{"a": "x"}
	stats, err := Tree(t.Context(), target, other.manifest(t), other.fill, Options{})
	if err != nil || stats.Resumed != 0 {
		t.Fatalf("Tree = %+v, %v, want nothing resumed", stats, err)
	}
	check(t, target, other.manifest(t))
	stats, err = Tree(t.Context(), filepath.Join(parent, "second"), s.manifest(t), s.fill, Options{})
	if err != nil || stats.Resumed != 0 {
		t.Fatalf("Tree = %+v, %v, want nothing resumed", stats, err)
	}
	if len(files(t, stage)) < 3 {
		t.Errorf("the staging folder of other work has lost its files")
	}
}

// TestResumeFails removes what stands of an earlier try when the second fails
// for good.
func TestResumeFails(t *testing.T) {
	s := resumable()
	parent := t.TempDir()
	target := filepath.Join(parent, "target")
	interrupt(t, s, target, 8)
	broken := errors.New("broken")
	_, err := Tree(t.Context(), target, s.manifest(t), func(context.Context, manifest.Entry, io.Writer) error { return broken }, Options{})
	if !errors.Is(err, broken) {
		t.Errorf("Tree = %v, want %v", err, broken)
	}
	if got := names(t, parent); len(got) > 0 {
		t.Errorf("left %v, want nothing", got)
	}
}

func TestCancelledFromTheStart(t *testing.T) {
	s := resumable()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	parent := t.TempDir()
	stats, err := Tree(ctx, filepath.Join(parent, "target"), s.manifest(t), s.fill, Options{})
	if !errors.Is(err, context.Canceled) || stats.Files == len(s) {
		t.Errorf("Tree = %+v, %v, want %v", stats, err, context.Canceled)
	}
	if slices.Contains(names(t, parent), "target") {
		t.Errorf("left %v, want no target", names(t, parent))
	}
}

// TestCancelledWhileWriting cancels within a file that is being written.
func TestCancelledWhileWriting(t *testing.T) {
	s := sample{"a": strings.Repeat("x", 1<<20)}
	ctx, cancel := context.WithCancel(t.Context())
	parent := t.TempDir()
	_, err := Tree(ctx, filepath.Join(parent, "target"), s.manifest(t), func(_ context.Context, e manifest.Entry, w io.Writer) error {
		for i := range 16 {
			if _, err := io.WriteString(w, s["a"][i<<16:(i+1)<<16]); err != nil {
				return err
			}
			cancel()
		}
		t.Error("a cancelled write goes on")
		return nil
	}, Options{})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Tree = %v, want %v", err, context.Canceled)
	}
}
