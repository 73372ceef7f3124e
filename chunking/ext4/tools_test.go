package ext4

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tool runs a tool of e2fsprogs and returns what it prints.
func tool(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var exit *exec.ExitError
	if name == "e2fsck" && errors.As(err, &exit) && exit.ExitCode() == 1 {
		err = nil // it changed something
	}
	if err != nil {
		err = fmt.Errorf("%s %v: %w\n%s%s", name, args, err, out, stderr.Bytes())
	}
	return string(out), err
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := tool(name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func needTools(t testing.TB) {
	t.Helper()
	for _, name := range []string{"mke2fs", "e2fsck", "debugfs", "dumpe2fs"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not on PATH (package e2fsprogs)", name)
		}
	}
}

// mkfs makes an image with the files of a folder, if there is one.
func mkfs(t testing.TB, dir, size string, args ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	args = append([]string{"-q", "-F"}, args...)
	if dir != "" {
		args = append(args, "-d", dir)
	}
	_, err := tool("mke2fs", append(args, path, size)...)
	switch {
	case err == nil:
	case strings.Contains(err.Error(), "Invalid filesystem option"):
		t.Skip(err) // it is older than the feature
	default:
		t.Fatal(err)
	}
	return path
}

// openFile opens an image for the time of the test.
func openFile(t testing.TB, path string) *FS {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	fs, err := Open(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// source makes a folder with files of all kinds, and a directory with many.
func source(t testing.TB, many int) string {
	t.Helper()
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	write := func(name string, data []byte) {
		t.Helper()
		path := filepath.Join(dir, name)
		must(os.MkdirAll(filepath.Dir(path), 0o755))
		must(os.WriteFile(path, data, 0o644))
	}
	for _, n := range []int{0, 1, 59, 60, 61, 100, 150, 1023, 4096, 4097, 70 << 10, 3 << 20} {
		write(fmt.Sprintf("sizes/%d", n), noise(byte(n), n))
	}
	for i := range many {
		write(fmt.Sprintf("many/file with number %d", i), fmt.Appendf(nil, "contents of %d\n", i))
	}
	write(strings.Repeat("a deep path/", 20)+"file", []byte("deep"))
	write("names/\xff\xfe is no UTF-8", nil)
	write("names/"+strings.Repeat("n", 255), nil)
	write("names/..dots", nil)
	must(os.MkdirAll(filepath.Join(dir, "nothing"), 0o700))
	must(os.Chmod(filepath.Join(dir, "sizes/59"), 0o640))
	must(os.Link(filepath.Join(dir, "sizes/4097"), filepath.Join(dir, "hard link")))
	for _, n := range []int{1, 59, 60, 61, 500} {
		must(os.Symlink(strings.Repeat("l", n), filepath.Join(dir, fmt.Sprintf("link %d", n))))
	}
	write("fragments", nil)
	f, err := os.OpenFile(filepath.Join(dir, "fragments"), os.O_WRONLY, 0)
	must(err)
	for i := range int64(1000) {
		_, err := f.WriteAt(noise(byte(i), 4096), i*8192)
		must(err)
	}
	must(f.Close())
	write("hole", []byte("start"))
	f, err = os.OpenFile(filepath.Join(dir, "hole"), os.O_WRONLY, 0)
	must(err)
	_, err = f.WriteAt([]byte("end"), 100<<20)
	must(err)
	must(f.Close())
	must(os.Chtimes(filepath.Join(dir, "sizes/60"), time.Time{}, time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)))
	must(os.Chtimes(filepath.Join(dir, "sizes/61"), time.Time{}, time.Date(1960, 2, 3, 4, 5, 6, 0, time.UTC)))
	return dir
}
