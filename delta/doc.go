// Package delta makes and applies deltas: packages that turn a base version into
// a target version, byte-exact and verified.
//
// A delta is a plain zip that any tool can list:
//
//	README.txt        what this is and how to apply it
//	apply.ps1         applies it where it was unpacked; apply.sh does, too
//	tool/…            programs that it carries for that
//	delta.json        what changed, and what each file costs; for people and tools
//	target            the target's manifest, but for what the bases tell
//	base.need         what of the base is read or replaced, with digests
//	plan              how each file is put together (binary, docs/format.md)
//	payload/000000…   coded windows of new bytes, each decodable on its own
//
// [Create] works on manifests and chunk lists, so versions in a store and
// packages on disk do equally. [Apply] makes a new folder, [ApplyInPlace] changes
// a tree where it stands and keeps what [Undo] needs to take that back. Both
// verify every file against the target's manifest before it becomes visible, and
// go on where an interrupted call stopped.
package delta
