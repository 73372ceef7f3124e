package manifest

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"ferry/cas"
)

// key returns a chunk's key for the n-th chunk of a test.
func key(n byte) cas.Digest { return cas.Sum([]byte{n}) }

// sampleRecipes are valid, and hold everything that a recipe can.
func sampleRecipes() map[string]*Recipe {
	digest := cas.Sum([]byte("file"))
	return map[string]*Recipe{
		"plain": plainRecipe(digest, 300, []Run{{key(1), 100}, {key(2), 200}}),
		"zeros": plainRecipe(digest, 1<<40+100, []Run{{Size: 1 << 40}, {key(1), 100}}),
		"empty": {Digest: digest},
		"deflate": {Digest: digest, Size: 350, Streams: []Stream{
			{Name: "a.zip!b", Size: 600, Runs: []Run{{key(1), 600}}},
			{Size: 130, Runs: []Run{{key(2), 130}}},
		}, Layout: []Op{
			{Kind: OpSlice, Stream: 1, Size: 50},
			{Kind: OpDeflate, Size: 270, Reconstruction: []byte{1, 2, 3}, Inner: []Op{
				{Kind: OpSlice, Stream: 1, Off: 50, Size: 50},
				{Kind: OpDeflate, Size: 40, Reconstruction: []byte{4}, Inner: []Op{{Kind: OpSlice, Size: 600}}},
			}},
			{Kind: OpSlice, Stream: 1, Off: 100, Size: 30},
		}},
		"zeroOp": {Digest: digest, Size: 1 << 50, Layout: []Op{{Kind: OpZero, Size: 1 << 50}}},
		"container": {Digest: digest, Size: 1000, Streams: []Stream{
			{Name: "disk.img", Size: 600, Runs: []Run{{key(1), 100}, {Size: 400}, {key(2), 100}}},
			{Name: "gr\u00fc\u00df/\x00", Size: maxRunSize, Runs: []Run{{key(3), maxRunSize}}},
			{},
		}, Layout: []Op{
			{Kind: OpSlice, Stream: 1, Off: maxRunSize - 50, Size: 50},
			{Kind: OpSlice, Stream: 0, Off: 0, Size: 600},
			{Kind: OpZero, Size: 300},
			{Kind: OpSlice, Stream: 0, Off: 50, Size: 50},
		}},
	}
}

// sameRecipe compares, taking empty lists for equal.
func sameRecipe(a, b *Recipe) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Digest == b.Digest && a.Size == b.Size && sameLayout(a.Layout, b.Layout) &&
		slices.EqualFunc(a.Streams, b.Streams, func(a, b Stream) bool {
			return a.Name == b.Name && a.Size == b.Size && slices.Equal(a.Runs, b.Runs)
		})
}

func sameLayout(a, b []Op) bool {
	return slices.EqualFunc(a, b, func(a, b Op) bool {
		return a.Kind == b.Kind && a.Stream == b.Stream && a.Off == b.Off && a.Size == b.Size && bytes.Equal(a.Reconstruction, b.Reconstruction) && sameLayout(a.Inner, b.Inner)
	})
}

// TestGoldenRecipes holds the format still, as a dump of every byte.
func TestGoldenRecipes(t *testing.T) {
	for name, r := range sampleRecipes() {
		t.Run(name, func(t *testing.T) {
			golden(t, "v1/"+name+".recipe.hex", []byte(hex.Dump(r.Encode())))
			got, err := DecodeRecipe(readDump(t, filepath.Join("testdata", "v1", name+".recipe.hex")))
			if err != nil || !sameRecipe(got, r) {
				t.Errorf("DecodeRecipe = %+v, %v, want %+v", got, err, r)
			}
		})
	}
}

// readDump reads what hex.Dump wrote.
func readDump(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var data []byte
	for line := range strings.Lines(string(text)) {
		_, line, _ = strings.Cut(line, " ")
		line, _, _ = strings.Cut(line, "|")
		part, err := hex.DecodeString(strings.ReplaceAll(line, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		data = append(data, part...)
	}
	return data
}

func TestRecipeRoundTripRandom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := drawRecipe(t)
		got, err := DecodeRecipe(r.Encode())
		if err != nil || !sameRecipe(got, r) {
			t.Fatalf("DecodeRecipe(Encode(%+v)) = %+v, %v", r, got, err)
		}
	})
}

func drawRecipe(t *rapid.T) *Recipe {
	r := &Recipe{Digest: key(rapid.Byte().Draw(t, "digest"))}
	for range rapid.IntRange(0, 4).Draw(t, "streams") {
		s := Stream{Name: rapid.String().Draw(t, "name")}
		for range rapid.IntRange(0, 5).Draw(t, "runs") {
			run := Run{Key: key(rapid.Byte().Draw(t, "key")), Size: rapid.Int64Range(1, maxRunSize).Draw(t, "size")}
			if rapid.Bool().Draw(t, "zero") {
				run = Run{Size: rapid.Int64Range(1, 1<<50).Draw(t, "zeros")}
			}
			s.Runs, s.Size = append(s.Runs, run), s.Size+run.Size
		}
		r.Streams = append(r.Streams, s)
	}
	for range rapid.IntRange(0, 5).Draw(t, "ops") {
		op := Op{Kind: OpZero, Size: rapid.Int64Range(1, 1<<50).Draw(t, "zeros")}
		if len(r.Streams) > 0 {
			i := rapid.IntRange(0, len(r.Streams)-1).Draw(t, "stream")
			if n := r.Streams[i].Size; n > 0 {
				off := rapid.Int64Range(0, n-1).Draw(t, "off")
				op = Op{Kind: OpSlice, Stream: i, Off: off, Size: rapid.Int64Range(1, n-off).Draw(t, "slice")}
			}
		}
		r.Layout, r.Size = append(r.Layout, op), r.Size+op.Size
	}
	return r
}

func TestDecodeRecipeRefuses(t *testing.T) {
	good := sampleRecipes()["container"].Encode()
	if _, err := DecodeRecipe(good); err != nil {
		t.Fatal(err)
	}
	for n := range good {
		if r, err := DecodeRecipe(good[:n]); r != nil || !errors.Is(err, ErrInvalid) {
			t.Errorf("DecodeRecipe of the first %d of %d bytes = %v, %v, want %v", n, len(good), r, err, ErrInvalid)
		}
	}
	change := func(name string, fn func(*Recipe)) []byte {
		r := sampleRecipes()[name]
		r.Streams, r.Layout = slices.Clone(r.Streams), slices.Clone(r.Layout)
		fn(r)
		return r.Encode()
	}
	huge := binary.AppendUvarint(nil, 1<<63)
	prefix := append([]byte(recipeMagic+"\x01"), make([]byte, 32)...)
	tests := []struct {
		name string
		data []byte
	}{
		{"nothing", nil},
		{"other magic", append([]byte("XXXX"), good[4:]...)},
		{"next version", append([]byte("FRYR\x02"), good[5:]...)},
		{"bytes behind", append(slices.Clone(good), 0)},
		{"size one more", change("plain", func(r *Recipe) { r.Size++ })},
		{"size one less", change("plain", func(r *Recipe) { r.Size-- })},
		{"size over 2^62", slices.Concat(prefix, huge, []byte{0, 0})},
		{"size over 2^64", slices.Concat(prefix, bytes.Repeat([]byte{0xff}, 10), []byte{1, 0, 0})},
		{"slice behind its stream", change("plain", func(r *Recipe) { r.Layout[0].Off = 301 })},
		{"slice longer than its stream", change("plain", func(r *Recipe) { r.Layout[0].Off = 1 })},
		{"slice of no stream", change("plain", func(r *Recipe) { r.Layout[0].Stream = 1 })},
		{"slice of a negative stream", change("plain", func(r *Recipe) { r.Layout[0].Stream = -1 })},
		{"negative offset", change("plain", func(r *Recipe) { r.Layout[0].Off = -1 })},
		{"unknown instruction", change("plain", func(r *Recipe) { r.Layout[0].Kind = 9 })},
		{"instruction 0", change("plain", func(r *Recipe) { r.Layout[0].Kind = 0 })},
		{"empty slice", change("plain", func(r *Recipe) { r.Layout = append(r.Layout, Op{Kind: OpSlice}) })},
		{"empty zeros", change("plain", func(r *Recipe) { r.Layout = append(r.Layout, Op{Kind: OpZero}) })},
		{"run of no bytes", change("plain", func(r *Recipe) { r.Streams[0].Runs = append(r.Streams[0].Runs, Run{Key: key(3)}) })},
		{"zero run of no bytes", change("plain", func(r *Recipe) { r.Streams[0].Runs = append(r.Streams[0].Runs, Run{}) })},
		{"chunk too large", change("plain", func(r *Recipe) { r.Streams[0].Runs[0].Size = maxRunSize + 1 })},
		{"stream over 2^63", change("plain", func(r *Recipe) { r.Streams[0].Runs = []Run{{Size: 1<<62 - 1}, {Size: 1<<62 - 1}, {Size: 1<<62 - 1}} })},
		{"chunk with the key of zeros", bytes.Replace(sampleRecipes()["plain"].Encode(), func() []byte { k := key(1); return k[:] }(), make([]byte, 32), 1)},
		{"a million streams", slices.Concat(prefix, []byte{0}, binary.AppendUvarint(nil, 1_000_000), make([]byte, 100))},
		{"a million runs", slices.Concat(prefix, []byte{0, 1, 0}, binary.AppendUvarint(nil, 1_000_000), make([]byte, 100))},
		{"a million instructions", slices.Concat(prefix, []byte{0, 0}, binary.AppendUvarint(nil, 1_000_000), make([]byte, 100))},
	}
	for _, test := range tests {
		if r, err := DecodeRecipe(test.data); r != nil || !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: DecodeRecipe = %+v, %v, want %v", test.name, r, err, ErrInvalid)
		}
	}
}

func FuzzDecodeRecipe(f *testing.F) {
	for _, r := range sampleRecipes() {
		f.Add(r.Encode())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := DecodeRecipe(data)
		if err != nil {
			if r != nil || !errors.Is(err, ErrInvalid) {
				t.Fatalf("DecodeRecipe = %v, %v, want nil and %v", r, err, ErrInvalid)
			}
			return
		}
		sum := int64(0)
		for p := range r.pieces() {
			if p.size < 1 || p.off < 0 || p.off+p.size > p.Size {
				t.Fatalf("piece %+v of %+v is outside its run", p, r)
			}
			if sum += p.size; len(r.Layout) > 100 {
				break
			}
		}
		if r.Plain() && len(r.Layout) <= 100 && sum != r.Size {
			t.Fatalf("pieces of %+v have %d bytes, want %d", r, sum, r.Size)
		}
		again, err := DecodeRecipe(r.Encode())
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Fatalf("DecodeRecipe(Encode(%+v)) = %+v, %v", r, again, err)
		}
	})
}

// TestLargeRecipe adds a file whose recipe does not fit into one record.
func TestLargeRecipe(t *testing.T) {
	p := testParams()
	p.Min, p.AverageBits, p.Max, p.ZeroRun = 256, 8, 2048, 1024
	a, dir := newArchive(t, p)
	data := holes(1, 3<<20)
	m, _ := mustAdd(t, a, &memTree{nodes: []node{fileNode("file", data)}})
	e, _ := m.Find("file")
	body, err := a.store.Record(t.Context(), e.Digest)
	if err != nil || body[0] != recipeChunked || len(body) > inlineRecipe {
		t.Fatalf("Record = %d bytes, %v, want the list of a large recipe's chunks", len(body), err)
	}
	r, err := a.recipe(t.Context(), e.Digest, e.Size)
	if err != nil || len(r.Encode()) <= inlineRecipe {
		t.Fatalf("recipe of %d bytes, %v, want more than %d", len(r.Encode()), err, inlineRecipe)
	}
	again := openArchive(t, dir)
	checkContent(t, again, m, []node{fileNode("file", data)})
	_, stats := mustAdd(t, again, &memTree{nodes: []node{fileNode("file", data)}})
	if stats.KnownFiles != 1 || stats.New.Chunks != 0 {
		t.Errorf("added again: stats = %+v, want the file known", stats)
	}
	chunks := map[cas.Digest]bool{}
	if _, err := a.Tag(t.Context(), Ref{"large", "1"}, m, "", testTime, false); err != nil {
		t.Fatal(err)
	}
	err = a.Live(t.Context(), func(k cas.Digest) error { chunks[k] = true; return nil }, func(cas.Digest) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	fields := fieldReader{b: body[1:]}
	for _, run := range fields.runs().Runs {
		if !run.Zero() && !chunks[run.Key] {
			t.Errorf("Live leaves out chunk %s, which holds a recipe", run.Key.Short())
		}
	}
}

// TestDamagedRecipeRecord reads records that the store gives back whole and that
// are nonsense all the same.
func TestDamagedRecipeRecord(t *testing.T) {
	a, _ := newArchive(t, testParams())
	other := plainRecipe(cas.Sum([]byte("other")), 5, []Run{{Size: 5}})
	list := appendRuns([]byte{recipeChunked}, []Run{{Size: maxRecipe + 1}})
	zeros := appendRuns([]byte{recipeChunked}, []Run{{Size: 100}})
	tests := []struct {
		name string
		body []byte
		want error
	}{
		{"nothing in it", nil, ErrInvalid},
		{"unknown form", []byte{9, 1, 2, 3}, ErrInvalid},
		{"inline, cut off", []byte{recipeInline, 'F', 'R'}, ErrInvalid},
		{"list, cut off", list[:2], ErrInvalid},
		{"list of too many bytes", list, ErrInvalid},
		{"list with bytes behind", append(slices.Clone(zeros), 1), ErrInvalid},
		{"list of zeros", zeros, ErrInvalid},
		{"list of a chunk that is not there", appendRuns([]byte{recipeChunked}, []Run{{key(99), 100}}), cas.ErrNotFound},
		{"of another file", append([]byte{recipeInline}, other.Encode()...), cas.ErrCorrupt},
	}
	for i, test := range tests {
		name := cas.Sum([]byte(fmt.Sprint("file", i)))
		tx := a.store.Begin(t.Context())
		defer tx.Abort()
		if err := tx.PutRecord(name, test.body); err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		if r, err := a.recipe(t.Context(), name, unknownSize); r != nil || !errors.Is(err, test.want) {
			t.Errorf("%s: recipe = %v, %v, want %v", test.name, r, err, test.want)
		}
	}
}
