package export

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestTools has other programs read the exports, those that are here.
func TestTools(t *testing.T) {
	s := smallSample().link("link", "text")
	tests := []struct {
		tool string
		args []string // the target follows
		v    []variant
	}{
		{"unzip", []string{"-tqq"}, []variant{{FormatZip, MethodDeflate}, {FormatZip, MethodStore}}},
		{"7z", []string{"t", "-bso0"}, archives},
		{"tar", []string{"-tvf"}, []variant{{FormatTar, ""}}},
		{"gzip", []string{"-t"}, []variant{{FormatTarGzip, ""}}},
		{"zstd", []string{"-tq"}, []variant{{FormatTarZstd, ""}}},
		{"bsdtar", []string{"-tf"}, archives[:2]},
	}
	for _, test := range tests {
		path, err := exec.LookPath(test.tool)
		if err != nil {
			t.Logf("without %s: %v", test.tool, err)
			continue
		}
		for _, v := range test.v {
			cmd := exec.Command(path, append(test.args, mustExport(t, s, v))...)
			cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
			if out, err := cmd.CombinedOutput(); err != nil && !knowsNoZstd(v, out) {
				t.Errorf("%s of %s: %v\n%s", test.tool, v, err, out)
			}
		}
	}
}

// knowsNoZstd tells of an older 7-Zip, which does not read method 93.
func knowsNoZstd(v variant, out []byte) bool {
	return v.method == MethodZstd && bytes.Contains(out, []byte("Unsupported Method")) || v.format == FormatTarZstd && bytes.Contains(out, []byte("annot open the file as archive"))
}

// TestToolsUnpack has other programs unpack the exports, and compares the result.
func TestToolsUnpack(t *testing.T) {
	s := smallSample()
	if haveLinks(t) {
		s.link("link", "text").link("bin/up", "../no/where")
	}
	m := s.manifest(t)
	tests := []struct {
		tool string
		v    variant
		args func(target, dir string) []string
	}{
		{"unzip", variant{FormatZip, MethodDeflate}, func(target, dir string) []string { return []string{"-qq", target, "-d", dir} }},
		{"unzip", variant{FormatZip, MethodStore}, func(target, dir string) []string { return []string{"-qq", target, "-d", dir} }},
		{"tar", variant{FormatTar, ""}, func(target, dir string) []string { return []string{"-xf", target, "-C", dir} }},
		{"tar", variant{FormatTarGzip, ""}, func(target, dir string) []string { return []string{"-xzf", target, "-C", dir} }},
	}
	for _, test := range tests {
		path, err := exec.LookPath(test.tool)
		if err != nil {
			t.Logf("without %s: %v", test.tool, err)
			continue
		}
		dir := filepath.Join(t.TempDir(), "out")
		if err := os.Mkdir(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(path, test.args(mustExport(t, s, test.v), dir)...)
		cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "TZ=Asia/Kathmandu")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s of %s: %v\n%s", test.tool, strings.ToLower(test.v.String()), err, out)
			continue
		}
		checkTree(t, dir, m)
	}
}
