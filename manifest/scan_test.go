package manifest

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"ferry/manifest/tree"
)

func TestScanIsLikeAdd(t *testing.T) {
	nodes := sampleTree(t)
	a, _ := newArchive(t, testParams())
	want, added := mustAdd(t, a, &memTree{nodes: nodes})
	for format, name := range everyFormat(t, nodes) {
		t.Run(format, func(t *testing.T) {
			s, err := ScanTree(t.Context(), openTree(t, name), testParams(), AddOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if s.Manifest.ID() != want.ID() {
				t.Errorf("manifest:\n%swant\n%s", s.Manifest.Encode(), want.Encode())
			}
			if s.Stats.Files != added.Files || s.Stats.Size != added.Size || s.Stats.Skipped != 0 {
				t.Errorf("stats = %+v, want %+v", s.Stats, added)
			}
			for _, n := range nodes {
				if n.Kind == tree.File {
					checkScanned(t, s, a, n)
				}
			}
		})
	}
}

// checkScanned compares a file of a scan with that of an archive.
func checkScanned(t *testing.T, s *Scan, a *Archive, n node) {
	t.Helper()
	e, ok := s.Manifest.Find(n.Path)
	if !ok {
		t.Errorf("manifest lacks %s", n.Path)
		return
	}
	got, err := s.Chunks(t.Context(), e)
	want, wantErr := a.Chunks(t.Context(), e)
	if err != nil || wantErr != nil || !slices.Equal(got, want) {
		t.Errorf("Chunks(%s) = %v, %v, want %v, %v", e.Path, got, err, want, wantErr)
	}
	var written bytes.Buffer
	if err := s.WriteFile(t.Context(), &written, e); err != nil || !bytes.Equal(written.Bytes(), n.data) {
		t.Errorf("WriteFile(%s) = %d bytes, %v, want %d", e.Path, written.Len(), err, len(n.data))
	}
	r, err := s.Open(t.Context(), e)
	if err != nil {
		t.Errorf("Open(%s) = %v", e.Path, err)
		return
	}
	defer r.Close()
	if read, err := io.ReadAll(r); err != nil || !bytes.Equal(read, n.data) {
		t.Errorf("Open(%s) = %d bytes, %v, want %d", e.Path, len(read), err, len(n.data))
	}
	c, err := s.OpenAt(t.Context(), e)
	if err != nil {
		t.Errorf("OpenAt(%s) = %v", e.Path, err)
		return
	}
	defer c.Close()
	half := e.Size / 2
	if at, err := io.ReadAll(io.NewSectionReader(c, half, e.Size)); err != nil || c.Size() != e.Size || !bytes.Equal(at, n.data[half:]) {
		t.Errorf("OpenAt(%s) = %d bytes, %v, want %d", e.Path, len(at), err, e.Size-half)
	}
}

func TestScanOfChangedFile(t *testing.T) {
	dir := writeDir(t, []node{fileNode("a", []byte("before")), fileNode("b", []byte("x"))})
	s, err := ScanTree(t.Context(), openTree(t, dir), testParams(), AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "a"), []byte("behind"), 0o666), os.Remove(filepath.Join(dir, "b"))); err != nil {
		t.Fatal(err)
	}
	a, _ := s.Manifest.Find("a")
	if err := s.WriteFile(t.Context(), io.Discard, a); !errors.Is(err, ErrChanged) {
		t.Errorf("WriteFile of a changed file = %v, want %v", err, ErrChanged)
	}
	b, _ := s.Manifest.Find("b")
	if err := s.WriteFile(t.Context(), io.Discard, b); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("WriteFile of a removed file = %v, want %v", err, fs.ErrNotExist)
	}
}
