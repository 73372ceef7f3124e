package chunking

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestGolden holds the cuts still: a change of them makes every store forget
// what it has, so the golden file is changed only together with the algorithm's
// name.
func TestGolden(t *testing.T) {
	withRuns := seeded(22, 1<<20)
	for _, run := range [][2]int{{0, 20_000}, {100_000, 15_999}, {200_000, 16 << 10}, {300_000, 300_000}, {1<<20 - 70_000, 70_000}} {
		clear(withRuns[run[0] : run[0]+run[1]])
	}
	text := bytes.Repeat([]byte("the quick brown fox jumps over the lazy dog\n"), 4000)
	tests := []struct {
		name  string
		input []byte
		p     Params
	}{
		{"random, 16 KiB to 256 KiB", seeded(21, 1<<20), Params{Algorithm, Polynomial, 16 << 10, 15, 256 << 10, 16 << 10}},
		{"zero runs, 16 KiB to 256 KiB", withRuns, Params{Algorithm, Polynomial, 16 << 10, 15, 256 << 10, 16 << 10}},
		{"zero runs, 8 KiB to 128 KiB", withRuns, Params{Algorithm, Polynomial, 8 << 10, 14, 128 << 10, 16 << 10}},
		{"text, 4 KiB to 32 KiB", text, Params{Algorithm, Polynomial, 4 << 10, 12, 32 << 10, 4 << 10}},
		{"random, 64 to 512 bytes", seeded(23, 8<<10), small(8, 512, 64)},
		{"zeros alone", make([]byte, 100_000), small(8, 512, 64)},
	}
	var b bytes.Buffer
	for _, test := range tests {
		fmt.Fprintf(&b, "# %s: offset size\n", test.name)
		for _, c := range cutAll(t, bytes.NewReader(test.input), test.p) {
			fmt.Fprintf(&b, "%d %d", c.Offset, c.Size)
			if c.Zero() {
				b.WriteString(" zero")
			}
			b.WriteByte('\n')
		}
	}
	golden(t, "cuts.golden", b.Bytes())
}

// golden compares got with a file of testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want = bytes.ReplaceAll(want, []byte("\r\n"), []byte("\n")) // git may have changed line ends
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs from what it was; run with -update only if that is meant. Now:\n%s", path, got)
	}
}
