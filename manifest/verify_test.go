package manifest

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"testing"

	"ferry/manifest/tree"
)

// verify returns what is found, without details.
func verify(t testing.TB, tr tree.Tree, m *Manifest, opts VerifyOptions) []Finding {
	t.Helper()
	opts.IgnoreModes = opts.IgnoreModes || runtime.GOOS == "windows" && tr.Format() == "directory"
	report, err := Verify(t.Context(), tr, m, opts)
	if err != nil {
		t.Fatalf("Verify = %v", err)
	}
	for i := range report.Findings {
		if report.Findings[i].Detail == "" {
			t.Errorf("finding %+v has no detail", report.Findings[i])
		}
		report.Findings[i].Detail = ""
	}
	return report.Findings
}

func TestVerifySound(t *testing.T) {
	nodes := sampleTree(t)
	a, _ := newArchive(t, testParams())
	m, _ := mustAdd(t, a, &memTree{nodes: nodes})
	for format, name := range everyFormat(t, nodes) {
		if got := verify(t, openTree(t, name), m, VerifyOptions{Chunks: a.Chunks}); len(got) > 0 {
			t.Errorf("%s: Verify finds %+v, want nothing", format, got)
		}
	}
	var c counter
	report, err := Verify(t.Context(), &memTree{nodes: nodes}, m, VerifyOptions{Progress: &c})
	if err != nil || report.Files != m.Files() || report.Size != m.Size() || c.count() != m.Size() || report.Findings == nil {
		t.Errorf("Verify = %+v, %v, progress %d, want %d files, %d bytes", report, err, c.count(), m.Files(), m.Size())
	}
}

// TestVerifyDamage damages a directory in every way.
func TestVerifyDamage(t *testing.T) {
	big := holes(1, 400_000)
	nodes := []node{
		fileNode("big", big), fileNode("dir/small", []byte("small")), fileNode("dir/other", []byte("other")), dirNode("empty"),
		execNode("run", []byte("#!/bin/sh\n")), fileNode("plain", []byte("plain")), fileNode("zeros", make([]byte, 50_000)),
	}
	a, _ := newArchive(t, testParams())
	m, _ := mustAdd(t, a, &memTree{nodes: nodes})
	e, _ := m.Find("big")
	chunks, err := a.Chunks(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	// at returns the range of the chunks that hold [off, end).
	at := func(off, end int64) Range {
		r := Range{-1, -1}
		for _, c := range chunks {
			if c.Off < end && off < c.Off+c.Size {
				if r.Off < 0 {
					r.Off = c.Off
				}
				r.End = c.Off + c.Size
			}
		}
		return r
	}
	size := e.Size
	hole := int64(60_000) // in the first run of zeros
	tests := []struct {
		name   string
		damage func(write func(path string, change func([]byte) []byte), dir string) error
		want   []Finding
	}{
		{"nothing", nil, nil},
		{"file removed", func(_ func(string, func([]byte) []byte), dir string) error { return os.Remove(dir + "/big") },
			[]Finding{{Kind: FindMissing, Path: "big"}}},
		{"folder removed", func(_ func(string, func([]byte) []byte), dir string) error { return os.RemoveAll(dir + "/dir") },
			[]Finding{{Kind: FindMissing, Path: "dir/other"}, {Kind: FindMissing, Path: "dir/small"}}},
		{"empty folder removed", func(_ func(string, func([]byte) []byte), dir string) error { return os.Remove(dir + "/empty") },
			[]Finding{{Kind: FindMissing, Path: "empty"}}},
		{"first byte flipped", func(write func(string, func([]byte) []byte), _ string) error {
			write("big", func(b []byte) []byte { b[0] ^= 1; return b })
			return nil
		}, []Finding{{Kind: FindChanged, Path: "big", Ranges: []Range{at(0, 1)}}}},
		{"last byte flipped", func(write func(string, func([]byte) []byte), _ string) error {
			write("big", func(b []byte) []byte { b[size-1] ^= 1; return b })
			return nil
		}, []Finding{{Kind: FindChanged, Path: "big", Ranges: []Range{at(size-1, size)}}}},
		{"two bytes flipped far apart", func(write func(string, func([]byte) []byte), _ string) error {
			write("big", func(b []byte) []byte { b[10] ^= 1; b[size-10] ^= 1; return b })
			return nil
		}, []Finding{{Kind: FindChanged, Path: "big", Ranges: []Range{at(10, 11), at(size-10, size-9)}}}},
		{"two neighbouring chunks damaged", func(write func(string, func([]byte) []byte), _ string) error {
			write("big", func(b []byte) []byte { b[chunks[1].Off] ^= 1; b[chunks[1].Off-1] ^= 1; return b })
			return nil
		}, []Finding{{Kind: FindChanged, Path: "big", Ranges: []Range{{chunks[0].Off, chunks[1].Off + chunks[1].Size}}}}},
		{"byte in a hole", func(write func(string, func([]byte) []byte), _ string) error {
			write("big", func(b []byte) []byte { b[hole] = 1; return b })
			return nil
		}, []Finding{{Kind: FindChanged, Path: "big", Ranges: []Range{at(hole, hole+1)}}}},
		{"byte in a file of zeros", func(write func(string, func([]byte) []byte), _ string) error {
			write("zeros", func(b []byte) []byte { b[49_999] = 1; return b })
			return nil
		}, []Finding{{Kind: FindChanged, Path: "zeros", Ranges: []Range{{0, 50_000}}}}},
		{"truncated", func(write func(string, func([]byte) []byte), _ string) error {
			write("big", func(b []byte) []byte { return b[:size-1000] })
			return nil
		}, []Finding{{Kind: FindChanged, Path: "big", Ranges: []Range{at(size-1000, size)}}}},
		{"truncated to nothing", func(write func(string, func([]byte) []byte), _ string) error {
			write("big", func(b []byte) []byte { return nil })
			return nil
		}, []Finding{{Kind: FindChanged, Path: "big", Ranges: []Range{{0, size}}}}},
		{"longer", func(write func(string, func([]byte) []byte), _ string) error {
			write("big", func(b []byte) []byte { return append(b, 1) })
			return nil
		}, []Finding{{Kind: FindChanged, Path: "big"}}},
		{"small file changed", func(write func(string, func([]byte) []byte), _ string) error {
			write("dir/small", func(b []byte) []byte { b[0] ^= 1; return b })
			return nil
		}, []Finding{{Kind: FindChanged, Path: "dir/small", Ranges: []Range{{0, 5}}}}},
		{"extra file and folder", func(_ func(string, func([]byte) []byte), dir string) error {
			return errors.Join(os.Mkdir(dir+"/new", 0o777), os.WriteFile(dir+"/new/file", nil, 0o666), os.WriteFile(dir+"/empty/file", nil, 0o666))
		}, []Finding{{Kind: FindExtra, Path: "empty/file"}, {Kind: FindExtra, Path: "new"}, {Kind: FindExtra, Path: "new/file"}}},
		{"state folder of Ferry", func(_ func(string, func([]byte) []byte), dir string) error {
			return errors.Join(os.Mkdir(dir+"/.ferry", 0o777), os.WriteFile(dir+"/.ferry/x", nil, 0o666))
		}, nil},
		{"file became a folder", func(_ func(string, func([]byte) []byte), dir string) error {
			return errors.Join(os.Remove(dir+"/plain"), os.Mkdir(dir+"/plain", 0o777))
		}, []Finding{{Kind: FindType, Path: "plain"}}},
		{"folder became a file", func(_ func(string, func([]byte) []byte), dir string) error {
			return errors.Join(os.Remove(dir+"/empty"), os.WriteFile(dir+"/empty", nil, 0o666))
		}, []Finding{{Kind: FindType, Path: "empty"}}},
		{"folder with files became a file", func(_ func(string, func([]byte) []byte), dir string) error {
			return errors.Join(os.RemoveAll(dir+"/dir"), os.WriteFile(dir+"/dir", nil, 0o666))
		}, []Finding{{Kind: FindExtra, Path: "dir"}, {Kind: FindMissing, Path: "dir/other"}, {Kind: FindMissing, Path: "dir/small"}}},
		{"renamed", func(_ func(string, func([]byte) []byte), dir string) error {
			return os.Rename(dir+"/plain", dir+"/PLAIN2")
		},
			[]Finding{{Kind: FindExtra, Path: "PLAIN2"}, {Kind: FindMissing, Path: "plain"}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := writeDir(t, nodes)
			write := func(path string, change func([]byte) []byte) {
				name := filepath.Join(dir, filepath.FromSlash(path))
				data, err := os.ReadFile(name)
				if err == nil {
					err = os.WriteFile(name, change(data), 0o666)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if test.damage != nil {
				if err := test.damage(write, dir); err != nil {
					t.Fatal(err)
				}
			}
			if got := verify(t, openTree(t, dir), m, VerifyOptions{Chunks: a.Chunks}); !equalFindings(got, test.want) {
				t.Errorf("Verify finds %+v, want %+v", got, test.want)
			}
			for i := range test.want {
				test.want[i].Ranges = nil
			}
			if got := verify(t, openTree(t, dir), m, VerifyOptions{}); !equalFindings(got, test.want) {
				t.Errorf("Verify without chunks finds %+v, want %+v", got, test.want)
			}
		})
	}
}

func equalFindings(a, b []Finding) bool {
	return len(a) == len(b) && (len(a) == 0 || reflect.DeepEqual(a, b))
}

func TestVerifyModesAndLinks(t *testing.T) {
	m := mustNew(t, program("run", "x"), file("plain", "x"), link("l", "plain"), link("to folder", "dir"), file("dir/f", "x"))
	sound := []node{fileNode("dir/f", []byte("x")), linkNode("l", "plain"), fileNode("plain", []byte("x")), execNode("run", []byte("x")), linkNode("to folder", "dir")}
	change := func(path string, fn func(*node)) []node {
		nodes := slices.Clone(sound)
		for i := range nodes {
			if nodes[i].Path == path {
				fn(&nodes[i])
			}
		}
		return nodes
	}
	tests := []struct {
		name  string
		nodes []node
		want  []Finding
	}{
		{"sound", sound, nil},
		{"mode lost", change("run", func(n *node) { n.Exec = false }), []Finding{{Kind: FindMode, Path: "run"}}},
		{"mode gained", change("plain", func(n *node) { n.Exec = true }), []Finding{{Kind: FindMode, Path: "plain"}}},
		{"other target", change("l", func(n *node) { n.Link = "run" }), []Finding{{Kind: FindChanged, Path: "l"}}},
		{"link became a file", change("l", func(n *node) { *n = fileNode("l", []byte("x")) }), []Finding{{Kind: FindType, Path: "l"}}},
		{"file became a link", change("plain", func(n *node) { *n = linkNode("plain", "x") }), []Finding{{Kind: FindType, Path: "plain"}}},
		{"file became a pipe", change("plain", func(n *node) { n.Kind = tree.Special }), []Finding{{Kind: FindType, Path: "plain"}}},
		{"extra pipe", append(slices.Clone(sound), node{Node: tree.Node{Path: "pipe", Kind: tree.Special}}), []Finding{{Kind: FindExtra, Path: "pipe"}}},
		{"file twice", append(slices.Clone(sound), sound[2]), []Finding{{Kind: FindExtra, Path: "plain"}}},
		{"folder twice", append([]node{dirNode("dir"), dirNode("dir")}, sound...), nil},
		{"other time", change("plain", func(n *node) { n.ModTime++ }), nil},
		{"cannot be opened", change("plain", func(n *node) { n.open = func() (io.ReadCloser, error) { return nil, os.ErrPermission } }),
			[]Finding{{Kind: FindUnreadable, Path: "plain"}}},
		{"cannot be read", change("plain", func(n *node) {
			n.open = func() (io.ReadCloser, error) {
				return io.NopCloser(io.MultiReader(bytes.NewReader([]byte("x")), failingReader{})), nil
			}
		}), []Finding{{Kind: FindUnreadable, Path: "plain"}}},
	}
	for _, test := range tests {
		if got := verify(t, &memTree{nodes: test.nodes}, m, VerifyOptions{}); !equalFindings(got, test.want) {
			t.Errorf("%s: Verify finds %+v, want %+v", test.name, got, test.want)
		}
	}
	if got := verify(t, &memTree{nodes: tests[1].nodes}, m, VerifyOptions{IgnoreModes: true}); len(got) > 0 {
		t.Errorf("Verify without modes finds %+v, want nothing", got)
	}
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errors.New("bad sector") }

// TestVerifyChunksWithGaps tells how a file is cut in part only, as for a
// container of which the store knows some members.
func TestVerifyChunksWithGaps(t *testing.T) {
	a, _ := newArchive(t, testParams())
	e, content := putContainer(t, a)
	m := mustNew(t, e)
	known, err := a.Chunks(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range known {
		damaged := bytes.Clone(content)
		damaged[c.Off+c.Size/2] ^= 1
		got := verify(t, &memTree{nodes: []node{fileNode(e.Path, damaged)}}, m, VerifyOptions{Chunks: a.Chunks})
		want := []Finding{{Kind: FindChanged, Path: e.Path, Ranges: []Range{{c.Off, c.Off + c.Size}}}}
		if !equalFindings(got, want) {
			t.Errorf("Verify finds %+v, want %+v", got, want)
		}
	}
	cut := content[:known[2].Off+1]
	got := verify(t, &memTree{nodes: []node{fileNode(e.Path, cut)}}, m, VerifyOptions{Chunks: a.Chunks})
	if len(got) != 1 || len(got[0].Ranges) == 0 || got[0].Ranges[0].Off != known[2].Off {
		t.Errorf("Verify of a truncated container finds %+v, want a range from %d", got, known[2].Off)
	}
}
