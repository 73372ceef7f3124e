//go:build !windows

package manifest

import (
	"path/filepath"
	"syscall"
	"testing"
)

func TestAddPipe(t *testing.T) {
	dir := writeDir(t, []node{fileNode("file", []byte("x"))})
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o666); err != nil {
		t.Fatal(err)
	}
	a, _ := newArchive(t, testParams())
	var got []Warning
	m, stats, err := a.Add(t.Context(), openTree(t, dir), AddOptions{Warn: func(w Warning) { got = append(got, w) }})
	if err != nil || m.Files() != 1 || stats.Skipped != 1 || len(got) != 1 || got[0].Path != "pipe" || !got[0].Skipped {
		t.Errorf("Add = %v, %+v, %v, warnings %+v, want the pipe skipped", m, stats, err, got)
	}
}
