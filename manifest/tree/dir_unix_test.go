//go:build !windows

package tree

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestDirSpecial(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o666); err != nil {
		t.Fatal(err)
	}
	tr, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	if got := mustWalk(t, tr); len(got) != 1 || got["pipe"].Kind != Special {
		t.Errorf("walk = %v, want a special file", got)
	}
	if tr, err := Open(pipe, Options{}); err == nil {
		t.Errorf("Open of a pipe = %v, nil, want an error", tr)
	}
}

// TestDirRefusesNames has names that Unix allows, and that can stand in no package.
func TestDirRefusesNames(t *testing.T) {
	for _, name := range []string{`a\b`, "gr\xfc\xdf", "C:x"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o666); err != nil {
			t.Logf("the file system has no name %q: %v", name, err)
			continue
		}
		tr, err := Open(dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		all, err := walk(t, tr)
		var unsafe *UnsafePathError
		if len(all) > 0 || !errors.As(err, &unsafe) || unsafe.Path != name {
			t.Errorf("walk = %v, %v, want an UnsafePathError of %q", all, err, name)
		}
		tr.Close()
	}
}
