package cas

import (
	"encoding/json"
	"strings"
	"testing"
)

// The digest of no bytes, from the test vectors of the BLAKE3 specification.
const emptyHex = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"

func TestDigestText(t *testing.T) {
	d := Sum(nil)
	if d.Hex() != emptyHex || d.String() != "blake3:"+emptyHex || d.Short() != emptyHex[:12] {
		t.Errorf("digest of nothing = %s, %s, %s, want %s", d.Hex(), d, d.Short(), emptyHex)
	}
	if got, err := ParseDigest(d.String()); got != d || err != nil {
		t.Errorf("ParseDigest(%s) = %s, %v", d, got, err)
	}
	coded, err := json.Marshal(map[string]Digest{"d": d})
	if want := `{"d":"` + d.String() + `"}`; string(coded) != want || err != nil {
		t.Errorf("Marshal = %s, %v, want %s", coded, err, want)
	}
	var back map[string]Digest
	if err := json.Unmarshal(coded, &back); err != nil || back["d"] != d {
		t.Errorf("Unmarshal(%s) = %v, %v", coded, back, err)
	}
	if d.IsZero() || !(Digest{}).IsZero() {
		t.Error("IsZero is true of the zero Digest alone")
	}
}

func TestParseDigestRefuses(t *testing.T) {
	for _, text := range []string{
		"", "blake3:", emptyHex, "sha256:" + emptyHex, "BLAKE3:" + emptyHex, "blake3:" + strings.ToUpper(emptyHex),
		"blake3:" + emptyHex[1:], "blake3:" + emptyHex + "0", "blake3: " + emptyHex[1:], "blake3:" + emptyHex[:63] + "g",
		"blake3:" + emptyHex[:62] + "é",
	} {
		d, err := ParseDigest(text)
		if err == nil || !d.IsZero() {
			t.Errorf("ParseDigest(%q) = %s, %v, want an error", text, d, err)
		}
		kept := Sum([]byte("kept"))
		if err := kept.UnmarshalText([]byte(text)); err == nil || kept != Sum([]byte("kept")) {
			t.Errorf("UnmarshalText(%q) = %v, and changed its receiver to %s", text, err, kept)
		}
	}
}

func TestHasher(t *testing.T) {
	h := NewHasher()
	for range 2 {
		h.Write([]byte("ab"))
		h.Write([]byte("c"))
		if got, want := h.Digest(), Sum([]byte("abc")); got != want {
			t.Errorf("Hasher = %s, want %s", got, want)
		}
		h.Reset()
	}
}
