// Package pack is the format of pack files: frames of compressed chunks with a
// directory at the end.
//
// # Format
//
// Integers are little-endian; uvarint is the unsigned LEB128 of encoding/binary,
// in its shortest form.
//
//	offset      size  field
//	0           8     magic "FERRYPK1"
//	8           …     frames, back to back
//	D           n     directory
//	D+n         32    BLAKE3-256 of the directory
//	D+n+32      8     D
//	D+n+40      4     n
//	D+n+44      4     magic "FPKE"
//
//	directory:  uvarint number of frames, then per frame
//	            u8 codec (0 stored, 1 zstd), uvarint stored length,
//	            uvarint number of blobs, then per blob
//	            u8 kind (1 chunk, 2 record), 32 bytes key, uvarint plain length
//
// A frame decodes to its blobs, one after the other. The directory stands at the
// end so that a pack can be written in one pass; the id of a pack is the
// BLAKE3-256 of all its bytes.
//
// The package holds no state and does no I/O. Decoders check every length before
// they allocate.
package pack
