package place

import (
	"os"
	"path/filepath"
	"testing"
)

// Links that somebody planted in a staging folder lead no write elsewhere.
func TestPlantedLinks(t *testing.T) {
	outside, dir := t.TempDir(), filepath.Join(t.TempDir(), "stage")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bin", ".ferry-tmp-probe"} {
		if err := os.Symlink(outside, filepath.Join(dir, name)); err != nil {
			t.Logf("no symbolic links here: %v", err)
			return
		}
	}
	if _, err := OpenStage(dir); err != nil {
		t.Fatal(err)
	}
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 0 {
		t.Errorf("left in the stage: %v, %v; want nothing", names, err)
	}
	linked := filepath.Join(t.TempDir(), "linked")
	if err := os.Symlink(outside, linked); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStage(linked); err == nil {
		t.Error("OpenStage of a link = nil, want an error")
	}
}
