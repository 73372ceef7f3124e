package deflate

// encoders are those that a reconstruction can name, by number. The table is
// frozen: entries are only ever added at its end.
var encoders = func() (all []encoder) {
	// zlib's configuration_table; gzip and Info-ZIP have the same.
	zlib := [...]encoder{
		{greedy: true, good: 4, lazy: 4, nice: 8, chain: 4},
		{greedy: true, good: 4, lazy: 5, nice: 16, chain: 8},
		{greedy: true, good: 4, lazy: 6, nice: 32, chain: 32},
		{good: 4, lazy: 4, nice: 16, chain: 16},
		{good: 8, lazy: 16, nice: 32, chain: 32},
		{good: 8, lazy: 16, nice: 128, chain: 128},
		{good: 8, lazy: 32, nice: 128, chain: 256},
		{good: 32, lazy: 128, nice: 258, chain: 1024},
		{good: 32, lazy: 258, nice: 258, chain: 4096},
	}
	for _, hash := range []struct {
		bits uint8
		kind func(level int) hashKind
	}{
		{15, func(int) hashKind { return hashRolling }}, // memLevel 8
		{16, func(int) hashKind { return hashRolling }}, // memLevel 9
		{15, func(level int) hashKind {
			if level >= 6 {
				return hashCRC3
			}
			return hashCRC4
		}},
		{15, func(int) hashKind { return hashMul }},
	} {
		for i, e := range zlib {
			e.hash, e.hashBits = hash.kind(i+1), hash.bits
			e.minLen, e.maxDist = minMatch, windowSize-262-1
			if !e.greedy {
				e.farLen = minMatch
			}
			all = append(all, e)
		}
	}
	for i, e := range zlib[1:] { // Go's levels 2 to 9
		e.hash, e.hashBits = hashGo, 17
		e.minLen, e.maxDist, e.farLen = 4, windowSize-1, 4
		switch i {
		case 0:
			e.lazy, e.nice, e.chain = 5, 16, 8
		case 1:
			e.lazy, e.nice, e.chain = 6, 32, 32
		}
		all = append(all, e)
	}
	return append(all, encoder{greedy: true, hashBits: 8}, // Huffman codes only
		encoder{hash: hashFast}) // Go's level 1
}()

// Where families begin in encoders.
const (
	zlib15 = 0
	zlib16 = 9
	zlibCR = 18
	zlibMu = 27
	golang = 36
	noLZ77 = 44
	goFast = 45
)

// guesses are the encoders in the order in which they are tried.
var guesses = []int{
	zlib15 + 5, zlib15 + 8, zlib15 + 0, zlibMu + 8, zlibMu + 5, golang + 4, golang + 3,
	zlib15 + 4, zlib15 + 6, zlib15 + 7, zlib15 + 3, zlib15 + 2, zlib15 + 1,
	zlib16 + 5, zlib16 + 8, zlib16 + 0, zlib16 + 6, zlib16 + 7, zlib16 + 4, zlib16 + 3, zlib16 + 2, zlib16 + 1,
	golang + 7, golang + 6, golang + 5, golang + 2, golang + 1, golang + 0,
	zlibMu + 0, zlibMu + 7, zlibMu + 6, zlibMu + 4, zlibMu + 3, zlibMu + 2, zlibMu + 1,
	zlibCR + 5, zlibCR + 8, zlibCR + 0, zlibCR + 7, zlibCR + 6, zlibCR + 4, zlibCR + 3, zlibCR + 2, zlibCR + 1, noLZ77, goFast,
}
