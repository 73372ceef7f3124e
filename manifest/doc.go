// Package manifest describes versions of packages: which paths they have, with
// which content, and how a store holds that content.
//
// A [Manifest] is a canonical, immutable list of entries. It says nothing of
// chunks: the same tree has the same manifest id ([Manifest.ID]) in every store,
// under every chunking policy, on every system, and a manifest can be compared
// with a folder where no store is. How a store holds a file is the file's
// [Recipe], a record found under the file's digest.
//
// An [Archive] joins a store with its catalogue of names and versions. It takes
// trees in ([Archive.Add]) and gives their files back ([Archive.Open]), verified
// against their digests.
//
// The formats are in docs/format.md.
package manifest
