package deb

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

var want = Info{"samba", "2:4.17", "amd64"}

const control = "Package: samba\nArchitecture: amd64\nVersion: 2:4.17\nMaintainer: a <a@b>\nDescription: a\n b\n"

// file returns a package whose control tar is compressed by pack.
func file(t testing.TB, ext string, pack func(w io.Writer) (io.WriteCloser, error)) []byte {
	t.Helper()
	var packed bytes.Buffer
	p, err := pack(&packed)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(p)
	for _, f := range []struct{ name, text string }{{"./md5sums", "x"}, {"./control", control}} {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Size: int64(len(f.text)), Mode: 0o644, Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, f.text)
	}
	if err := errors.Join(w.Close(), p.Close()); err != nil {
		t.Fatal(err)
	}
	b := []byte("!<arch>\n")
	for _, m := range []struct {
		name string
		data []byte
	}{{"debian-binary", []byte("2.0\n")}, {"control.tar" + ext, packed.Bytes()}} {
		b = fmt.Appendf(b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", m.name, 0, 0, 0, "100644", len(m.data))
		b = append(b, m.data...)
		b = append(b, "\n"[:len(m.data)%2]...)
	}
	return b
}

type unpacked struct{ io.Writer }

func (unpacked) Close() error { return nil }

var packers = map[string]func(io.Writer) (io.WriteCloser, error){
	"":     func(w io.Writer) (io.WriteCloser, error) { return unpacked{w}, nil },
	".gz":  func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil },
	".xz":  func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) },
	".zst": func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) },
}

func TestRead(t *testing.T) {
	for ext, pack := range packers {
		data := file(t, ext, pack)
		if got, err := Read(t.Context(), bytes.NewReader(data)); err != nil || got != want {
			t.Errorf("control.tar%s: %+v, %v, want %+v", ext, got, err, want)
		}
		if _, err := Read(t.Context(), bytes.NewReader(data[:len(data)/2])); !errors.Is(err, ErrInvalid) {
			t.Errorf("control.tar%s, cut off: got %v, want %v", ext, err, ErrInvalid)
		}
	}
	for _, data := range []string{"", "!<arch>\n", "!<arch>\n" + strings.Repeat(" ", 60), "PK"} {
		if _, err := Read(t.Context(), strings.NewReader(data)); !errors.Is(err, ErrInvalid) {
			t.Errorf("Read(%q) = %v, want %v", data, err, ErrInvalid)
		}
	}
	broken := &os.PathError{Op: "read", Path: "x", Err: errors.New("broken")}
	if _, err := Read(t.Context(), iotest.ErrReader(broken)); !errors.Is(err, broken) || errors.Is(err, ErrInvalid) {
		t.Errorf("reading fails: got %v", err)
	}
}

// TestTool reads what dpkg-deb makes, with each compression that it knows.
func TestTool(t *testing.T) {
	tool, err := exec.LookPath("dpkg-deb")
	if err != nil {
		t.Skip("no dpkg-deb on this system")
	}
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "a", "DEBIAN"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a", "DEBIAN", "control"), []byte(control), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"none", "gzip", "xz", "zstd"} {
		name := filepath.Join(dir, kind+".deb")
		if out, err := exec.Command(tool, "-Z"+kind, "--root-owner-group", "-b", filepath.Join(dir, "a"), name).CombinedOutput(); err != nil {
			t.Logf("%s: %v: %s", kind, err, out) // older ones know fewer
			continue
		}
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Read(t.Context(), bytes.NewReader(data)); err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", kind, got, err, want)
		}
	}
}

func TestNamed(t *testing.T) {
	for name, want := range map[string]Info{
		"a/kubelet_1.33.0-1.1_amd64.deb": {"kubelet", "1.33.0-1.1", "amd64"},
		"new_1%3a2-3_all.deb":            {"new", "1:2-3", "all"},
		"odd.deb":                        {},
		"a__b.deb":                       {},
		"a_1_all.udeb":                   {},
	} {
		if got, ok := Named(name); got != want || ok != (want.Name != "") {
			t.Errorf("Named(%s) = %+v, %v, want %+v", name, got, ok, want)
		}
	}
}

func FuzzRead(f *testing.F) {
	for ext, pack := range packers {
		f.Add(file(f, ext, pack))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := Read(t.Context(), bytes.NewReader(data)); err != nil && !errors.Is(err, ErrInvalid) {
			t.Fatal(err)
		}
	})
}
