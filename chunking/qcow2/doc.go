// Package qcow2 reads disk images of QEMU's own format: what the virtual disk holds, and
// where in the image file it stands.
//
// It reads versions 2 and 3. An image that is encrypted, compressed, has a backing file or
// its data in another file is not read; nor are snapshots, only what the disk is now.
//
// # Format
//
// "Qcow2 Image File Format" (QEMU, docs/interop/qcow2.txt). Numbers are big-endian. The
// file is clusters of 512 bytes to 2 MiB: a header, and tables of places of clusters:
//
//	level 1   where the tables of level 2 are
//	level 2   where the disk's clusters are; those without a place are zeros
//	refcount  where the blocks are that count how often each cluster of the file is used
//
// # Guarantees
//
// The bytes may be hostile. No input makes the package panic or loop; every count and
// offset is checked against the file before it is used. An [Image] takes 8 bytes for each
// table of level 2, of which there are at most 2^20; [Image.Extents] and [Image.Check] take a
// bit for each cluster of the file besides.
//
// An Image never changes: it may be used by several goroutines at once if its
// reader may.
package qcow2
