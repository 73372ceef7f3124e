package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
)

// names lists a folder.
func names(t *testing.T, dir string) []string {
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

// wantFile fails unless a folder holds one file with that content.
func wantFile(t *testing.T, path, content string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil || string(data) != content {
		t.Errorf("ReadFile(%s) = %q, %v, want %q", filepath.Base(path), data, err, content)
	}
	if got := names(t, filepath.Dir(path)); len(got) != 1 || got[0] != filepath.Base(path) {
		t.Errorf("the folder holds %q, want %q alone", got, filepath.Base(path))
	}
}

func create(t *testing.T, path, content string) *File {
	t.Helper()
	f, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(content); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestCommit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for _, content := range []string{"first", "second"} {
		f := create(t, path, content)
		if err := f.Commit(); err != nil {
			t.Fatal(err)
		}
		f.Abort() // does nothing now
		wantFile(t, path, content)
	}
}

func TestNothingVisibleBeforeCommit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	f := create(t, path, "content")
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat before Commit = %v, want not exist", err)
	}
	for _, name := range names(t, filepath.Dir(path)) {
		if ok, err := filepath.Match(TempPattern, name); !ok || err != nil {
			t.Errorf("temporary name %q does not match %q", name, TempPattern)
		}
	}
	if err := f.CommitNew(); err != nil {
		t.Fatal(err)
	}
	wantFile(t, path, "content")
}

func TestAbort(t *testing.T) {
	dir := t.TempDir()
	f := create(t, filepath.Join(dir, "file"), "content")
	f.Abort()
	f.Abort()
	if got := names(t, dir); len(got) != 0 {
		t.Errorf("after Abort the folder holds %q, want nothing", got)
	}
}

func TestCommitNewOnTakenName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := WriteFile(path, []byte("standing")); err != nil {
		t.Fatal(err)
	}
	f := create(t, path, "late")
	if err := f.CommitNew(); !errors.Is(err, fs.ErrExist) {
		t.Errorf("CommitNew on a taken name = %v, want ErrExist", err)
	}
	f.Abort()
	wantFile(t, path, "standing")
}

func TestCommitNewRace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	const n = 16
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = WriteNew(path, strings.NewReader(strings.Repeat("x", i+1))) })
	}
	wg.Wait()
	winner := -1
	for i, err := range errs {
		switch {
		case err == nil && winner < 0:
			winner = i
		case err == nil:
			t.Errorf("writers %d and %d both won", winner, i)
		case !errors.Is(err, fs.ErrExist):
			t.Errorf("WriteNew = %v, want ErrExist", err)
		}
	}
	wantFile(t, path, strings.Repeat("x", winner+1))
}

func TestWriteFailures(t *testing.T) {
	dir := t.TempDir()
	broken := errors.New("source on fire")
	if err := WriteNew(filepath.Join(dir, "file"), iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("WriteNew(failing reader) = %v, want %v", err, broken)
	}
	if err := WriteFile(filepath.Join(dir, "absent", "file"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("WriteFile in an absent folder = %v, want not exist", err)
	}
	if got := names(t, dir); len(got) != 0 {
		t.Errorf("after failures the folder holds %q, want nothing", got)
	}
	// A commit that fails leaves no temporary file either.
	taken := filepath.Join(dir, "taken")
	if err := os.MkdirAll(filepath.Join(taken, "full"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(taken, []byte("content")); err == nil {
		t.Error("WriteFile over a folder succeeded")
	}
	if got := names(t, dir); len(got) != 1 {
		t.Errorf("after a failed commit the folder holds %q, want only %q", got, "taken")
	}
}

// A file closed behind the package's back is not published.
func TestCommitOfClosedFile(t *testing.T) {
	dir := t.TempDir()
	f := create(t, filepath.Join(dir, "file"), "content")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Commit(); err == nil {
		t.Error("Commit of a closed file succeeded")
	}
	if got := names(t, dir); len(got) != 0 {
		t.Errorf("after a failed Commit the folder holds %q, want nothing", got)
	}
}
