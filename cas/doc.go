// Package cas is a content-addressed store of chunks.
//
// A [Store] keeps chunks under the BLAKE3-256 digest of their bytes, and records
// (small blobs, such as file recipes) under a name. Neighbouring chunks are
// compressed together into frames, frames are gathered into immutable packs, and
// sorted index files say where each key stands. All of it lives as plain objects
// in a [backend.Backend]; the formats are in docs/format.md.
//
// # Guarantees
//
// What a [Tx] committed is durable. An object appears under its name only when
// complete, and is never modified. Whatever is read is verified: bytes that do
// not hash to their key are a [*CorruptError], never data. The index can always
// be rebuilt from the packs ([RepairIndex]).
//
// Any number of processes may read and write one store at the same time.
// [Store.Prune] runs one at a time and deletes nothing that a running session
// may need.
//
// The package does not know what its chunks mean: what is live is handed to
// Prune and Check by the caller.
//
// A Store is safe for concurrent use; a Tx is used by one goroutine.
package cas
