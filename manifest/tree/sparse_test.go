package tree

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// sparseContent has data at its start, in its middle and not at its end.
func sparseContent() []byte {
	b := make([]byte, 300<<10)
	copy(b, seeded(1, 4096))
	copy(b[128<<10:], seeded(2, 8192))
	return b
}

// TestSparseTar reads what GNU tar writes of a file with holes, where there is a
// GNU tar, and else headers made by hand.
func TestSparseTar(t *testing.T) {
	content := sparseContent()
	sources := map[string][]byte{
		"gnu by hand":     oldGNUSparse(content),
		"pax 1.0 by hand": paxSparse(t, content, "1.0"),
		"pax 0.1 by hand": paxSparse(t, content, "0.1"),
		"pax 0.0 by hand": paxSparse(t, content, "0.0"),
	}
	for name, data := range gnuSparse(t, content) {
		sources[name] = data
	}
	for name, data := range sources {
		t.Run(name, func(t *testing.T) {
			if int64(len(data)) > int64(len(content))/2 {
				t.Errorf("the tar has %d bytes: it is not sparse", len(data))
			}
			for format, data := range everyTar(t, data) {
				got := mustWalk(t, mustOpen(t, data, format))
				if f := got["sparse"]; f.Kind != File || f.Size != int64(len(content)) || !bytes.Equal(f.data, content) {
					t.Errorf("%s: sparse file has %d other bytes, size %d, want %d", format, len(f.data), f.Size, len(content))
				}
				if f := got["behind"]; string(f.data) != "behind" {
					t.Errorf("%s: the file behind it has %q", format, f.data)
				}
			}
		})
	}
}

// gnuSparse has GNU tar write content in all its sparse formats.
func gnuSparse(t *testing.T, content []byte) map[string][]byte {
	t.Helper()
	version, err := exec.Command("tar", "--version").Output()
	if err != nil || !bytes.Contains(version, []byte("GNU tar")) {
		t.Logf("no GNU tar here: %v", err)
		return nil
	}
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "sparse"))
	if err == nil {
		_, err = f.WriteAt(content[:4096], 0)
	}
	if err == nil {
		_, err = f.WriteAt(content[128<<10:136<<10], 128<<10)
	}
	if err == nil {
		err = f.Truncate(int64(len(content)))
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := os.WriteFile(filepath.Join(dir, "behind"), []byte("behind"), 0o666); err != nil {
		t.Fatal(err)
	}
	sources := map[string][]byte{}
	for name, args := range map[string][]string{
		"gnu":                  {"--format=gnu"},
		"pax 1.0":              {"--format=pax", "--sparse-version=1.0"},
		"pax 0.1":              {"--format=pax", "--sparse-version=0.1"},
		"pax 0.0":              {"--format=pax", "--sparse-version=0.0"},
		"with a global header": {"--format=pax", "--pax-option=comment=from a test"},
	} {
		args = append(args, "--sparse", "--hole-detection=raw", "-cf", "-", "-C", dir, "sparse", "behind")
		out, err := exec.Command("tar", args...).Output()
		if err != nil {
			t.Logf("tar %s: %v", strings.Join(args, " "), err)
			continue
		}
		sources[name] = out
	}
	return sources
}

// sparseMap lists the pieces of data in sparseContent, and where it ends.
func sparseMap(content []byte) [][2]int {
	return [][2]int{{0, 4096}, {128 << 10, 8192}, {len(content), 0}}
}

func sparsePieces(content []byte) []byte {
	return slices.Concat(content[:4096], content[128<<10:136<<10])
}

// oldGNUSparse writes GNU's old format: type S, the map in the header itself.
func oldGNUSparse(content []byte) []byte {
	h := make([]byte, 512)
	copy(h, "sparse")
	octal := func(off, n, value int) { copy(h[off:], fmt.Sprintf("%0*o\x00", n-1, value)) }
	octal(100, 8, 0o644)
	octal(108, 8, 0)
	octal(116, 8, 0)
	octal(124, 12, len(sparsePieces(content)))
	octal(136, 12, 1_700_000_000)
	h[156] = tar.TypeGNUSparse
	copy(h[257:], "ustar  \x00")
	for i, piece := range sparseMap(content) {
		octal(386+24*i, 12, piece[0])
		octal(386+24*i+12, 12, piece[1])
	}
	octal(483, 12, len(content))
	copy(h[148:], "        ")
	sum := 0
	for _, b := range h {
		sum += int(b)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return append(append(h, sparsePieces(content)...), tarBehind()...)
}

// paxSparse writes a PAX sparse format. archive/tar writes none: the records
// are put there under names of the same length, and renamed.
func paxSparse(t *testing.T, content []byte, version string) []byte {
	data, name := sparsePieces(content), "sparse"
	size := strconv.Itoa(len(content))
	records := map[string]string{}
	var numbers []string
	for _, piece := range sparseMap(content) {
		numbers = append(numbers, strconv.Itoa(piece[0]), strconv.Itoa(piece[1]))
	}
	count := strconv.Itoa(len(numbers) / 2)
	switch version {
	case "1.0":
		name = "GNUSparseFile.0/sparse"
		records = map[string]string{"XNU.sparse.major": "1", "XNU.sparse.minor": "0", "XNU.sparse.name": "sparse", "XNU.sparse.realsize": size}
		block := make([]byte, 512)
		copy(block, count+"\n"+strings.Join(numbers, "\n")+"\n")
		data = append(block, data...)
	case "0.1":
		name = "GNUSparseFile.0/sparse"
		records = map[string]string{"XNU.sparse.name": "sparse", "XNU.sparse.size": size, "XNU.sparse.numblocks": count, "XNU.sparse.map": strings.Join(numbers, ",")}
	case "0.0":
		return pax00Sparse(t, content, numbers, count)
	}
	file := tarFile(name, string(data))
	file.PAXRecords = records
	out := tarOf(t, file)
	out = bytes.ReplaceAll(out, []byte("XNU.sparse."), []byte("GNU.sparse."))
	return append(out[:len(out)-1024], tarBehind()...)
}

// pax00Sparse writes the oldest PAX format, which has a key several times.
func pax00Sparse(t *testing.T, content []byte, numbers []string, count string) []byte {
	var records string
	add := func(key, value string) {
		n := len(key) + len(value) + 3
		n += len(strconv.Itoa(n + len(strconv.Itoa(n))))
		records += fmt.Sprintf("%d %s=%s\n", n, key, value)
	}
	add("GNU.sparse.size", strconv.Itoa(len(content)))
	add("GNU.sparse.numblocks", count)
	for i, n := range numbers {
		add("GNU.sparse."+[]string{"offset", "numbytes"}[i%2], n)
	}
	header := tarFile("x", records)
	out := tarOf(t, header)
	out[156] = tar.TypeXHeader
	fixChecksum(out[:512])
	file := tarOf(t, tarFile("sparse", string(sparsePieces(content))))
	return append(append(out[:len(out)-1024], file[:len(file)-1024]...), tarBehind()...)
}

func fixChecksum(h []byte) {
	copy(h[148:156], "        ")
	sum := 0
	for _, b := range h {
		sum += int(b)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
}

// tarBehind is a tar with the file that follows the sparse one.
func tarBehind() []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "behind", Size: 6})
	w.Write([]byte("behind"))
	w.Close()
	return b.Bytes()
}

// TestSparseTarClosedEarly stops reading a sparse member in its middle.
func TestSparseTarClosedEarly(t *testing.T) {
	tr := mustOpen(t, oldGNUSparse(sparseContent()), "tar")
	r, err := tr.Open(t.Context(), "sparse")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if n, err := r.Read(make([]byte, 10)); err == nil {
		t.Errorf("Read after Close = %d, nil, want an error", n)
	}
}
