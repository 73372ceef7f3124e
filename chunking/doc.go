// Package chunking cuts bytes into chunks at places that the content itself
// defines, so that equal runs of bytes give equal chunks wherever they stand.
//
// Cuts are found with a Rabin fingerprint over a 64-byte window
// (github.com/restic/chunker). Long runs of zero bytes are recognised first and
// come out as one chunk of their own, whatever their length: they cost nothing
// to store and keep the cuts around holes in disk images stable.
//
// # Guarantees
//
// The chunks of a stream, in order, are the stream. Chunks are never empty. A
// data chunk is at most [Params.Max] bytes; it is shorter than [Params.Min] only
// at the end of the stream or before a zero run. The same bytes and the same
// Params give the same cuts on every platform, however the reader slices them.
//
// The package knows nothing of stores, digests or manifests. Memory is
// O(Params.Max + Params.ZeroRun). A [Chunker] is not safe for concurrent use;
// use one a goroutine.
package chunking
