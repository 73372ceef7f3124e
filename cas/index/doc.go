// Package index is the format of index files: sorted tables that say in which
// pack a key stands.
//
// # Format
//
// Integers are little-endian.
//
//	offset  size       field
//	0       8          magic "FERRYIX1"
//	8       4          P, number of packs
//	12      4          F, fan-out bits, 0 to 24
//	16      8          N, number of entries
//	24      32 × P     pack ids
//	…       4 × 2^F    fan-out: number of entries whose key's first F bits are ≤ i
//	…       32         BLAKE3-256 of all bytes before
//	…       52 × N     entries, sorted by key, then pack
//
//	entry:  32 key, 4 pack (index into the ids), 4 frame offset in the pack,
//	        4 frame stored length, 3 offset in the decoded frame, 3 plain length,
//	        1 frame codec, 1 kind
//
// A lookup reads one bucket of about 64 entries, so a table of any size opens at
// once and needs 4 bytes of memory per 64 entries; only small tables are kept in
// memory whole. Keys are spread evenly, being
// hashes. One key may have several entries, when writers raced.
package index
