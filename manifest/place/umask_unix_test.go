//go:build !windows

package place

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestModes leaves it to the umask who may do what else.
func TestModes(t *testing.T) {
	s := sample{"run+": "#!", "plain": "x"}
	for mask, want := range map[int][2]fs.FileMode{0o022: {0o755, 0o644}, 0o077: {0o700, 0o600}, 0o002: {0o775, 0o664}} {
		old := syscall.Umask(mask)
		target := filepath.Join(t.TempDir(), "target")
		_, err := Tree(t.Context(), target, s.manifest(t), s.fill, Options{})
		syscall.Umask(old)
		if err != nil {
			t.Fatalf("Tree = %v", err)
		}
		for i, path := range []string{"run", "plain"} {
			if fi, err := os.Stat(filepath.Join(target, path)); err != nil || fi.Mode().Perm() != want[i] {
				t.Errorf("umask %03o: %s has mode %v, %v, want %v", mask, path, fi.Mode(), err, want[i])
			}
		}
	}
}
