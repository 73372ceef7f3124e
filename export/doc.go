// Package export materializes manifests: as a zip, a tar (plain, gzip or zstd),
// or a directory.
//
// The same manifest gives the same bytes on every system and any number of
// cores: entries are sorted, times and modes come from the manifest alone, and
// large files are compressed in blocks of fixed size, in parallel. Compressed
// bytes also depend on the version of the compression library, which go.mod
// pins; a change of it is named in the changelog.
//
// An archive appears under its name when it is complete; a directory, too.
package export
