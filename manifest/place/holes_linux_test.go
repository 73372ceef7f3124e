package place

import (
	"context"
	"io"
	"os"
	"syscall"
	"testing"

	"ferry/manifest"
)

// TestHolesTakeNoRoom looks at the blocks that a file of zeros takes.
func TestHolesTakeNoRoom(t *testing.T) {
	content := make([]byte, 8<<20)
	content[4<<20] = 1
	name, err := placeOne(t, content, func(_ context.Context, _ manifest.Entry, w io.Writer) error {
		for off := 0; off < len(content); off += holeSize {
			if _, err := w.Write(content[off : off+holeSize]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatalf("File = %v", err)
	}
	fi, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	if used := fi.Sys().(*syscall.Stat_t).Blocks * 512; used > 1<<20 {
		t.Errorf("8 MiB of zeros take %d bytes of the disk, want less than 1 MiB", used)
	}
}
