package deflate

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = os.Getenv("UPDATE_GOLDEN") != ""

// TestFrozen holds still what each encoder is predicted to write: the
// reconstructions in stores depend on it.
func TestFrozen(t *testing.T) {
	plain := bytes.Join([][]byte{text(150_000), make([]byte, 70_000), noise(20_000), text(60_000)}, nil)
	var lines strings.Builder
	for i, e := range encoders {
		p := newPredictor(e)
		h := sha256.New()
		n := 0
		for at := 0; at < len(plain) || p.pos < len(p.buf); n++ {
			for !p.ready(0) {
				m := min(10_000, len(plain)-at)
				p.feed(plain[at : at+m])
				at += m
				p.last = at == len(plain)
			}
			token := p.predict()
			h.Write(binary.LittleEndian.AppendUint32(nil, uint32(token)))
			p.accept(token)
		}
		fmt.Fprintf(&lines, "%d %d tokens %x\n", i, n, h.Sum(nil)[:8])
	}
	name := filepath.Join("testdata", "v1", "predictions")
	if update {
		if err := os.WriteFile(name, []byte(lines.String()), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if lines.String() != string(want) {
		t.Errorf("predictions are\n%s, golden are\n%s", lines.String(), want)
	}
}

// TestGolden makes streams of real encoders from their stored reconstructions, and
// takes them apart the same way still.
func TestGolden(t *testing.T) {
	streams, err := filepath.Glob(filepath.Join("testdata", "v[124]", "*.deflate"))
	if err != nil || len(streams) < 20 {
		t.Fatalf("there are %d streams: %v", len(streams), err)
	}
	for _, name := range streams {
		t.Run(filepath.Base(name), func(t *testing.T) {
			stream, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			r, plain := roundTrip(t, stream)
			golden := strings.TrimSuffix(name, ".deflate") + ".reconstruction.hex"
			if update {
				if err := os.WriteFile(golden, []byte(hex.Dump(r.Reconstruction)), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got := hex.Dump(r.Reconstruction); got != string(want) {
				t.Errorf("the reconstruction is\n%s, golden is\n%s", got, want)
			}
			if !bytes.Equal(plain, text(len(plain))) {
				t.Errorf("it decodes to other bytes")
			}
		})
	}
}
