package tree

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"
)

func TestSpool(t *testing.T) {
	dir := t.TempDir()
	for _, env := range []string{"TMPDIR", "TMP", "TEMP"} {
		t.Setenv(env, dir)
	}
	tests := []struct {
		name       string
		size, says int
		file       bool
	}{
		{"nothing", 0, 0, false},
		{"small", 1000, 1000, false},
		{"small, said to be larger", 1000, spoolInMemory, false},
		{"largest in memory", spoolInMemory, spoolInMemory, false},
		{"one more", spoolInMemory + 1, spoolInMemory + 1, true},
		{"large, said to be small", spoolInMemory + 1, 10, true},
		{"small, said to be large", 1000, spoolInMemory + 1, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			data := seeded(1, test.size)
			c, err := Spool(iotest.HalfReader(bytes.NewReader(data)), int64(test.says))
			if err != nil {
				t.Fatal(err)
			}
			if files := tempFiles(t, dir); (files == 1) != test.file {
				t.Errorf("%d temporary files, want one: %t", files, test.file)
			}
			got, err := io.ReadAll(io.NewSectionReader(c, 0, c.Size()))
			if err != nil || c.Size() != int64(test.size) || !bytes.Equal(got, data) {
				t.Errorf("Spool has %d of %d bytes, %v, want %d", len(got), c.Size(), err, test.size)
			}
			if err := c.Close(); err != nil {
				t.Errorf("Close = %v", err)
			}
			if files := tempFiles(t, dir); files != 0 {
				t.Errorf("%d temporary files are left", files)
			}
		})
	}
	broken := errors.New("broken")
	for _, n := range []int{0, 1000, spoolInMemory + 1000} {
		for _, says := range []int64{0, spoolInMemory + 1} {
			c, err := Spool(io.MultiReader(bytes.NewReader(seeded(1, n)), iotest.ErrReader(broken)), says)
			if c != nil || !errors.Is(err, broken) {
				t.Errorf("Spool of a reader that fails = %v, %v, want %v", c, err, broken)
			}
			if files := tempFiles(t, dir); files != 0 {
				t.Errorf("%d temporary files are left", files)
			}
		}
	}
}

func tempFiles(t *testing.T, dir string) int {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, ".ferry-tmp-*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// TestPackedTarSpools reads a compressed tar out of order: one temporary file
// serves all reads, and goes with the tree.
func TestPackedTarSpools(t *testing.T) {
	temp := t.TempDir()
	data := gzipOf(t, tarOf(t, tarFile("a", "first"), tarFile("b", string(seeded(1, 100_000)))))
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, data, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, env := range []string{"TMPDIR", "TMP", "TEMP"} {
		t.Setenv(env, temp)
	}
	tr, err := Open(name, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := walk(t, tr); err != nil {
		t.Fatal(err)
	}
	if n := tempFiles(t, temp); n != 0 {
		t.Errorf("a walk made %d temporary files, want none", n)
	}
	for range 3 {
		checkOpen(t, tr, "b", seeded(1, 100_000))
		checkOpen(t, tr, "a", []byte("first"))
	}
	if n := tempFiles(t, temp); n != 1 {
		t.Errorf("%d temporary files, want 1", n)
	}
	tr.Close()
	if n := tempFiles(t, temp); n != 0 {
		t.Errorf("%d temporary files are left", n)
	}
}
