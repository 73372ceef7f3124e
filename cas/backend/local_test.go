package backend

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestLocal(t *testing.T) {
	testBackend(t, func(t *testing.T) func() Backend {
		dir := filepath.Join(t.TempDir(), "not", "yet", "there")
		return func() Backend {
			b := NewLocal(dir)
			t.Cleanup(func() { b.Close() })
			return b
		}
	})
}

// files lists all files under a folder, with their slash-separated paths.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(dir, path)
			names = append(names, filepath.ToSlash(rel))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestLocalLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	b := NewLocal(dir)
	defer b.Close()
	put(t, b, "dir/taken", "x")
	b.Put(t.Context(), "dir/taken", strings.NewReader("x"), 1)
	b.Put(t.Context(), "dir/short", strings.NewReader("x"), 2)
	b.Put(t.Context(), "dir/long", strings.NewReader("xyz"), 2)
	if got, want := files(t, dir), []string{"dir/taken"}; !slices.Equal(got, want) {
		t.Errorf("files after failed puts = %q, want %q", got, want)
	}
}

// The file of a one-off lease goes with it, that of a standing one stays.
func TestLocalLeaseFiles(t *testing.T) {
	dir := t.TempDir()
	b := NewLocal(dir)
	session, prune := lease(t, b, "sessions/1"), lease(t, b, "prune")
	if got, want := files(t, dir), []string{"locks/prune", "locks/sessions/1"}; !slices.Equal(got, want) {
		t.Errorf("files while leases are held = %q, want %q", got, want)
	}
	session()
	prune()
	session() // a second release does nothing
	if got, want := files(t, dir), []string{"locks/prune"}; !slices.Equal(got, want) {
		t.Errorf("files after their release = %q, want %q", got, want)
	}
}

// Leases clears away what died processes left: their files, which nobody locks.
func TestLocalLeasesOfTheDead(t *testing.T) {
	dir := t.TempDir()
	b := NewLocal(dir)
	lease(t, b, "sessions/gone")()
	dead := filepath.Join(dir, "locks", "sessions", "dead")
	if err := os.WriteFile(dead, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	release := lease(t, b, "sessions/alive")
	defer release()
	if got, want := held(t, b), []string{"sessions/alive"}; !slices.Equal(got, want) {
		t.Errorf("Leases = %q, want %q", got, want)
	}
	if _, err := os.Stat(dead); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat(lease of a dead process) = %v, want not exist", err)
	}
}

func TestLocalTemporaryFiles(t *testing.T) {
	dir := t.TempDir()
	b := NewLocal(dir)
	if freed, err := NewLocal(filepath.Join(dir, "absent")).RemoveTemp(t.Context(), func(Info) bool { return true }); freed != 0 || err != nil {
		t.Errorf("RemoveTemp of an absent place = %d, %v, want 0", freed, err)
	}
	put(t, b, "packs/ab/object", "x")
	put(t, b, "packs/object", "y")
	young, old := filepath.Join(dir, "packs", "ab", ".ferry-tmp-1"), filepath.Join(dir, "packs", ".ferry-tmp-2")
	for _, path := range []string{young, old} {
		if err := os.WriteFile(path, []byte("12345"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	begun := time.Now().Add(-time.Minute)
	if err := os.Chtimes(old, time.Time{}, begun.Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	if got, want := list(t, b, ""), []string{"packs/ab/object", "packs/object"}; !slices.Equal(got, want) {
		t.Errorf("List = %q, want %q without temporary files", got, want)
	}
	for _, want := range []int64{5, 0} {
		freed, err := b.RemoveTemp(t.Context(), func(info Info) bool { return info.Created.Before(begun) })
		if freed != want || err != nil {
			t.Errorf("RemoveTemp = %d, %v, want %d", freed, err, want)
		}
	}
	if got, want := files(t, dir), []string{"packs/ab/.ferry-tmp-1", "packs/ab/object", "packs/object"}; !slices.Equal(got, want) {
		t.Errorf("files = %q, want %q", got, want)
	}
}

// A closed Local can go on: Close only gives files back.
func TestLocalClose(t *testing.T) {
	b := NewLocal(t.TempDir())
	put(t, b, "object", "x")
	p := make([]byte, 1)
	for range 2 {
		if err := b.ReadAt(t.Context(), "object", p, 0); err != nil {
			t.Fatal(err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
