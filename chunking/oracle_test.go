package chunking

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// oracleCuts cuts data as the package comment says, in the plainest way: every
// window is divided by the polynomial anew, bit by bit.
func oracleCuts(data []byte, p Params) []Chunk {
	zeros := make([]int, len(data)+1) // how many zero bytes stand at each offset
	for i := len(data) - 1; i >= 0; i-- {
		if data[i] == 0 {
			zeros[i] = zeros[i+1] + 1
		}
	}
	var chunks []Chunk
	for start := 0; start < len(data); {
		if zeros[start] >= p.ZeroRun {
			chunks = append(chunks, Chunk{Offset: int64(start), Size: int64(zeros[start])})
			start += zeros[start]
			continue
		}
		end := start + 1
		for end < len(data) && end-start < p.Max && zeros[end] < p.ZeroRun {
			if end-start >= p.Min && remainder(data[end-64:end], p.Polynomial)&(1<<p.AverageBits-1) == 0 {
				break
			}
			end++
		}
		chunks = append(chunks, Chunk{Offset: int64(start), Size: int64(end - start), Data: data[start:end]})
		start = end
	}
	return chunks
}

// remainder reads window as a polynomial over GF(2), its first bit the highest
// power, and returns the rest of its division by the polynomial, of degree 53.
func remainder(window []byte, polynomial uint64) uint64 {
	rest := uint64(0)
	for _, b := range window {
		for bit := 7; bit >= 0; bit-- {
			rest = rest<<1 | uint64(b>>bit&1)
			if rest>>53 == 1 {
				rest ^= polynomial
			}
		}
	}
	return rest
}

// small are the least parameters, with which short inputs have many chunks.
func small(averageBits, maxSize, zeroRun int) Params {
	return Params{Algorithm: Algorithm, Polynomial: Polynomial, Min: 64, AverageBits: averageBits, Max: maxSize, ZeroRun: zeroRun}
}

// seeded returns n bytes that depend on seed alone.
func seeded(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// checkCuts compares the chunks of data with the oracle's.
func checkCuts(t rapid.TB, data []byte, p Params) {
	t.Helper()
	got, want := cutAll(t, bytes.NewReader(data), p), oracleCuts(data, p)
	if diff := diffChunks(got, want); diff != "" {
		t.Fatalf("chunks of %d bytes under %+v differ from the oracle's: %s", len(data), p, diff)
	}
}

func TestOracle(t *testing.T) {
	tests := []struct {
		name string
		p    Params
		n    int
	}{
		{"short chunks", small(6, 512, 64), 40_000},
		{"most chunks of the largest size", small(12, 256, 64), 40_000},
		{"all chunks of the same size", small(6, 64, 64), 4_000},
		{"larger chunks", Params{Algorithm, Polynomial, 1024, 11, 16 << 10, 4096}, 150_000},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			data := seeded(1, test.n)
			checkCuts(t, data, test.p)
			for i := 0; i+300 < len(data); i += 3000 { // holes of many lengths
				clear(data[i : i+i/100])
			}
			checkCuts(t, data, test.p)
		})
	}
}

// TestZeroRunAtLargestChunk has zero runs begin right where a chunk of the
// largest size ends, and thereabouts.
func TestZeroRunAtLargestChunk(t *testing.T) {
	p := small(26, 256, 64)
	for before := 250; before <= 262; before++ {
		for run := 60; run <= 68; run++ {
			for _, after := range []int{0, 1, 63, 64, 500} {
				data := bytes.Repeat([]byte{7}, before+run+after)
				clear(data[before : before+run])
				checkCuts(t, data, p)
			}
		}
	}
}

func TestOracleRandom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := small(rapid.IntRange(6, 12).Draw(t, "average bits"), rapid.SampledFrom([]int{64, 65, 100, 128, 256, 700}).Draw(t, "max"),
			rapid.SampledFrom([]int{64, 65, 100, 129}).Draw(t, "zero run"))
		checkCuts(t, drawInput(p).Draw(t, "input"), p)
	})
}

// drawInput puts together pieces of random bytes, of zeros and of one value,
// with lengths around those that matter.
func drawInput(p Params) *rapid.Generator[[]byte] {
	return rapid.Custom(func(t *rapid.T) []byte {
		var data []byte
		for range rapid.IntRange(0, 12).Draw(t, "pieces") {
			n := rapid.SampledFrom([]int{1, p.Min, p.Max, p.ZeroRun, p.ZeroRun / 2, 2 * p.Max}).Draw(t, "about")
			n = max(0, n+rapid.IntRange(-2, 2).Draw(t, "off by"))
			switch rapid.IntRange(0, 3).Draw(t, "kind") {
			case 0:
				data = append(data, make([]byte, n)...)
			case 1:
				data = append(data, bytes.Repeat([]byte{7}, n)...)
			default:
				data = append(data, seeded(rapid.Byte().Draw(t, "seed"), n)...)
			}
		}
		return data
	})
}
