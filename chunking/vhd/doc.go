// Package vhd reads virtual hard disks of the VHD format: what the virtual disk
// holds, and where in the image file it stands.
//
// It reads fixed, dynamic and differencing images, up to 2 TiB.
//
// # Format
//
// "Virtual Hard Disk Image Format Specification", version 1.0 (Microsoft, 2006).
// Numbers are big-endian; sectors have 512 bytes.
//
//	fixed     the virtual disk's bytes, then a footer of 512 bytes
//	dynamic   a copy of the footer, a header of 1024 bytes that says where the block
//	          allocation table is, blocks, each behind a bitmap of its sectors, and
//	          the footer
//
// A one in the bitmap is a sector that the block holds; the others are zeros, or the
// parent's in a differencing image.
//
// # Guarantees
//
// The bytes may be hostile. No input makes the package panic or loop; every count
// and offset is checked against the file before it is used. An [Image] takes a few
// KiB. [Image.Extents] and [Image.Check] take 4 bytes for each block of the file
// besides, never more than the file's own block allocation table.
//
// An Image never changes: it may be used by several goroutines at once if its
// reader may.
package vhd
