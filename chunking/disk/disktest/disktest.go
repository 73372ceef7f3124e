// Package disktest has small disk images for tests: a VHDX of 8 MiB with a GPT, an EFI
// partition and a Linux system of some 70 files, and what became of it in an upgrade.
// make.sh says how they were made.
package disktest

import (
	"bytes"
	_ "embed" // the images
	"io"
	"testing"

	"github.com/klauspost/compress/zstd"
)

var (
	//go:embed base.vhdx.zst
	base []byte
	//go:embed target.vhdx.zst
	target []byte
)

// Base returns the image before the upgrade.
func Base(t testing.TB) []byte { return unpack(t, base) }

// Target returns the image after it.
func Target(t testing.TB) []byte { return unpack(t, target) }

func unpack(t testing.TB, packed []byte) []byte {
	t.Helper()
	d, err := zstd.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	data, err := io.ReadAll(d)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
