// Package vdisk is what the formats of virtual disk images have in common: what an
// image says of itself, and how a disk is read whose bytes stand in parts of a file.
package vdisk

import (
	"cmp"
	"fmt"
	"io"
	"slices"

	"ferry/chunking/ondisk"
)

// What [Extent].File is when the bytes are not in the image file.
const (
	Hole     = -1 // they are zeros
	InParent = -2 // they are the parent's, only in a differencing image
)

// Extent is a run of the virtual disk, in bytes.
type Extent struct {
	Off, Size int64 // where it is on the virtual disk
	File      int64 // where it is in the image file, or [Hole] or [InParent]
}

// Area is a run of the image file that is not the virtual disk's, in bytes.
type Area struct {
	Name      string
	Off, Size int64
}

// Apart returns areas in the order of the file, without those that are empty, overlap one
// before them, or reach beyond a file of size bytes.
func Apart(areas []Area, size int64) []Area {
	slices.SortStableFunc(areas, func(a, b Area) int { return cmp.Compare(a.Off, b.Off) })
	end := int64(0)
	return slices.DeleteFunc(areas, func(a Area) bool {
		if a.Size <= 0 || a.Off < end || a.Off+a.Size > size {
			return true
		}
		end = a.Off + a.Size
		return false
	})
}

// Info is what an image says of itself.
type Info struct {
	Kind           string // "dynamic", "fixed" or "differencing"
	BlockSize      int64  // bytes; 0 if the format has no blocks
	LogicalSector  int64  // bytes, 512 or 4096
	PhysicalSector int64  // bytes, 512 or 4096
	Creator        string // the program that wrote it
	ID             string // GUID of the virtual disk
	LogPending     bool   // the file's log was not replayed: only its package's reading of it is right
	Parent         []string
}

// Parent is the virtual disk on which a differencing image builds.
type Parent interface {
	io.ReaderAt
	Size() int64 // bytes
}

// Image is the virtual disk in an image file, of whatever format.
type Image interface {
	Parent
	SectorSize() int64 // of a logical sector, in bytes
	Info() Info
	// Structures returns where the image file's own structures are, in the order of
	// the file and without overlaps.
	Structures() []Area
	// Extents gives the whole virtual disk to fn, in order. Runs that are neighbours
	// both on the disk and in the file are one. An error of fn is returned as it is.
	Extents(fn func(Extent) error) error
	// Check reports what is wrong with the image, until report fails.
	Check(report func(off int64, text string) error) error
}

// Reader reads a virtual disk through its parts.
type Reader struct {
	Format string      // its name, for messages
	Size   int64       // of the disk, in bytes
	File   io.ReaderAt // the image file
	Parent Parent      // nil unless parts are in it; what lies behind its end is zeros
	// Walk gives what the disk's bytes [off, end) are to fn, in order; within the disk.
	Walk func(off, end int64, fn func(Extent) error) error
}

// ReadAt reads the virtual disk. Errors come from Walk and the readers.
func (r *Reader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("%s: negative offset", r.Format)
	}
	if off >= r.Size {
		return 0, io.EOF
	}
	n := min(int64(len(p)), r.Size-off)
	done := int64(0)
	err := r.Walk(off, off+n, func(e Extent) error {
		dst := p[e.Off-off:][:e.Size]
		switch {
		case e.File >= 0:
			if err := ondisk.ReadFull(r.File, dst, e.File); err != nil {
				return fmt.Errorf("%s: virtual disk at %d: %w", r.Format, e.Off, err)
			}
		case e.File == InParent:
			if err := r.readParent(dst, e.Off); err != nil {
				return fmt.Errorf("%s: parent at %d: %w", r.Format, e.Off, err)
			}
		default:
			clear(dst)
		}
		done += e.Size
		return nil
	})
	if err == nil && n < int64(len(p)) {
		err = io.EOF
	}
	return int(done), err
}

func (r *Reader) readParent(p []byte, off int64) error {
	n := max(0, min(int64(len(p)), r.Parent.Size()-off))
	clear(p[n:])
	return ondisk.ReadFull(r.Parent, p[:n], off)
}

// Join gives what walk finds to fn, extents that are neighbours both on the disk and in
// the file as one.
func Join(walk func(fn func(Extent) error) error, fn func(Extent) error) error {
	var last Extent
	err := walk(func(e Extent) error {
		follows := e.File == last.File
		if e.File >= 0 {
			follows = last.File >= 0 && e.File == last.File+last.Size
		}
		if last.Size > 0 && follows {
			last.Size += e.Size
			return nil
		}
		give := last
		if last = e; give.Size == 0 {
			return nil
		}
		return fn(give)
	})
	if err != nil || last.Size == 0 {
		return err
	}
	return fn(last)
}
