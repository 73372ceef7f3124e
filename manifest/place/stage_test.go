package place

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"ferry/cas"
	"ferry/manifest"
)

// placeOne places one file through a Stage, and returns its path.
func placeOne(t *testing.T, content []byte, fill Fill) (string, error) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "stage")
	s, err := OpenStage(dir)
	if err != nil {
		t.Fatal(err)
	}
	e := manifest.Entry{Path: "file", Type: manifest.TypeFile, Size: int64(len(content)), Digest: cas.Sum(content), ModTime: testTime}
	stood, _, err := s.file(t.Context(), e, fill)
	if stood {
		t.Errorf("File says that the file stood before")
	}
	name := filepath.Join(dir, "file")
	if _, statErr := os.Stat(name); (err == nil) != (statErr == nil) {
		t.Errorf("File = %v, yet the file: %v", err, statErr)
	}
	if left := names(t, dir); err != nil && len(left) > 0 {
		t.Errorf("File = %v, and leaves %v", err, left)
	}
	return name, err
}

// TestHoles writes runs of zeros of all lengths, in all ways.
func TestHoles(t *testing.T) {
	data := make([]byte, 200_000)
	rand.NewChaCha8([32]byte{1}).Read(data)
	zeros := func(n int) []byte { return make([]byte, n) }
	tests := map[string][][]byte{
		"zeros alone":           {zeros(8 * holeSize)},
		"zeros in front":        {zeros(4 * holeSize), data},
		"zeros in the middle":   {data, zeros(4 * holeSize), data},
		"zeros at the end":      {data, zeros(4 * holeSize)},
		"one hole":              {data, zeros(holeSize), data},
		"one byte less":         {data, zeros(holeSize - 1), data},
		"one byte more":         {data, zeros(holeSize + 1), data},
		"one byte more, at end": {data, zeros(holeSize + 1)},
		"small pieces":          {zeros(1), data[:1], zeros(1), zeros(holeSize), zeros(1)},
		"nothing":               {},
	}
	for name, parts := range tests {
		content := bytes.Join(parts, nil)
		for _, piece := range []int{1 << 20, holeSize, 2*holeSize + 1, 4096} {
			file, err := placeOne(t, content, func(_ context.Context, _ manifest.Entry, w io.Writer) error {
				for rest := content; len(rest) > 0; {
					n := min(piece, len(rest))
					if _, err := w.Write(rest[:n]); err != nil {
						return err
					}
					rest = rest[n:]
				}
				return nil
			})
			if err != nil {
				t.Errorf("%s in pieces of %d: File = %v", name, piece, err)
				continue
			}
			if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, content) {
				t.Errorf("%s in pieces of %d: %d other bytes, %v, want %d", name, piece, len(got), err, len(content))
			}
		}
	}
}

// TestClone offers a whole file, which is taken where the file system shares
// blocks, and copied elsewhere.
func TestClone(t *testing.T) {
	content := bytes.Repeat([]byte("content "), 10_000)
	name := filepath.Join(t.TempDir(), "source")
	if err := os.WriteFile(name, content, 0o666); err != nil {
		t.Fatal(err)
	}
	src, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	offer := func(_ context.Context, _ manifest.Entry, w io.Writer) error {
		if w.(Cloner).Clone(src) {
			t.Log("the file system shares blocks")
		} else if _, err := io.Copy(w, io.NewSectionReader(src, 0, 1<<40)); err != nil {
			return err
		}
		if !w.(interface{ Matches() bool }).Matches() {
			return ErrContent
		}
		return nil
	}
	file, err := placeOne(t, content, offer)
	if err != nil {
		t.Fatalf("File = %v", err)
	}
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d other bytes, %v, want %d", len(got), err, len(content))
	}
	for name, want := range map[string][]byte{"longer": content[:len(content)-1], "shorter": append(bytes.Clone(content), 'x'), "other": bytes.ToUpper(content)} {
		if _, err := placeOne(t, want, offer); !errors.Is(err, ErrContent) {
			t.Errorf("File of a source that is %s = %v, want %v", name, err, ErrContent)
		}
	}
}

// TestClonedIsVerified has a clone that took bytes behind the writer's back, as
// a file system that shares blocks does.
func TestClonedIsVerified(t *testing.T) {
	for content, want := range map[string]error{"right": nil, "wrong": ErrContent, "right and more": ErrContent} {
		_, err := placeOne(t, []byte("right"), func(_ context.Context, _ manifest.Entry, w io.Writer) error {
			fw := w.(*fileWriter)
			if _, err := fw.f.WriteString(content); err != nil {
				return err
			}
			fw.cloned = true
			if fw.Matches() != (want == nil) {
				t.Errorf("Matches() of %q = %t", content, want != nil)
			}
			return nil
		})
		if !errors.Is(err, want) {
			t.Errorf("File of a clone of %q = %v, want %v", content, err, want)
		}
	}
}

func TestStageRemove(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "stage")
	s, err := OpenStage(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "locked", "sub"), 0o777), os.WriteFile(filepath.Join(dir, "locked", "file"), nil, 0o444), os.Chmod(filepath.Join(dir, "locked"), 0o555)); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(); err != nil {
		t.Errorf("Remove = %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the stage is there still: %v", err)
	}
	if err := s.Remove(); err != nil {
		t.Errorf("Remove again = %v", err)
	}
}

func TestDigest(t *testing.T) {
	content := bytes.Repeat([]byte("x"), 1<<20)
	if got, err := Digest(t.Context(), bytes.NewReader(content)); err != nil || got != cas.Sum(content) {
		t.Errorf("Digest = %s, %v, want %s", got, err, cas.Sum(content))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := Digest(ctx, bytes.NewReader(content)); !errors.Is(err, context.Canceled) || !got.IsZero() {
		t.Errorf("Digest when cancelled = %s, %v, want %v", got, err, context.Canceled)
	}
}
