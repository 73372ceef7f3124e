package xz

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = os.Getenv("UPDATE_GOLDEN") != ""

// goldens are streams in testdata/v3, as xz 5.4.1 wrote them (7-Zip 26.02: 7z), and what
// they hold.
var goldens = []string{"xz-6", "xz-0", "xz-9e", "blocks", "noise", "props", "empty", "7z"}

func goldenPlain(name string) []byte {
	switch name {
	case "blocks": // xz --block-size=9KB --check=sha256
		return text(25_000)
	case "noise": // xz --check=crc32
		return bytes.Join([][]byte{text(3000), noise(2000), text(3000), noise(70_000), text(9000)}, nil)
	case "props": // xz --check=none --lzma2=preset=6,lc=1,lp=2,pb=1,dict=4KiB
		return append(text(30_000), make([]byte, 30_000)...)
	case "empty":
		return nil
	}
	return text(60_000)
}

// TestGolden makes streams of real encoders from their stored reconstructions, and
// takes them apart the same way still.
func TestGolden(t *testing.T) {
	for _, name := range goldens {
		t.Run(name, func(t *testing.T) {
			name := filepath.Join("testdata", "v3", name)
			if dir := os.Getenv("WRITE_PLAIN"); dir != "" {
				if err := os.WriteFile(filepath.Join(dir, filepath.Base(name)), goldenPlain(filepath.Base(name)), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			stream, err := os.ReadFile(name + ".xz")
			if err != nil {
				t.Fatal(err)
			}
			r := roundTrip(t, stream, goldenPlain(filepath.Base(name)))
			got := hex.Dump(r.Reconstruction)
			if update {
				if err := os.WriteFile(name+".reconstruction.hex", []byte(got), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(name + ".reconstruction.hex")
			if err != nil {
				t.Fatal(err)
			}
			if got != strings.ReplaceAll(string(want), "\r\n", "\n") {
				t.Errorf("the reconstruction is\n%s, golden is\n%s", got, want)
			}
		})
	}
}
