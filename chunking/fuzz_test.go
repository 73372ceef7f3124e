package chunking

import (
	"bytes"
	"testing"
)

// FuzzChunker compares with the oracle, whatever the input, the parameters and
// the sizes of reads.
func FuzzChunker(f *testing.F) {
	f.Add([]byte(nil), uint16(0), uint16(1))
	f.Add(seeded(1, 3000), uint16(0x1234), uint16(100))
	f.Add(holes(2, 3000), uint16(0xffff), uint16(1))
	f.Add(make([]byte, 500), uint16(0x0700), uint16(7))
	f.Fuzz(func(t *testing.T, data []byte, policy, read uint16) {
		if len(data) > 1<<14 {
			data = data[:1<<14]
		}
		p := small(6+int(policy&7), 64+int(policy>>3&255), 64+int(policy>>11))
		got := cutAll(t, slicer{bytes.NewReader(data), func() int { return 1 + int(read) }}, p)
		checkChunks(t, got, data, p)
		if diff := diffChunks(got, oracleCuts(data, p)); diff != "" {
			t.Fatalf("chunks differ from the oracle's: %s", diff)
		}
	})
}
