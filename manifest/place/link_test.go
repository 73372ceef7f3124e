package place

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"ferry/manifest"
)

func linkTo(path, target string) manifest.Entry {
	return manifest.Entry{Path: path, Type: manifest.TypeLink, Link: target}
}

// TestLinksComeLast has no link stand while a file is written.
func TestLinksComeLast(t *testing.T) {
	if !haveLinks(t) {
		return
	}
	s := sample{"a/file": "1", "z/file": "2"}
	parent := t.TempDir()
	m := s.manifest(t, linkTo("b", "../outside"), linkTo("a/up", ".."), linkTo("y", "z"))
	target := filepath.Join(parent, "target")
	_, err := Tree(t.Context(), target, m, func(ctx context.Context, e manifest.Entry, w io.Writer) error {
		for _, path := range []string{"b", "a/up", "y"} {
			if _, err := os.Lstat(filepath.Join(StagingDir(target, m), path)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("link %s stands while %s is written: %v", path, e.Path, err)
			}
		}
		return s.fill(ctx, e, w)
	}, Options{})
	if err != nil {
		t.Fatalf("Tree = %v", err)
	}
	check(t, target, m)
	for path, want := range map[string]string{"b": "../outside", "a/up": "..", "y": "z"} {
		if got, err := os.Readlink(filepath.Join(target, path)); err != nil || filepath.ToSlash(got) != want {
			t.Errorf("link %s = %q, %v, want %q", path, got, err, want)
		}
	}
}

func TestSkipLinks(t *testing.T) {
	s := sample{"a": "1"}
	m := s.manifest(t, linkTo("l", "a"), linkTo("dir/m", "../a"))
	target := filepath.Join(t.TempDir(), "target")
	var warned []string
	stats, err := Tree(t.Context(), target, m, s.fill, Options{SkipLinks: true, Warn: func(w manifest.Warning) {
		if !w.Skipped || w.Text == "" {
			t.Errorf("warning %+v, want a text, and skipped", w)
		}
		warned = append(warned, w.Path)
	}})
	if err != nil || stats.Skipped != 2 || stats.Files != 1 {
		t.Errorf("Tree = %+v, %v, want 2 skipped", stats, err)
	}
	if want := []string{"dir/m", "l"}; !slices.Equal(warned, want) {
		t.Errorf("warned of %v, want %v", warned, want)
	}
	check(t, target, s.manifest(t))
	if _, err := Tree(t.Context(), target+"2", m, s.fill, Options{SkipLinks: true}); err != nil {
		t.Errorf("Tree that warns nobody = %v", err)
	}
}

// TestStageOfLinks starts with a staging folder that has links where files go,
// and where nothing goes: they are replaced, and what they lead to stays.
func TestStageOfLinks(t *testing.T) {
	if !haveLinks(t) {
		return
	}
	s := sample{"dir/file": "content", "file": "mine"}
	m := s.manifest(t)
	for name, plant := range map[string]func(stage, outside string) error{
		"file is a link": func(stage, outside string) error {
			return os.Symlink(filepath.Join(outside, "file"), filepath.Join(stage, "file"))
		},
		"link to nothing": func(stage, outside string) error {
			return os.Symlink(filepath.Join(outside, "new"), filepath.Join(stage, "file"))
		},
		"extra is a link": func(stage, outside string) error { return os.Symlink(outside, filepath.Join(stage, "extra")) },
	} {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			outside, target := filepath.Join(parent, "outside"), filepath.Join(parent, "target")
			stage := StagingDir(target, m)
			if err := errors.Join(os.MkdirAll(stage, 0o777), os.Mkdir(outside, 0o777), os.WriteFile(filepath.Join(outside, "file"), []byte("mine"), 0o666)); err != nil {
				t.Fatal(err)
			}
			if err := plant(stage, outside); err != nil {
				t.Fatal(err)
			}
			if _, err := Tree(t.Context(), target, m, s.fill, Options{}); err != nil {
				t.Fatalf("Tree = %v", err)
			}
			check(t, target, m)
			if got, err := os.ReadFile(filepath.Join(outside, "file")); string(got) != "mine" || len(names(t, outside)) != 1 {
				t.Errorf("outside has %v, and %q, %v", names(t, outside), got, err)
			}
		})
	}
}

// TestLinkOfEarlierTry replaces a link that leads elsewhere, and keeps a right one.
func TestLinkOfEarlierTry(t *testing.T) {
	if !haveLinks(t) {
		return
	}
	dir := filepath.Join(t.TempDir(), "stage")
	s, err := OpenStage(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"one", "one", "two", "../three"} {
		if err := s.Link(linkTo("d/l", to)); err != nil {
			t.Fatalf("Link to %s = %v", to, err)
		}
		if got, err := os.Readlink(filepath.Join(dir, "d", "l")); err != nil || filepath.ToSlash(got) != to {
			t.Errorf("link = %q, %v, want %q", got, err, to)
		}
	}
}
