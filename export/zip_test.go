package export

import (
	"archive/zip"
	"bytes"
	"context"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"

	"ferry/cas"
	"ferry/manifest"
)

// openZip reads a zip with archive/zip and its own deflate.
func openZip(t testing.TB, path string) *zip.ReadCloser {
	t.Helper()
	r, err := zip.OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	r.RegisterDecompressor(methodZstd, zstd.ZipDecompressor())
	return r
}

// TestZipByGo reads the zip with archive/zip, which checks sizes and CRCs.
func TestZipByGo(t *testing.T) {
	s := fixedSample().link("link", "text")
	for _, method := range []Method{MethodDeflate, MethodStore, MethodZstd} {
		r := openZip(t, mustExport(t, s, variant{FormatZip, method}))
		m := s.manifest(t)
		if len(r.File) != len(m.Entries) {
			t.Errorf("%s: %d entries, want %d", method, len(r.File), len(m.Entries))
		}
		for i, e := range m.Entries {
			checkEntry(t, r.File[i], e, s.files.contents[e.Digest], method)
		}
	}
}

func checkEntry(t *testing.T, f *zip.File, e manifest.Entry, want []byte, method Method) {
	t.Helper()
	name := e.Path
	switch e.Type {
	case manifest.TypeDir:
		name += "/"
	case manifest.TypeLink:
		want = []byte(e.Link)
	}
	if f.Name != name || f.NonUTF8 {
		t.Errorf("%s: entry is called %q", e.Path, f.Name)
	}
	rc, err := f.Open()
	if err != nil {
		t.Errorf("%s: %v", e.Path, err)
		return
	}
	defer rc.Close()
	if got, err := io.ReadAll(rc); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: %d other bytes, %v, want %d", e.Path, len(got), err, len(want))
	}
	mode := map[manifest.Type]os.FileMode{manifest.TypeFile: 0o644, manifest.TypeDir: os.ModeDir | 0o755, manifest.TypeLink: os.ModeSymlink | 0o777}[e.Type]
	if e.Exec {
		mode = 0o755
	}
	if f.Mode() != mode {
		t.Errorf("%s: mode %v, want %v", e.Path, f.Mode(), mode)
	}
	switch {
	case e.Type != manifest.TypeFile || e.Size == 0 || method == MethodStore:
		if f.Method != zip.Store {
			t.Errorf("%s: method %d, want it stored", e.Path, f.Method)
		}
	case e.Path == "random" && f.Method != zip.Store:
		t.Errorf("%s: method %d, want it stored, for it does not compress", e.Path, f.Method)
	case e.Path == "text" && f.Method == zip.Store:
		t.Errorf("%s: stored, want it compressed", e.Path)
	}
	if descriptor := f.Flags&flagDescriptor != 0; descriptor != (e.Size > zipSmall) {
		t.Errorf("%s of %d bytes: data descriptor %t", e.Path, e.Size, descriptor)
	}
}

// TestTimes has times that DOS cannot tell, and some that nothing in a zip can.
func TestTimes(t *testing.T) {
	tests := []struct {
		name string
		time int64
		zip  int64
	}{
		{"year 1", -62135596799, dosEpoch},
		{"1969", -1, dosEpoch},
		{"1970", 0, 0},
		{"1979", dosEpoch - 1, dosEpoch - 1},
		{"1980", dosEpoch, dosEpoch},
		{"odd second", 1_700_000_001, 1_700_000_001},
		{"last of 32 bits", maxTimestamp, maxTimestamp},
		{"one more", maxTimestamp + 1, maxTimestamp + 1},
		{"odd second of 2040", 2_208_988_801, 2_208_988_800},
		{"last of DOS", dosEnd, dosEnd},
		{"2108", dosEnd + 2, dosEnd},
		{"9999", 253402300799, dosEnd},
	}
	s := newSample()
	for _, test := range tests {
		s.fileAt(test.name, []byte("x"), test.time)
	}
	r := openZip(t, mustExport(t, s, variant{FormatZip, MethodDeflate}))
	for _, test := range tests {
		for _, f := range r.File {
			if f.Name == test.name && f.Modified.Unix() != test.zip {
				t.Errorf("%s: the zip has time %v, want %v", test.name, f.Modified.UTC(), time.Unix(test.zip, 0).UTC())
			}
		}
	}
	checkTree(t, mustExport(t, s, variant{FormatTar, ""}), s.manifest(t)) // a tar can tell all
	for _, end := range []struct {
		seconds int64
		want    time.Time
	}{{dosEpoch, time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)}, {dosEnd, time.Date(2107, 12, 31, 23, 59, 58, 0, time.UTC)}} {
		if got := time.Unix(end.seconds, 0).UTC(); !got.Equal(end.want) {
			t.Errorf("an end of DOS time is %v, want %v", got, end.want)
		}
	}
}

// raceDetector says that the tests run with it, many times slower.
var raceDetector = false

// TestZip64 exports a file of more than 4 GiB, all zeros.
func TestZip64(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Log("left out of short runs and of the race detector's: it compresses 4 GiB")
		return
	}
	const size = 1<<32 + 12345
	piece := make([]byte, 1<<20)
	zeros := writeTo(func(ctx context.Context, w io.Writer, e manifest.Entry) error {
		for left := e.Size; left > 0; {
			n, err := w.Write(piece[:min(left, int64(len(piece)))])
			if err != nil {
				return err
			}
			left -= int64(n)
		}
		return nil
	})
	m, err := manifest.New([]manifest.Entry{
		{Path: "huge", Type: manifest.TypeFile, Size: size, Digest: cas.Sum([]byte("huge"))},
		{Path: "small", Type: manifest.TypeFile, Size: 100, Digest: cas.Sum([]byte("small"))},
	})
	if err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(t.TempDir(), "huge.zip")
	if _, err := Export(t.Context(), zeros, m, target, FormatZip, Options{}); err != nil {
		t.Fatalf("Export = %v", err)
	}
	r := openZip(t, target)
	r.RegisterDecompressor(zip.Deflate, flate.NewReader) // as right as Go's, and faster
	for i, e := range m.Entries {
		if f := r.File[i]; f.Name != e.Path || f.UncompressedSize64 != uint64(e.Size) {
			t.Errorf("entry %d is %s of %d bytes, want %s of %d", i, f.Name, f.UncompressedSize64, e.Path, e.Size)
		}
	}
	if got := r.File[0].CRC32; got != crcOfZeros(size) {
		t.Errorf("CRC %08x, want %08x", got, crcOfZeros(size))
	}
	for i := range m.Entries {
		rc, err := r.File[i].Open()
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, rc); err != nil || n != m.Entries[i].Size {
			t.Errorf("entry %d gives %d bytes, %v, want %d", i, n, err, m.Entries[i].Size)
		}
		rc.Close()
	}
}

func crcOfZeros(n int64) uint32 {
	crc := crc32.NewIEEE()
	piece := make([]byte, 1<<20)
	for ; n > 0; n -= int64(len(piece)) {
		crc.Write(piece[:min(n, int64(len(piece)))])
	}
	return crc.Sum32()
}
