package manifest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"ferry/manifest/tree"
)

func TestVerifyHardLinks(t *testing.T) {
	hard := func(path, target string) node {
		return node{Node: tree.Node{Path: path, Kind: tree.HardLink, Link: target}}
	}
	m := mustNew(t, program("a", "x"), program("b", "x"), program("c", "x"), file("d", "y"))
	sound := []node{execNode("a", []byte("x")), hard("b", "a"), hard("c", "b"), fileNode("d", []byte("y"))}
	if got := verify(t, &memTree{nodes: sound}, m, VerifyOptions{}); len(got) > 0 {
		t.Errorf("Verify finds %+v, want nothing", got)
	}
	bad := []node{execNode("a", []byte("x")), hard("b", "nothing"), hard("c", "d"), fileNode("d", []byte("y"))}
	for _, f := range verify(t, &memTree{nodes: bad}, m, VerifyOptions{IgnoreModes: true}) {
		if f.Kind != FindChanged || f.Path != "b" && f.Path != "c" {
			t.Errorf("Verify finds %+v, want b and c changed", f)
		}
	}
}

// TestVerifyDamagedArchives has archives whose checksums tell the damage.
func TestVerifyDamagedArchives(t *testing.T) {
	nodes := []node{fileNode("a", seeded(1, 50_000)), fileNode("b", seeded(2, 50_000))}
	a, _ := newArchive(t, testParams())
	m, _ := mustAdd(t, a, &memTree{nodes: nodes})
	zipped := writeArchive(t, "zip", nodes)
	damageFile(t, zipped, 20_000)
	if got := verify(t, openTree(t, zipped), m, VerifyOptions{}); len(got) != 1 || got[0].Path != "a" || got[0].Kind != FindUnreadable {
		t.Errorf("Verify of a damaged zip finds %+v, want a unreadable", got)
	}
	plain := writeArchive(t, "tar", nodes)
	damageFile(t, plain, 20_000)
	if got := verify(t, openTree(t, plain), m, VerifyOptions{}); len(got) != 1 || got[0].Path != "a" || got[0].Kind != FindChanged {
		t.Errorf("Verify of a damaged tar finds %+v, want a changed", got)
	}
	for _, format := range []string{"tar.gz", "tar.zst", "tar.xz"} {
		packed := writeArchive(t, format, nodes)
		damageFile(t, packed, 20_000)
		report, err := Verify(t.Context(), openTree(t, packed), m, VerifyOptions{})
		if err == nil && len(report.Findings) == 0 {
			t.Errorf("Verify of a damaged %s finds nothing", format)
		}
	}
}

func TestVerifyCancelled(t *testing.T) {
	data := seeded(1, 3<<20)
	m := mustNew(t, file("a", string(data)))
	ctx, cancel := context.WithCancel(t.Context())
	n := readerNode("a", len(data), func() (io.Reader, error) {
		return &cancellingReader{bytes.NewReader(data), len(data) / 2, cancel}, nil
	})
	if report, err := Verify(ctx, &memTree{nodes: []node{n}}, m, VerifyOptions{}); report != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("Verify = %+v, %v, want %v", report, err, context.Canceled)
	}
	broken := errors.New("broken")
	if report, err := Verify(t.Context(), &memTree{failed: broken}, m, VerifyOptions{}); report != nil || !errors.Is(err, broken) {
		t.Errorf("Verify of a tree whose walk fails = %+v, %v, want %v", report, err, broken)
	}
}
