package tree

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"

	"archive/tar"
)

// readLimit bounds what a fuzz test reads of one file: some are huge on purpose.
const readLimit = 1 << 20

func FuzzOpenZip(f *testing.F) {
	f.Add(buildZip())
	f.Add(buildZip(zipEntry{name: "a", data: seeded(1, 100), method: 8}, zipEntry{name: `dir\`}, zipEntry{name: "gr\x81", extra: unicodePathExtra("gr\x81", "\u00fc")}))
	f.Add(buildZip(zipEntry{name: "l", data: []byte("to"), creator: unixCreator, attrs: unixAttrs(0o120777)}, zipEntry{name: "z", data: seeded(2, 50), method: methodZstd, descriptor: true, zip64: true}))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if _, err := file.Write(data); err != nil {
			t.Fatal(err)
		}
		tr, err := openZip(file, int64(len(data)))
		if err != nil {
			var unsafe *UnsafePathError
			if tr != nil || !errors.Is(err, ErrFormat) && !errors.As(err, &unsafe) {
				t.Fatalf("openZip = %v, %v, want nil and an error of its own", tr, err)
			}
			return
		}
		err = tr.Walk(t.Context(), func(n Node, open func() (io.ReadCloser, error)) error {
			if err := CheckPath(n.Path); err != nil {
				t.Fatalf("Walk gives a path that is not canonical: %v", err)
			}
			if n.Kind != File {
				return nil
			}
			fuzzRead(t, open, n.Size)
			fuzzRead(t, func() (io.ReadCloser, error) { return tr.Open(t.Context(), n.Path) }, n.Size)
			return nil
		})
		if err != nil {
			t.Fatalf("Walk = %v", err)
		}
	})
}

// fuzzRead reads a file: as many bytes as were declared come, or an error.
func fuzzRead(t *testing.T, open func() (io.ReadCloser, error), size int64) {
	r, err := open()
	if err == nil {
		defer r.Close()
		var n int64
		n, err = io.Copy(io.Discard, io.LimitReader(r, readLimit))
		if err == nil && n != min(size, readLimit) {
			t.Fatalf("read %d bytes of a file of %d, and no error", n, size)
		}
	}
	if err != nil && !errors.Is(err, ErrFormat) {
		t.Fatalf("read: %v, want %v", err, ErrFormat)
	}
}

func FuzzWalkTar(f *testing.F) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeDir, Name: "./d/"}, {Typeflag: tar.TypeReg, Name: "./d/f", Size: 3}, {Typeflag: tar.TypeLink, Name: "h", Linkname: "d/f"},
		{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "../x"}, {Typeflag: tar.TypeReg, Name: "gr\u00fc\u00df", Format: tar.FormatPAX},
	} {
		if err := w.WriteHeader(&h); err != nil {
			f.Fatal(err)
		}
		if h.Size > 0 {
			w.Write([]byte("abc"))
		}
	}
	w.Close()
	f.Add(b.Bytes())
	f.Add(oldGNUSparse(sparseContent()))
	f.Fuzz(func(t *testing.T, data []byte) {
		err := walkTar(t.Context(), bytes.NewReader(data), func(n Node, h *tar.Header, content io.Reader) error {
			if err := CheckPath(n.Path); err != nil {
				t.Fatalf("walkTar gives a path that is not canonical: %v", err)
			}
			if n.Size < 0 {
				t.Fatalf("walkTar gives size %d", n.Size)
			}
			if _, err := io.Copy(io.Discard, io.LimitReader(content, readLimit)); err != nil {
				return ErrFormat
			}
			return nil
		})
		var unsafe *UnsafePathError
		if err != nil && !errors.Is(err, ErrFormat) && !errors.As(err, &unsafe) {
			t.Fatalf("walkTar = %v, want an error of its own", err)
		}
	})
}
