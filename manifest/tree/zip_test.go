package tree

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
)

// bzip2Hello is what bzip2 -9 makes of bzip2Plain.
const (
	bzip2Hello = "425a683931415926535955e9afe5000003d9800010400010001366d0102000229a3269e91fa840000d2af426e0bf2c0162ee48a70a120abd35fca0"
	bzip2Plain = "hello from bzip2\n"
)

func TestZipMethods(t *testing.T) {
	packed, err := hex.DecodeString(bzip2Hello)
	if err != nil {
		t.Fatal(err)
	}
	large := append(seeded(1, 3<<20), make([]byte, 3<<20)...)
	entries := []zipEntry{
		{name: "stored", data: large},
		{name: "deflated", data: large, method: 8},
		{name: "zstd", data: large, method: methodZstd},
		{name: "bzip2", data: packed, method: methodBzip2, lie: func(h *zipSizes) { h.size, h.crc = uint64(len(bzip2Plain)), 0x2b236ff8 }},
		{name: "empty", method: 8},
		{name: "stored empty"},
	}
	for _, form := range []string{"plain", "descriptor", "zip64", "zip64 with descriptor"} {
		t.Run(form, func(t *testing.T) {
			for i := range entries {
				entries[i].zip64, entries[i].descriptor = strings.HasPrefix(form, "zip64"), strings.HasSuffix(form, "descriptor")
			}
			tr := mustOpen(t, buildZip(entries...), "zip")
			got := mustWalk(t, tr)
			for _, name := range []string{"stored", "deflated", "zstd"} {
				if !bytes.Equal(got[name].data, large) || got[name].Size != int64(len(large)) {
					t.Errorf("%s has %d other bytes, want %d", name, len(got[name].data), len(large))
				}
			}
			if string(got["bzip2"].data) != bzip2Plain {
				t.Errorf("bzip2 has %q, want %q", got["bzip2"].data, bzip2Plain)
			}
			if len(got) != len(entries) || len(got["empty"].data) > 0 {
				t.Errorf("walk = %d nodes, want %d", len(got), len(entries))
			}
		})
	}
}

func TestZipNames(t *testing.T) {
	const utf8Flag = 0x800
	tests := []struct {
		name  string
		entry zipEntry
		want  string // "" when the path is refused, "-" when there is no node
	}{
		{"plain", zipEntry{name: "a/b.txt"}, "a/b.txt"},
		{"dot in front", zipEntry{name: "./a"}, "a"},
		{"backslashes", zipEntry{name: `K2s\docs\readme.txt`}, "K2s/docs/readme.txt"},
		{"UTF-8 with the flag", zipEntry{name: "gr\u00fc\u00df", flags: utf8Flag}, "gr\u00fc\u00df"},
		{"UTF-8 without the flag", zipEntry{name: "gr\u00fc\u00df"}, "gr\u00fc\u00df"},
		{"decomposed", zipEntry{name: "u\u0308", flags: utf8Flag}, "u\u0308"},
		{"CP437", zipEntry{name: "gr\x81\xe1"}, "gr\u00fc\u00df"},
		{"CP437 with the flag of UTF-8", zipEntry{name: "gr\x81\xe1", flags: utf8Flag}, "gr\u00fc\u00df"},
		{"Unicode path", zipEntry{name: "gr\x81\xe1", extra: unicodePathExtra("gr\x81\xe1", "gr\u00fc\u00df \u2713")}, "gr\u00fc\u00df \u2713"},
		{"Unicode path of an ASCII name", zipEntry{name: "gr__", extra: unicodePathExtra("gr__", "gr\u00fc\u00df")}, "gr\u00fc\u00df"},
		{"Unicode path of another name", zipEntry{name: "gr\x81\xe1", extra: unicodePathExtra("other", "wrong")}, "gr\u00fc\u00df"},
		{"Unicode path that is not UTF-8", zipEntry{name: "gr\x81\xe1", extra: unicodePathExtra("gr\x81\xe1", "\xff")}, "gr\u00fc\u00df"},
		{"Unicode path behind another field", zipEntry{name: "\x81", extra: append(le(nil, uint16(0xcafe), uint16(2), uint16(0)), unicodePathExtra("\x81", "x")...)}, "x"},
		{"Unicode path, of no use with the flag", zipEntry{name: "a", flags: utf8Flag, extra: unicodePathExtra("a", "b")}, "a"},
		{"the root", zipEntry{name: "./"}, "-"},
		{"a slash", zipEntry{name: "/"}, "-"},
		{"up", zipEntry{name: "../a"}, ""},
		{"up inside", zipEntry{name: "a/../../b"}, ""},
		{"up with backslashes", zipEntry{name: `..\..\a`}, ""},
		{"up in a Unicode path", zipEntry{name: "\x81", extra: unicodePathExtra("\x81", "../a")}, ""},
		{"absolute", zipEntry{name: "/etc/passwd"}, ""},
		{"absolute with a backslash", zipEntry{name: `\Windows\x`}, ""},
		{"share", zipEntry{name: `\\server\share\x`}, ""},
		{"drive letter", zipEntry{name: `C:\x`}, ""},
		{"drive letter and no slash", zipEntry{name: "c:x"}, ""},
		{"NUL", zipEntry{name: "a\x00b"}, ""},
		{"two slashes", zipEntry{name: "a//b"}, ""},
		{"folder up", zipEntry{name: "../a/"}, ""},
		{"too long", zipEntry{name: strings.Repeat("x", 256)}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			tr, err := openBytes(t, buildZip(test.entry))
			if test.want == "" {
				var unsafe *UnsafePathError
				if !errors.As(err, &unsafe) {
					t.Errorf("Open = %v, want an UnsafePathError", err)
				}
				return
			}
			if err != nil {
				t.Fatalf("Open = %v", err)
			}
			got, want := paths(t, tr), []string{test.want}
			if test.want == "-" {
				want = nil
			}
			if !slices.Equal(got, want) {
				t.Errorf("walk = %q, want %q", got, want)
			}
		})
	}
}

func TestZipKinds(t *testing.T) {
	tests := []struct {
		name  string
		entry zipEntry
		want  Node
	}{
		{"file", zipEntry{name: "n", data: []byte("x")}, Node{Path: "n", Kind: File, Size: 1}},
		{"program", zipEntry{name: "n", creator: unixCreator, attrs: unixAttrs(0o100755)}, Node{Path: "n", Kind: File, Exec: true}},
		{"program of its owner", zipEntry{name: "n", creator: unixCreator, attrs: unixAttrs(0o100700)}, Node{Path: "n", Kind: File, Exec: true}},
		{"program from a Mac", zipEntry{name: "n", creator: macCreator, attrs: unixAttrs(0o100755)}, Node{Path: "n", Kind: File, Exec: true}},
		{"no program", zipEntry{name: "n", creator: unixCreator, attrs: unixAttrs(0o100644)}, Node{Path: "n", Kind: File}},
		{"no mode", zipEntry{name: "n", creator: unixCreator}, Node{Path: "n", Kind: File}},
		{"from DOS, where all may be executed", zipEntry{name: "n", creator: 0, attrs: 0x20}, Node{Path: "n", Kind: File}},
		{"folder", zipEntry{name: "n/"}, Node{Path: "n", Kind: Dir}},
		{"folder ending in a backslash", zipEntry{name: `K2s\n\`}, Node{Path: "K2s/n", Kind: Dir}},
		{"folder by its mode", zipEntry{name: "n", creator: unixCreator, attrs: unixAttrs(0o040755)}, Node{Path: "n", Kind: Dir}},
		{"folder by its DOS attribute", zipEntry{name: "n", attrs: 0x10}, Node{Path: "n", Kind: Dir}},
		{"link", zipEntry{name: "n", data: []byte("../target"), creator: unixCreator, attrs: unixAttrs(0o120777)}, Node{Path: "n", Kind: Link, Link: "../target"}},
		{"deflated link", zipEntry{name: "n", data: []byte("../target"), method: 8, creator: unixCreator, attrs: unixAttrs(0o120777)}, Node{Path: "n", Kind: Link, Link: "../target"}},
		{"pipe", zipEntry{name: "n", creator: unixCreator, attrs: unixAttrs(0o010644)}, Node{Path: "n", Kind: Special}},
		{"device", zipEntry{name: "n", creator: unixCreator, attrs: unixAttrs(0o020644)}, Node{Path: "n", Kind: Special}},
	}
	for _, test := range tests {
		all, err := walk(t, mustOpen(t, buildZip(test.entry), "zip"))
		if err != nil || len(all) != 1 {
			t.Errorf("%s: walk = %v, %v, want one node", test.name, all, err)
			continue
		}
		got := all[0].Node
		got.ModTime = 0
		if got != test.want {
			t.Errorf("%s: walk = %+v, want %+v", test.name, got, test.want)
		}
	}
}

func TestZipTimes(t *testing.T) {
	stamp := func(seconds uint32) []byte { return le(nil, uint16(0x5455), uint16(5), byte(1), seconds) }
	date := uint16(23 + 11<<5 + (2023-1980)<<9)
	clock := uint16(20/2 + 13<<5 + 22<<11)
	for name, test := range map[string]struct {
		entry zipEntry
		want  int64
	}{
		"DOS":       {zipEntry{name: "n", date: date, time: clock}, 1700777600},
		"timestamp": {zipEntry{name: "n", date: date, time: clock, extra: stamp(1700000001)}, 1700000001},
	} {
		all, err := walk(t, mustOpen(t, buildZip(test.entry), "zip"))
		if err != nil || len(all) != 1 || all[0].ModTime != test.want {
			t.Errorf("%s: walk = %+v, %v, want time %d", name, all, err, test.want)
		}
	}
}

func TestZipRefuses(t *testing.T) {
	link := zipEntry{name: "n", creator: unixCreator, attrs: unixAttrs(0o120777), data: []byte(strings.Repeat("x", maxLinkTarget+1))}
	brokenLink := link
	brokenLink.data, brokenLink.lie = []byte("target"), func(h *zipSizes) { h.crc++ }
	tests := []struct {
		name    string
		entries []zipEntry
	}{
		{"file twice", []zipEntry{{name: "a"}, {name: "a"}}},
		{"file twice, once with a backslash", []zipEntry{{name: "d/a"}, {name: `d\a`}}},
		{"encrypted", []zipEntry{{name: "a", data: []byte("x"), flags: 1}}},
		{"link too long", []zipEntry{link}},
		{"link with a wrong CRC", []zipEntry{brokenLink}},
		{"entries that overlap", []zipEntry{{name: "a", data: seeded(1, 1000)}, {name: "b", lie: func(h *zipSizes) { h.offset, h.packed, h.size = 0, 1000, 1000 }}}},
		{"more bytes than the file", []zipEntry{{name: "a", lie: func(h *zipSizes) { h.packed = 1 << 30 }}}},
		{"sizes that overflow when added", []zipEntry{
			{name: "a", zip64: true, lie: func(h *zipSizes) { h.packed = 1 << 63 }}, {name: "b", zip64: true, lie: func(h *zipSizes) { h.packed = 1 << 63 }}}},
		{"absurd size", []zipEntry{{name: "a", zip64: true, lie: func(h *zipSizes) { h.size = 1<<63 + 1 }}}},
	}
	for _, test := range tests {
		if tr, err := openBytes(t, buildZip(test.entries...)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: Open = %v, %v, want %v", test.name, tr, err, ErrFormat)
		}
	}
}

// TestZipLies has entries whose content is not what their headers say: it shows
// when they are read, in whichever way.
func TestZipLies(t *testing.T) {
	data := seeded(1, 1000)
	tests := []struct {
		name  string
		entry zipEntry
	}{
		{"wrong CRC", zipEntry{lie: func(h *zipSizes) { h.crc ^= 1 }}},
		{"less than it says", zipEntry{lie: func(h *zipSizes) { h.size = 1001 }}},
		{"far less than it says", zipEntry{zip64: true, lie: func(h *zipSizes) { h.size = 1 << 40 }}},
		{"more than it says", zipEntry{lie: func(h *zipSizes) { h.size = 999 }}},
		{"something where it says nothing", zipEntry{lie: func(h *zipSizes) { h.size, h.crc = 0, 0 }}},
		{"packed size too small", zipEntry{lie: func(h *zipSizes) { h.packed -= 10 }}},
		{"no such offset", zipEntry{lie: func(h *zipSizes) { h.offset += 7 }}},
		{"unknown method", zipEntry{method: 97}},
	}
	for _, test := range tests {
		for _, method := range []uint16{0, 8, methodZstd} {
			e := test.entry
			e.name, e.data = "bad", data
			if e.method == 0 {
				e.method = method
			}
			tr := mustOpen(t, buildZip(e, zipEntry{name: "good", data: seeded(2, 2000)}), "zip")
			if all, err := walk(t, tr); !errors.Is(err, ErrFormat) || err != nil && !strings.Contains(err.Error(), "bad") {
				t.Errorf("%s, method %d: walk = %v, want %v that names the entry", test.name, e.method, err, ErrFormat)
			} else if len(all) > 0 {
				t.Errorf("%s, method %d: walk goes on", test.name, e.method)
			}
			if r, err := tr.Open(t.Context(), "bad"); err == nil {
				_, err = io.Copy(io.Discard, r)
				r.Close()
				if !errors.Is(err, ErrFormat) {
					t.Errorf("%s, method %d: Open gives it whole: %v", test.name, e.method, err)
				}
			}
			c, err := tr.OpenAt(t.Context(), "bad")
			if err == nil {
				c.Close()
			}
			if wrongCRC := test.name == "wrong CRC" && e.method == 0; !wrongCRC && !errors.Is(err, ErrFormat) {
				t.Errorf("%s, method %d: OpenAt = %v, want %v", test.name, e.method, err, ErrFormat)
			}
			checkOpen(t, tr, "good", seeded(2, 2000))
		}
	}
}

func TestZipCutOff(t *testing.T) {
	whole := buildZip(zipEntry{name: "a", data: seeded(1, 200), method: 8}, zipEntry{name: "dir/"}, zipEntry{name: "dir/b", data: seeded(2, 100)})
	for n := 4; n < len(whole); n++ {
		tr, err := openBytes(t, whole[:n])
		if err == nil && tr.Format() == "zip" {
			t.Errorf("Open of the first %d of %d bytes takes it for whole", n, len(whole))
		}
		if err != nil && !errors.Is(err, ErrFormat) {
			t.Errorf("Open of the first %d of %d bytes = %v, want %v", n, len(whole), err, ErrFormat)
		}
	}
}

func TestZipEmpty(t *testing.T) {
	if got := mustWalk(t, mustOpen(t, buildZip(), "zip")); len(got) != 0 {
		t.Errorf("walk = %v, want nothing", got)
	}
}

func TestZipMissing(t *testing.T) {
	tr := mustOpen(t, buildZip(zipEntry{name: "a"}, zipEntry{name: "d/"}), "zip")
	for _, path := range []string{"b", "d", "", "../a"} {
		if _, err := tr.Open(t.Context(), path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Open(%q) = %v, want %v", path, err, fs.ErrNotExist)
		}
		if _, err := tr.OpenAt(t.Context(), path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("OpenAt(%q) = %v, want %v", path, err, fs.ErrNotExist)
		}
	}
}
