package place

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ferry/manifest"
)

func TestTreeRefusesTarget(t *testing.T) {
	s := sample{"a": "x"}
	for name, make := range map[string]func(target string) error{
		"folder with a file": func(target string) error {
			return errors.Join(os.Mkdir(target, 0o777), os.WriteFile(target+"/f", nil, 0o666))
		},
		"folder with a folder": func(target string) error { return os.MkdirAll(target+"/d", 0o777) },
		"file":                 func(target string) error { return os.WriteFile(target, nil, 0o666) },
	} {
		parent := t.TempDir()
		target := filepath.Join(parent, "target")
		if err := make(target); err != nil {
			t.Fatal(err)
		}
		before, err := os.Stat(target)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Tree(t.Context(), target, s.manifest(t), func(context.Context, manifest.Entry, io.Writer) error {
			t.Errorf("%s: something is written", name)
			return nil
		}, Options{})
		if !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), "target") {
			t.Errorf("%s: Tree = %v, want %v that names it", name, err, ErrExists)
		}
		after, err := os.Stat(target)
		if err != nil || after.ModTime() != before.ModTime() || !slices.Equal(names(t, parent), []string{"target"}) {
			t.Errorf("%s: Tree changed something: %v, %v", name, names(t, parent), err)
		}
	}
}

// TestTargetAppears has somebody else make the target meanwhile: what he made stays.
func TestTargetAppears(t *testing.T) {
	s := sample{"a": "x"}
	for name, appear := range map[string]func(target string) error{
		"file": func(target string) error { return os.WriteFile(target, []byte("mine"), 0o666) },
		"folder with a file": func(target string) error {
			return errors.Join(os.Mkdir(target, 0o777), os.WriteFile(target+"/f", []byte("mine"), 0o666))
		},
	} {
		parent := t.TempDir()
		target := filepath.Join(parent, "target")
		_, err := Tree(t.Context(), target, s.manifest(t), func(ctx context.Context, e manifest.Entry, w io.Writer) error {
			return errors.Join(appear(target), s.fill(ctx, e, w))
		}, Options{})
		if err == nil {
			t.Errorf("%s: Tree = nil, want an error", name)
		}
		file := target
		if name != "file" {
			file = filepath.Join(target, "f")
		}
		if got, err := os.ReadFile(file); string(got) != "mine" {
			t.Errorf("%s: what stood there is now %q, %v", name, got, err)
		}
		if got := names(t, parent); !slices.Equal(got, []string{"target"}) {
			t.Errorf("%s: left %v", name, got)
		}
	}
}

// TestTargetIsLink places into the empty folder that a link leads to.
func TestTargetIsLink(t *testing.T) {
	if !haveLinks(t) {
		return
	}
	s := sample{"a": "x"}
	parent := t.TempDir()
	link, real := filepath.Join(parent, "link"), filepath.Join(parent, "disk", "real")
	if err := errors.Join(os.MkdirAll(real, 0o777), os.Symlink(filepath.Join("disk", "real"), link)); err != nil {
		t.Fatal(err)
	}
	if _, err := Tree(t.Context(), link, s.manifest(t), s.fill, Options{}); err != nil {
		t.Fatalf("Tree = %v", err)
	}
	check(t, real, s.manifest(t))
	if fi, err := os.Lstat(link); err != nil || fi.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link became %v, %v", fi.Mode(), err)
	}
}
