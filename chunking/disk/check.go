package disk

import (
	"context"
	"errors"
	"fmt"
	"io"

	"ferry/chunking/ext4"
	"ferry/chunking/fat"
	"ferry/chunking/partition"
	"ferry/chunking/qcow2"
	"ferry/chunking/vhd"
	"ferry/chunking/vhdx"
)

// Finding is something that is wrong with an image.
type Finding struct {
	Where string `json:"where"` // "vhdx", "vhd", "qcow2", "partition table", or "volume 2"
	Off   int64  `json:"off"`   // bytes: in the file, on the disk, or in the volume
	Text  string `json:"text"`
}

// Check looks for damage in an image, without knowing what it should hold: checksums
// and allocation tables of VHDX, VHD and qcow2, those of partition tables, checksums and
// bitmaps of ext4, the tables of FAT. Findings go to report. The error is [ErrFormat] for
// a file that is no image, that of reading, or of ctx.
func Check(ctx context.Context, r io.ReaderAt, size int64, report func(Finding)) error {
	m := &Image{Format: "raw", file: r, size: size, disk: r, length: size, sector: 512}
	m.recognise()
	in := func(where string) func(off int64, text string) error {
		return func(off int64, text string) error {
			report(Finding{where, off, text})
			return ctx.Err()
		}
	}
	if err := m.open(); err != nil && !malformed(err) {
		return err
	} else if err != nil && m.Virtual == nil {
		return in(m.Format)(0, err.Error()) // nothing of it can be read
	}
	if m.Virtual != nil {
		if err := m.Virtual.Check(in(m.Format)); err != nil {
			return err
		}
	}
	if err := m.volumes(); err != nil {
		if malformed(err) {
			return in("partition table")(0, err.Error())
		}
		return err
	}
	if m.Table != nil {
		if err := m.Table.Check(in("partition table")); err != nil {
			return err
		}
	}
	for _, v := range m.Volumes {
		if err := v.check(ctx, in(fmt.Sprintf("volume %d", v.Number))); err != nil {
			return err
		}
	}
	return nil
}

// Malformed reports whether an error is about an image's bytes: damaged, or of a kind
// that is not read.
func Malformed(err error) bool {
	for _, bad := range []error{ErrFormat, ErrUnclean, ErrUnsound, vhdx.ErrFormat, vhd.ErrFormat, qcow2.ErrFormat, vhdx.ErrUnsupported, vhd.ErrUnsupported, qcow2.ErrUnsupported, partition.ErrUnsupported, ext4.ErrUnsupported, fat.ErrUnsupported} {
		if errors.Is(err, bad) {
			return true
		}
	}
	var x *vhdx.ParentError
	var d *vhd.ParentError
	return malformed(err) || errors.As(err, &x) || errors.As(err, &d)
}

// malformed reports whether an error is about an image's bytes.
func malformed(err error) bool {
	for _, bad := range []error{vhdx.ErrInvalid, vhd.ErrInvalid, qcow2.ErrInvalid, partition.ErrInvalid, ext4.ErrInvalid, fat.ErrInvalid} {
		if errors.Is(err, bad) {
			return true
		}
	}
	return false
}

func (v *Volume) check(ctx context.Context, report func(int64, string) error) (err error) {
	switch {
	case v.Err != nil:
		return report(0, v.Err.Error())
	case v.Ext4 != nil:
		if err = v.Ext4.Check(ctx, func(off int64, text string) { report(off, text) }); err == nil {
			err = v.Ext4.Walk(ctx, func(*ext4.Node) error { return nil })
		}
	case v.FAT != nil:
		err = v.FAT.Walk(ctx, func(*fat.Node) error { return nil })
	}
	if err != nil && malformed(err) {
		return report(0, err.Error())
	}
	return err
}
