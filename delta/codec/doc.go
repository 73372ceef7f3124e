// Package codec codes a run of target bytes against base bytes: bytes in, bytes
// out, nothing else.
//
// [Encode] tries what it knows and keeps the smallest; the [Kind] says which, and
// is stored beside the coded bytes. [Decode] gives the target bytes back. A file,
// or a large part of one, is one call.
//
// A patch says which runs of the target resemble which runs of the base
// (align.go), and puts right the bytes that differ. In executables most of those
// are references to what has moved; they are predicted (predict.go), after an
// alignment that sees past them (translate.go). docs/format.md has the format: what
// the predictor does is part of it, and does not change.
//
// Memory of Encode is about [EncodeMemory], of Decode target + base + 20 MiB.
package codec
