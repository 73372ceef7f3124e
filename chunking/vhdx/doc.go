// Package vhdx reads virtual hard disks of the VHDX format: what the virtual disk
// holds, and where in the image file it stands. It also writes dynamic ones.
//
// It reads dynamic, fixed and differencing images, with logical sectors of 512 and
// 4096 bytes and blocks of 1 to 256 MiB, and an image whose log was not replayed:
// the log is replayed in memory, the file stays as it is.
//
// # Format
//
// Section numbers are those of [MS-VHDX], "Virtual Hard Disk v2 (VHDX) File Format".
// Numbers are little-endian; all but the header section is aligned to 1 MiB.
//
//	offset    size    what
//	0         64 KiB  file identifier (2.2.1)
//	64 KiB    64 KiB  header 1 (2.2.2)
//	128 KiB   64 KiB  header 2; the one with the greater sequence number is current
//	192 KiB   64 KiB  region table 1 (2.2.3): where the next two regions are
//	256 KiB   64 KiB  region table 2, the same
//	≥ 1 MiB           metadata (2.6): block size, disk size, sector sizes, parent
//	≥ 1 MiB           block allocation table (2.5): state and place of each block
//	≥ 1 MiB           log (2.3): writes to the above that may not have reached it
//	≥ 1 MiB           payload blocks, and sector bitmaps in a differencing image
//
// # Guarantees
//
// The bytes may be hostile. No input makes the package panic or loop; every count
// and offset is checked against the file before it is used. An [Image] takes a few
// KiB, and where a log is pending a small multiple of the log (at most 256 MiB, with
// at most 1,048,576 descriptors). [Image.Extents] and [Image.Check] take one bit for
// each MiB of the file besides, which is at most 16 MiB.
//
// An Image never changes: it may be used by several goroutines at once if its
// reader may.
package vhdx
