// Package ext4 reads ext2, ext3 and ext4 file systems out of a partition: the tree
// with the places of every file's blocks, the areas that hold the file system's own
// structures, and the blocks that nobody uses. It never writes, and it does not
// replay a journal: [FS.NeedsRecovery] says when the image on disk is older than
// what a mount would show.
//
// # What it reads
//
//	block size    1 KiB to 64 KiB
//	inodes        128 bytes and more, 64-bit sizes, times with nanoseconds and epoch
//	descriptors   32-bit, 64-bit, flex_bg, meta_bg, sparse_super, sparse_super2
//	files         extents, block maps (ext2, ext3), inline data
//	directories   linear, hashed (read as linear ones), inline, large_dir
//	checksums     crc16 of descriptors, crc32c of all metadata: only [FS.Check] looks
//
// Clusters (bigalloc), compression, a file system that is a journal, and features
// that may not be ignored but are not known give [ErrUnsupported]. Names and contents
// of encrypted directories and files come as they stand on disk.
//
// # Hostile images
//
// No image makes the package panic or run for ever. Every place read from disk must
// lie in the file system, every block of one file's tree and every directory is
// entered once, and a walk reads no more blocks of trees and directories than four
// times what the file system has. Memory is bound by what the image holds and by
// limits: 64 MiB of group descriptors, 4 to 16 MiB of inode tables, and of the
// directories from the root to where a walk stands their names (8 Mi entries and
// 512 MiB at most in a whole walk). One file has at most 4 Mi extents (128 MiB).
//
// # Concurrency
//
// An [FS] and a [File] do not change after they are opened: they are safe for
// concurrent use if their io.ReaderAt is.
//
// The layout is that of the Linux kernel's Documentation/filesystems/ext4; offsets of
// fields in this code are its tables'.
package ext4
