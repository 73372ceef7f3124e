package manifest

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"ferry/cas"
	"ferry/manifest/tree"
)

func file(path, content string) Entry {
	return Entry{Path: path, Type: TypeFile, ModTime: 1_700_000_000, Size: int64(len(content)), Digest: cas.Sum([]byte(content))}
}

func program(path, content string) Entry {
	e := file(path, content)
	e.Exec = true
	return e
}

func link(path, target string) Entry { return Entry{Path: path, Type: TypeLink, Link: target} }

func dir(path string) Entry { return Entry{Path: path, Type: TypeDir} }

func mustNew(t testing.TB, entries ...Entry) *Manifest {
	t.Helper()
	m, err := New(entries)
	if err != nil {
		t.Fatalf("New(%v) = %v", entries, err)
	}
	return m
}

// at returns a file of another time.
func at(e Entry, seconds int64) Entry {
	e.ModTime = seconds
	return e
}

// TestGoldenManifests holds the format still: testdata/v1 is to be readable for ever.
func TestGoldenManifests(t *testing.T) {
	tests := []struct {
		name    string
		entries []Entry
	}{
		{"empty", nil},
		{"plain", []Entry{file("readme", "read me\n"), program("bin/run", "#!/bin/sh\n"), file("bin/empty", ""), dir("docs/empty"), link("docs/link", "../readme")}},
		{"names", []Entry{
			file("a \"quoted\" name", "1"), file("tab\tand\nline\rand\x01and\x7f\b\f", "2"), file("gr\u00fc\u00df", "3"), file("gru\u0308\u00df", "4"),
			file("<&>", "5"), file("\u2028\u2029", "6"), file("\U0001f600", "7"), file("a", "8"), file("a.b", "9"), file("a-b/c", "10"), file("A", "11"),
			link("link", "C:\\odd \"target\"\n/../.."), dir(" "),
		}},
		{"times", []Entry{at(file("epoch", "x"), 0), at(file("before", "x"), -1), at(file("first", "x"), minTime), at(file("last", "x"), maxTime), at(file("32 bits", "x"), 1<<31)}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := mustNew(t, test.entries...)
			golden(t, "v1/"+test.name+".manifest", m.Encode())
			data, err := os.ReadFile(filepath.Join("testdata", "v1", test.name+".manifest"))
			if err != nil {
				t.Fatal(err)
			}
			got, err := Decode(data)
			if err != nil || !sameEntries(got, m) {
				t.Errorf("Decode = %v, %v, want %v", got, err, m)
			}
		})
	}
}

func sameEntries(a, b *Manifest) bool {
	return len(a.Entries) == len(b.Entries) && (len(a.Entries) == 0 || reflect.DeepEqual(a.Entries, b.Entries))
}

func TestEncodeDecodeRandom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawManifest().Draw(t, "manifest")
		data := m.Encode()
		got, err := Decode(data)
		if err != nil || !sameEntries(got, m) {
			t.Fatalf("Decode(Encode(%v)) = %v, %v", m, got, err)
		}
		if again := got.Encode(); !bytes.Equal(again, data) {
			t.Fatalf("Encode(Decode) = %q, want %q", again, data)
		}
		if got.ID() != m.ID() {
			t.Fatalf("ID() = %s, want %s", got.ID(), m.ID())
		}
	})
}

// drawManifest draws odd names, which New may refuse together; those that it
// does are left out.
func drawManifest() *rapid.Generator[*Manifest] {
	part := rapid.OneOf(
		rapid.StringN(1, 12, 60),
		rapid.SampledFrom([]string{"a", "A", "b", "\u00fc", "u\u0308", "\"", "\x01", "\n", " ", "<", "\u2028", "\ufeff", "\U0001f600", "..a", "a."}))
	return rapid.Custom(func(t *rapid.T) *Manifest {
		m := &Manifest{}
		for range rapid.IntRange(0, 12).Draw(t, "entries") {
			path := strings.Join(rapid.SliceOfN(part, 1, 3).Draw(t, "path"), "/")
			var e Entry
			switch rapid.IntRange(0, 3).Draw(t, "type") {
			case 0:
				e = dir(path)
			case 1:
				e = link(path, rapid.StringN(1, 20, 80).Draw(t, "target"))
			default:
				e = at(file(path, rapid.String().Draw(t, "content")), rapid.Int64Range(minTime, maxTime).Draw(t, "time"))
				e.Exec = rapid.Bool().Draw(t, "exec")
			}
			if with, err := New(append(append([]Entry(nil), m.Entries...), e)); err == nil {
				m = with
			}
		}
		return m
	})
}

func TestUnicodeFormsStayApart(t *testing.T) {
	composed, decomposed := mustNew(t, file("\u00fc", "x")), mustNew(t, file("u\u0308", "x"))
	if composed.ID() == decomposed.ID() {
		t.Errorf("%q and %q have one id", composed.Entries[0].Path, decomposed.Entries[0].Path)
	}
	both := mustNew(t, file("\u00fc", "x"), file("u\u0308", "x"))
	if got, err := Decode(both.Encode()); err != nil || len(got.Entries) != 2 {
		t.Errorf("Decode of both forms = %v, %v, want two entries", got, err)
	}
}

func TestNewRefuses(t *testing.T) {
	with := func(e Entry, change func(*Entry)) Entry {
		change(&e)
		return e
	}
	tests := []struct {
		name    string
		entries []Entry
		names   string // what the error must speak of
	}{
		{"a path twice", []Entry{file("a", "x"), file("b", "x"), file("a", "y")}, `"a"`},
		{"a file in a file", []Entry{file("a", "x"), file("a/b", "x")}, `"a/b"`},
		{"a file deep in a file", []Entry{file("a", "x"), file("a-", "x"), file("a/b/c/d", "x")}, `"a/b/c/d"`},
		{"a file in a link", []Entry{link("a", "x"), file("a/b", "x")}, `"a/b"`},
		{"a file in an empty folder", []Entry{dir("a"), file("a/b", "x")}, `"a/b"`},
		{"no type", []Entry{{Path: "a"}}, `"a"`},
		{"another type", []Entry{{Path: "a", Type: "pipe"}}, `"pipe"`},
		{"a file without digest", []Entry{with(file("a", "x"), func(e *Entry) { e.Digest = cas.Digest{} })}, `"a"`},
		{"a file of negative size", []Entry{with(file("a", "x"), func(e *Entry) { e.Size = -1 })}, `"a"`},
		{"an empty file with another digest", []Entry{with(file("a", "x"), func(e *Entry) { e.Size = 0 })}, `"a"`},
		{"a file of one byte with no content", []Entry{with(file("a", ""), func(e *Entry) { e.Size = 1 })}, `"a"`},
		{"a file with a target", []Entry{with(file("a", "x"), func(e *Entry) { e.Link = "b" })}, `"a"`},
		{"a file before the year 1", []Entry{at(file("a", "x"), minTime-1)}, `"a"`},
		{"a file after the year 9999", []Entry{at(file("a", "x"), maxTime+1)}, `"a"`},
		{"a link without target", []Entry{link("a", "")}, `"a"`},
		{"a link with a NUL", []Entry{link("a", "b\x00")}, `"a"`},
		{"a link not in UTF-8", []Entry{link("a", "b\xff")}, `"a"`},
		{"a link too long", []Entry{link("a", strings.Repeat("x", maxLink+1))}, `"a"`},
		{"a link with a size", []Entry{with(link("a", "b"), func(e *Entry) { e.Size = 1 })}, `"a"`},
		{"a link with a digest", []Entry{with(link("a", "b"), func(e *Entry) { e.Digest = emptyDigest })}, `"a"`},
		{"a folder with a time", []Entry{with(dir("a"), func(e *Entry) { e.ModTime = 1 })}, `"a"`},
		{"a folder that is executable", []Entry{with(dir("a"), func(e *Entry) { e.Exec = true })}, `"a"`},
		{"a folder with a target", []Entry{with(dir("a"), func(e *Entry) { e.Link = "b" })}, `"a"`},
	}
	for _, test := range tests {
		m, err := New(test.entries)
		if m != nil || !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), test.names) {
			t.Errorf("%s: New = %v, %v, want %v that names %s", test.name, m, err, ErrInvalid, test.names)
		}
	}
	for _, path := range []string{"", "/", "/a", "../a", "a/../b", "a//b", "a/", "./a", `a\b`, "C:/a", "c:a", "a\x00", "a\xff", strings.Repeat("x", 256)} {
		var unsafe *tree.UnsafePathError
		if m, err := New([]Entry{file(path, "x")}); m != nil || !errors.As(err, &unsafe) || unsafe.Path != path {
			t.Errorf("New with path %q = %v, %v, want an UnsafePathError", path, m, err)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	m := mustNew(t, file("a", "x"), program("b/c", "y"), link("l", "a"), dir("z"))
	good := string(m.Encode())
	line := func(i int) string { return strings.TrimSuffix(strings.Split(good, "\n")[i], ",") }
	replace := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("%q is not in the manifest", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	hex := cas.Sum([]byte("x")).Hex()
	tests := []struct {
		name, data string
	}{
		{"nothing", ""},
		{"null", "null"},
		{"no object", "[]\n"},
		{"no entries", `{"format":"ferry.manifest/1"}` + "\n"},
		{"entries null", "{\"entries\":null,\"format\":\"ferry.manifest/1\"}\n"},
		{"cut off", good[:len(good)-2]},
		{"no line end", strings.TrimSuffix(good, "\n")},
		{"two line ends", good + "\n"},
		{"bytes behind", good + "x"},
		{"a value behind", good + "{}"},
		{"byte order mark", "\ufeff" + good},
		{"no version", replace(`,"format":"ferry.manifest/1"`, "")},
		{"next version", replace("ferry.manifest/1", "ferry.manifest/2")},
		{"unknown key", replace(`"format"`, `"extra":1,"format"`)},
		{"unknown key of an entry", replace(`"path":"a"`, `"owner":"me","path":"a"`)},
		{"a key twice", replace(`"path":"a"`, `"path":"q","path":"a"`)},
		{"key in upper case", replace(`"path":"a"`, `"PATH":"a"`)},
		{"keys in another order", replace(`"size":1,"type":"file"`, `"type":"file","size":1`)},
		{"space", replace(`"size":1`, `"size": 1`)},
		{"line end of Windows", strings.ReplaceAll(good, "\n", "\r\n")},
		{"entries in another order", replace(line(1)+",\n"+line(2), line(2)+",\n"+line(1))},
		{"an entry twice", replace(line(1), line(1)+",\n"+line(1))},
		{"a file in a file", replace(`"b/c"`, `"a/c"`)},
		{"a file in a link", replace(`"path":"z"`, `"path":"l/z"`)},
		{"digest in upper case", replace(hex, strings.ToUpper(hex))},
		{"digest too short", replace(hex, hex[2:])},
		{"digest of another kind", replace("blake3:", "sha256:")},
		{"digest null", replace(`"blake3:`+hex+`"`, "null")},
		{"escape that need not be", replace(`"path":"a"`, `"path":"\u0061"`)},
		{"slash escaped", replace(`"path":"b/c"`, `"path":"b\/c"`)},
		{"lone surrogate", replace(`"path":"a"`, `"path":"\ud800"`)},
		{"not UTF-8", replace(`"path":"a"`, "\"path\":\"\xff\"")},
		{"exec false", replace(`"mtime"`, `"exec":false,"mtime"`)},
		{"exec of a link", replace(`{"link":"a"`, `{"exec":true,"link":"a"`)},
		{"size as a float", replace(`"size":1`, `"size":1.0`)},
		{"size with an exponent", replace(`"size":1`, `"size":1e0`)},
		{"size negative", replace(`"size":1`, `"size":-1`)},
		{"size too large", replace(`"size":1`, `"size":9223372036854775808`)},
		{"size left out", replace(`,"size":1`, "")},
		{"size of an empty file", replace(`"size":1`, `"size":0`)},
		{"time with a zone", replace("2023-11-14T22:13:20Z", "2023-11-14T23:13:20+01:00")},
		{"time with a fraction", replace("2023-11-14T22:13:20Z", "2023-11-14T22:13:20.5Z")},
		{"time with a zero fraction", replace("2023-11-14T22:13:20Z", "2023-11-14T22:13:20.0Z")},
		{"time that is none", replace("2023-11-14T22:13:20Z", "yesterday")},
		{"time left out", replace(`"mtime":"2023-11-14T22:13:20Z",`, "")},
		{"link without target", replace(`"link":"a",`, "")},
		{"unknown type", replace(`"type":"dir"`, `"type":"pipe"`)},
		{"path left out", replace(`"path":"a",`, "")},
	}
	for _, test := range tests {
		if test.data == good {
			t.Errorf("%s: the test changes nothing", test.name)
		}
		got, err := Decode([]byte(test.data))
		var unsafe *tree.UnsafePathError
		if got != nil || !errors.Is(err, ErrInvalid) && !errors.As(err, &unsafe) {
			t.Errorf("%s: Decode = %v, %v, want %v", test.name, got, err, ErrInvalid)
		}
	}
	for _, path := range []string{"..", "/a", "C:/a", "a/../b", "a//b", ".", `a\\b`, `a\u0000`} {
		got, err := Decode([]byte(replace(`"path":"a"`, `"path":"`+path+`"`)))
		var unsafe *tree.UnsafePathError
		if got != nil || !errors.As(err, &unsafe) {
			t.Errorf("Decode with path %s = %v, %v, want an UnsafePathError", path, got, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	names, err := filepath.Glob(filepath.Join("testdata", "v1", "*.manifest"))
	if err != nil || len(names) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Decode(data)
		var unsafe *tree.UnsafePathError
		if err != nil {
			if m != nil || !errors.Is(err, ErrInvalid) && !errors.As(err, &unsafe) {
				t.Fatalf("Decode = %v, %v, want nil and an error of its own", m, err)
			}
			return
		}
		if again := m.Encode(); !bytes.Equal(again, data) {
			t.Fatalf("Encode(Decode) = %q, want %q", again, data)
		}
		if again, err := New(m.Entries); err != nil || again.ID() != m.ID() {
			t.Fatalf("New of what was decoded = %v, want no error and the same id", err)
		}
	})
}
