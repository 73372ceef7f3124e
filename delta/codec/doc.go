// Package codec codes a run of target bytes against base bytes: bytes in, bytes
// out, nothing else.
//
// [Encode] tries what it knows and keeps the smallest: the bytes as they are,
// zstd, and zstd with the base bytes as a raw-content dictionary (RFC 8878,
// section 5). [Decode] gives the target bytes back. The [Kind] says which was
// kept; it is stored beside the coded bytes.
//
// Memory of both is O(base + target).
package codec
