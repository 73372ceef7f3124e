package codec

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// program is a small executable made up for tests: functions that call each other
// and refer to data, a table of 32-bit offsets to them, and pointers.
type program struct {
	funcs [][]byte // filler of each function; its calls follow
	calls [][]int  // callees of each function
}

func newProgram(seed uint64, n int) *program {
	rng := rand.New(rand.NewPCG(seed, 3))
	p := &program{}
	for range n {
		p.funcs = append(p.funcs, noise(rng.Uint64(), 20+rng.IntN(100)))
		var calls []int
		for range rng.IntN(6) {
			calls = append(calls, rng.IntN(n))
		}
		p.calls = append(p.calls, calls)
	}
	return p
}

// changed returns the program with one function grown in every few.
func (p *program) changed(seed uint64) *program {
	rng := rand.New(rand.NewPCG(seed, 4))
	c := &program{calls: p.calls}
	for _, f := range p.funcs {
		if rng.IntN(20) == 0 {
			f = append(noise(rng.Uint64(), 1+rng.IntN(40)), f...)
		}
		c.funcs = append(c.funcs, f)
	}
	return c
}

// elf links the program to an ELF file with .text, .rodata and .data.
func (p *program) elf() []byte {
	const start, text = 0x400000, 0x1000
	starts := make([]int, len(p.funcs))
	at := 0
	for i := range p.funcs {
		starts[i] = at
		at += len(p.funcs[i]) + 5*len(p.calls[i])
	}
	var code, table, data []byte
	for i, f := range p.funcs {
		code = append(code, f...)
		for _, callee := range p.calls[i] {
			code = binary.LittleEndian.AppendUint32(append(code, 0xe8), uint32(starts[callee]-len(code)-5))
		}
		table = binary.LittleEndian.AppendUint32(table, uint32(starts[i]))
		data = binary.LittleEndian.AppendUint64(data, uint64(start+text+starts[i]))
	}
	type sect struct {
		addr, flags uint64
		body        []byte
	}
	round := func(n int) int { return (n + 0xfff) &^ 0xfff }
	rodata := text + round(len(code))
	dataAt := rodata + round(len(table))
	sects := []sect{{start + text, elfAlloc | elfExec, code}, {uint64(start + rodata), elfAlloc, table}, {uint64(start + dataAt), elfAlloc, data}}
	b := make([]byte, 64)
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], 2)
	le.PutUint16(b[18:], 62)
	var headers []byte
	for _, s := range sects {
		h := make([]byte, elfSecSize)
		le.PutUint32(h[4:], 1)
		le.PutUint64(h[8:], s.flags)
		le.PutUint64(h[16:], s.addr)
		le.PutUint64(h[24:], uint64(len(b)))
		le.PutUint64(h[32:], uint64(len(s.body)))
		headers = append(headers, h...)
		b = append(b, s.body...)
	}
	le.PutUint64(b[40:], uint64(len(b)))
	le.PutUint16(b[58:], elfSecSize)
	le.PutUint16(b[60:], uint16(len(sects)))
	return append(b, headers...)
}

// roundTrip codes and decodes, and returns the size of the patch.
func roundTrip(t *testing.T, target, base []byte, effort Effort) int {
	t.Helper()
	patch := encodePatch(nil, target, base, effort)
	if again := encodePatch(nil, target, base, effort); !bytes.Equal(patch, again) {
		t.Fatal("two patches of the same differ")
	}
	plain, err := decodePatch([]byte("before"), patch, base, len(target))
	if err != nil {
		t.Fatal(err)
	}
	if string(plain) != "before"+string(target) {
		t.Fatal("the patch gives other bytes")
	}
	return len(patch)
}

func TestReferencesArePredicted(t *testing.T) {
	old := newProgram(1, 3000)
	base, target := old.elf(), old.changed(2).elf()
	plain := patchOf(target, base, newAligner(base, Default).align(target), nil).pack(nil, base, Default)
	for _, effort := range []Effort{Fast, Default, Max} {
		n := roundTrip(t, target, base, effort)
		t.Logf("%v: %d bytes, without predictions %d", effort, n, len(plain))
		// 150 functions grew by 20 bytes of noise each on average: that is 3000 bytes.
		if effort != Fast && n > 6000 || n > len(plain)*3/4 {
			t.Errorf("%v: %d bytes; references are not predicted (without: %d)", effort, n, len(plain))
		}
	}
}

// TestRealPrograms patches what the Go tool chain on this machine builds: one
// program, before and after an edit, for Linux and Windows.
func TestRealPrograms(t *testing.T) {
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("the go command is not on PATH")
	}
	source := `package main
import ("fmt"; "os"; "sort"; "encoding/json")
func main() {
	var v map[string]any
	err := json.NewDecoder(os.Stdin).Decode(&v)
	keys := []string{}
	for k := range v { keys = append(keys, k) }
	sort.Strings(keys)
	fmt.Println(keys, err)
	// more
}
`
	for _, platform := range []string{"linux/amd64", "windows/amd64", "linux/arm64"} {
		system, arch, _ := strings.Cut(platform, "/")
		build := func(text string) []byte {
			dir := t.TempDir()
			os.WriteFile(filepath.Join(dir, "main.go"), []byte(text), 0o644)
			os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module sample\n\ngo 1.26\n"), 0o644)
			cmd := exec.Command(goTool, "build", "-trimpath", "-ldflags=-s -w", "-o", "sample", ".")
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "GOOS="+system, "GOARCH="+arch, "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("go build: %v\n%s", err, out)
			}
			b, err := os.ReadFile(filepath.Join(dir, "sample"))
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		base := build(source)
		target := build(strings.Replace(source, "// more", `defer fmt.Fprintf(os.Stderr, "%d keys of %v\n", len(keys), v)`, 1))
		plain := len(patchOf(target, base, newAligner(base, Default).align(target), nil).pack(nil, base, Default))
		n := roundTrip(t, target, base, Default)
		t.Logf("%s: %d bytes of %d, without predictions %d", platform, n, len(target), plain)
		if n > plain*3/4 {
			t.Errorf("%s: %d bytes, without predictions %d", platform, n, plain)
		}
	}
}

func TestPatchRoundTrip(t *testing.T) {
	sample := newProgram(5, 300).elf()
	rapid.Check(t, func(rt *rapid.T) {
		base := sample
		if rapid.Bool().Draw(rt, "data") {
			base = noise(rapid.Uint64().Draw(rt, "seed"), rapid.IntRange(0, 20000).Draw(rt, "size"))
		}
		target := bytes.Clone(base)
		for range rapid.IntRange(0, 8).Draw(rt, "edits") {
			at := rapid.IntRange(0, len(target)).Draw(rt, "at")
			n := rapid.IntRange(0, len(target)-at).Draw(rt, "n")
			switch rapid.IntRange(0, 3).Draw(rt, "edit") {
			case 0: // removed
				target = append(target[:at:at], target[at+min(n, 200):]...)
			case 1: // inserted
				target = append(target[:at:at], append(noise(uint64(n), n%300), target[at:]...)...)
			case 2: // moved to the end
				target = append(append(target[:at:at], target[at+n:]...), target[at:at+n]...)
			default: // flipped
				for i := at; i < at+n; i += 97 {
					target[i] ^= 0x10
				}
			}
		}
		roundTrip(t, target, base, Effort(rapid.IntRange(0, 2).Draw(rt, "effort")))
	})
}

// TestPatchOfPixels codes a picture one of whose channels changed everywhere: what would
// have to be said of that is more than a reader takes of a patch.
func TestPatchOfPixels(t *testing.T) {
	base := noise(5, 1_200_000)
	target := bytes.Clone(base)
	for i := 0; i < len(target); i += 3 {
		target[i]++
	}
	p, _ := makePatch(target, base, Default)
	if p.fits(len(target)) {
		t.Error("the test makes a patch that is not too large")
	}
	coded, kind := Encode(nil, target, base, Default)
	plain, err := Decode(nil, coded, base, kind, len(target))
	if err != nil || !bytes.Equal(plain, target) {
		t.Errorf("Decode of %v = %d bytes, %v", kind, len(plain), err)
	}
}

// golden is the example of docs/format.md.
const golden = "01" + "0000" + "000100" + "000119" + "000100" + "0003100000" + "0003fdf2fc" + "0000" + "0000"

func TestPatchGolden(t *testing.T) {
	base, target := []byte("the quick brown fox jumps"), []byte("the quick brown cat jumps")
	coded, err := hex.DecodeString(golden)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := decodePatch(nil, coded, base, len(target))
	if err != nil || !bytes.Equal(plain, target) {
		t.Fatalf("decodePatch = %q, %v", plain, err)
	}
	a := newAligner(base, Default)
	a.cost = binaryCosts // those of text find a match of 25 bytes too short
	if got := patchOf(target, base, a.align(target), nil).pack(nil, base, Default); !bytes.Equal(got, coded) {
		t.Errorf("the patch is coded as\n%x, golden is\n%s", got, golden)
	}
}

// TestPatchGoldenProgram reads a patch with predictions that version 1 made.
func TestPatchGoldenProgram(t *testing.T) {
	old := newProgram(7, 200)
	base, target := old.elf(), old.changed(8).elf()
	name := filepath.Join("testdata", "v1", "program.patch")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, encodePatch(nil, target, base, Default), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	coded, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := decodePatch(nil, coded, base, len(target))
	if err != nil || !bytes.Equal(plain, target) {
		t.Fatalf("the golden patch decodes to other bytes: %v", err)
	}
}

func TestDecodePatchRefuses(t *testing.T) {
	old := newProgram(7, 200)
	base, target := old.elf(), old.changed(8).elf()
	patch := encodePatch(nil, target, base, Default)
	for i := range patch {
		for _, flip := range []byte{1, 0x80} {
			bad := bytes.Clone(patch)
			bad[i] ^= flip
			if plain, err := decodePatch(nil, bad, base, len(target)); err == nil && len(plain) != len(target) {
				t.Fatalf("byte %d flipped: %d bytes, no error", i, len(plain))
			}
		}
		if _, err := decodePatch(nil, patch[:i], base, len(target)); err == nil {
			t.Fatalf("cut to %d bytes: no error", i)
		}
	}
	if _, err := decodePatch(nil, patch, base[:len(base)/2], len(target)); err == nil {
		t.Error("half of the base: no error")
	}
}

func TestParseImage(t *testing.T) {
	elf := newProgram(1, 50).elf()
	img := parseImage(elf)
	if img == nil || img.machine != amd64 || img.start != 0x400000 || len(img.sections) != 3 || !img.sections[0].code {
		t.Fatalf("parseImage = %+v", img)
	}
	back := takeImage(&reader{b: img.encode(nil)}, len(elf))
	if back == nil || back.extent != img.extent || back.sections[2] != img.sections[2] {
		t.Errorf("takeImage(encode) = %+v, want %+v", back, img)
	}
	for n := range elf {
		parseImage(elf[:n]) // must not panic
	}
}

func FuzzDecodePatch(f *testing.F) {
	old := newProgram(7, 40)
	base, target := old.elf(), old.changed(9).elf()
	f.Add(encodePatch(nil, target, base, Default), base, len(target))
	f.Add(encodePatch(nil, target, base, Fast), base, len(target))
	f.Add(encodePatch(nil, base[:100], nil, Default), []byte{}, 100)
	f.Fuzz(func(t *testing.T, patch, base []byte, size int) {
		size = min(max(size, 0), 1<<20)
		plain, err := decodePatch(nil, patch, base, size)
		if err == nil && len(plain) != size {
			t.Fatalf("%d bytes, want %d", len(plain), size)
		}
	})
}

func TestGroup(t *testing.T) {
	var items []Item
	for i := range 20 {
		old := newProgram(uint64(i), 30)
		items = append(items, Item{old.changed(uint64(i + 50)).elf(), old.elf()})
	}
	items = append(items, Item{noise(1, 1000), nil}, Item{nil, noise(2, 500)}, Item{nil, nil}, Item{[]byte("a text of its own"), []byte("another text")})
	for _, effort := range []Effort{Fast, Default} {
		coded, shares := EncodeGroup([]byte("before"), items, effort, true)
		alone, sum := 0, 0
		g, err := OpenGroup(coded[len("before"):])
		if err != nil || len(g.patches) != len(items) {
			t.Fatalf("OpenGroup: %d items, %v", len(g.patches), err)
		}
		for i, item := range items {
			plain, err := g.Decode(nil, i, item.Base, len(item.Target))
			if err != nil || !bytes.Equal(plain, item.Target) {
				t.Errorf("item %d: %v", i, err)
			}
			if _, err := g.Decode(nil, i, item.Base, len(item.Target)+1); err == nil {
				t.Errorf("item %d: decoded to another size", i)
			}
			one, _ := Encode(nil, item.Target, item.Base, effort)
			alone += len(one)
			sum += shares[i]
		}
		if len(coded) >= alone || sum > len(coded) {
			t.Errorf("%v: the group has %d bytes, each alone %d, shares %d", effort, len(coded), alone, sum)
		}
		t.Logf("%v: %d bytes, each alone %d", effort, len(coded), alone)
	}
}

func FuzzOpenGroup(f *testing.F) {
	old := newProgram(7, 20)
	coded, _ := EncodeGroup(nil, []Item{{old.changed(1).elf(), old.elf()}, {[]byte("text"), nil}}, Default, true)
	f.Add(coded, old.elf())
	f.Fuzz(func(t *testing.T, coded, base []byte) {
		g, err := OpenGroup(coded)
		if err != nil {
			return
		}
		for i := range min(len(g.patches), 8) {
			for _, size := range []int{0, 4, len(base)} {
				if plain, err := g.Decode(nil, i, base, size); err == nil && len(plain) != size {
					t.Fatalf("item %d: %d bytes, want %d", i, len(plain), size)
				}
			}
		}
	})
}

func FuzzEncodePatch(f *testing.F) {
	p := newProgram(7, 40)
	f.Add(p.elf(), p.changed(9).elf())
	f.Fuzz(func(t *testing.T, base, target []byte) {
		patch := encodePatch(nil, target, base, Default)
		plain, err := decodePatch(nil, patch, base, len(target))
		if err != nil || !bytes.Equal(plain, target) {
			t.Fatalf("round trip: %v", err)
		}
	})
}
