package export

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"ferry/cas"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestGolden holds the bytes of exports still, on any number of cores. They
// change with the compression library too: then the changelog says so.
func TestGolden(t *testing.T) {
	s := fixedSample().link("link", "gr\u00fc\u00df/x")
	s.fileAt("times/1970", []byte("x"), 0).fileAt("times/before", []byte("x"), -1).fileAt("times/2040", []byte("x"), 2_208_988_801).fileAt("times/2200", []byte("x"), 7_258_118_400)
	var first []byte
	for _, n := range []int{1, 4} {
		procs := runtime.GOMAXPROCS(n)
		var b bytes.Buffer
		for _, v := range archives {
			data := readFile(t, mustExport(t, s, v))
			fmt.Fprintf(&b, "%s: %d bytes, %s\n", v, len(data), cas.Sum(data))
		}
		runtime.GOMAXPROCS(procs)
		if first == nil {
			first = b.Bytes()
		}
		if !bytes.Equal(b.Bytes(), first) {
			t.Errorf("exports on %d cores:\n%swant, as on one:\n%s", n, b.Bytes(), first)
		}
	}
	path := filepath.Join("testdata", "exports.golden")
	if *update {
		if err := os.WriteFile(path, first, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want := bytes.ReplaceAll(readFile(t, path), []byte("\r\n"), []byte("\n")) // git may have changed line ends
	if !bytes.Equal(first, want) {
		t.Errorf("exports differ from what they were; run with -update only if that is meant:\n%swant\n%s", first, want)
	}
}
