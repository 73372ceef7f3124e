package delta

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"ferry/cas"
	"ferry/delta/codec"
	"ferry/manifest"
)

var rewrite = flag.Bool("update", false, "write golden files anew")

// somePlan has every kind of field.
func somePlan() *plan {
	return &plan{
		target: cas.Sum([]byte("target")),
		bases:  []planBase{{cas.Sum([]byte("one")), "pkg@1"}, {cas.Sum([]byte("two")), "pkg@2"}},
		sources: []source{
			{cas.Sum([]byte("s0")), 1000, []sourcePlace{{path: "bin/a"}, {}}},
			{cas.Sum([]byte("s1")), 300, []sourcePlace{{path: "b"}, {path: "c/b"}}},
		},
		windows: []window{
			{codec.Brotli, 400, 50, checkOf([]byte("w0")), []span{{0, 100, 200}, {1, 0, 300}}, payloadAt{}, 0, 0},
			{codec.Stored, 10, 10, checkOf([]byte("w1")), nil, payloadAt{0, 50}, 0, 0},
		},
		programs: []program{
			{0, 1, []op{{kind: opCopy, size: 500}, {kind: opWindow, off: 100, size: 300}, {kind: opZero, size: 1 << 40}}},
			{0, 2, []op{{kind: opWindow, ref: 1, size: 10}}},
			{3, 3, []op{{kind: opCopy, ref: 1, off: 10, size: 20}}},
		},
	}
}

// memberPlan is somePlan with members of container files.
func memberPlan() *plan {
	p := somePlan()
	p.sources = append(p.sources, source{cas.Sum([]byte("s2")), 70, []sourcePlace{
		{path: "a.zip", at: &manifest.Location{Slices: []manifest.Slice{{Off: 10, Size: 30}, {Off: 90, Size: 40}}}},
		{path: "b.tgz", at: &manifest.Location{Within: []int64{10, 300}, Slices: []manifest.Slice{{Off: 512, Size: 70}}}},
	}})
	p.streams = []int64{200, 30}
	p.programs = append(p.programs,
		program{3, 3, []op{
			{kind: opStream, ref: 0, off: 0, size: 50},
			{kind: opDeflate, size: 20, reconstruction: []byte{1, 2, 3}, inner: []op{
				{kind: opStream, ref: 1, size: 30},
				{kind: opDeflate, size: 10, reconstruction: []byte{4}, inner: []op{{kind: opStream, ref: 0, off: 50, size: 150}}},
			}},
			{kind: opCopy, ref: 1, off: 3, size: 4},
		}},
		program{4, 3, []op{{kind: opCopy, ref: 2, size: 70}, {kind: opZero, size: 130}}},
		program{5, 3, []op{{kind: opCopy, ref: 1, off: 7, size: 30}}},
	)
	return p
}

// someEntries are the entries of the target of somePlan. The last but one is a window.
func someEntries() []manifest.Entry {
	entries := make([]manifest.Entry, 4)
	for i, path := range []string{"a", "b", "bin/a", "z"} {
		entries[i] = manifest.Entry{Path: path, Type: manifest.TypeFile, Size: int64(100 * i), Digest: cas.Sum([]byte(path))}
	}
	return entries
}

// wholePlan is somePlan with a window that is a file, coded against another.
func wholePlan() *plan {
	p := somePlan()
	w := window{kind: codec.Patch, plain: 200, coded: 60, check: checkOf([]byte("bin/a")), dict: []span{{0, 0, 1000}}, at: payloadAt{0, 60}}
	p.windows = append(p.windows, w)
	p.programs = slices.Insert(p.programs, 2, program{2, 1, []op{{kind: opWindow, ref: 2, size: 200}}})
	return p
}

// TestPlanGolden reads plans of older versions.
func TestPlanGolden(t *testing.T) {
	for _, test := range []struct {
		name   string
		want   *plan
		digest int // bytes of a source's
	}{
		{"v1/plan", somePlan(), cas.DigestSize},
		{"v1/plan2", memberPlan(), cas.DigestSize},
		{"v4/plan", somePlan(), frontSize},
		{"v4/plan2", memberPlan(), frontSize},
		{"v4/plan3", wholePlan(), frontSize},
	} {
		data, err := os.ReadFile(filepath.Join("testdata", filepath.FromSlash(test.name)))
		must(t, err)
		p, err := decodePlan(data, someEntries())
		must(t, err)
		for i := range test.want.sources {
			d := &test.want.sources[i].digest
			*d = shortened(*d, test.digest)
		}
		if !reflect.DeepEqual(p, test.want) {
			t.Errorf("%s is %+v, want %+v", test.name, p, test.want)
		}
	}
}

func TestPlanRoundTrip(t *testing.T) {
	for name, plan := range map[string]*plan{"plan": somePlan(), "plan2": memberPlan(), "plan3": wholePlan()} {
		coded := plan.encode(someEntries(), codec.Default)
		p, err := decodePlan(coded, someEntries())
		must(t, err)
		if !reflect.DeepEqual(p, plan.asRead()) {
			t.Errorf("decodePlan(encode) = %+v, want %+v", p, plan)
		}
		golden := filepath.Join("testdata", fmt.Sprintf("v%d", planVersion), name)
		if *rewrite {
			must(t, os.MkdirAll(filepath.Dir(golden), 0o777))
			must(t, os.WriteFile(golden, coded, 0o666))
		}
		want, err := os.ReadFile(golden)
		must(t, err)
		if !bytes.Equal(coded, want) {
			t.Errorf("encode gives\n%x, golden is\n%x", coded, want)
		}
	}
}

func TestPlanRefuses(t *testing.T) {
	for name, change := range map[string]func(*plan){
		"no base":                func(p *plan) { p.bases = nil },
		"entry too large":        func(p *plan) { p.programs[2].entry = 4 },
		"mask of no base":        func(p *plan) { p.programs[0].mask = 4 },
		"mask empty":             func(p *plan) { p.programs[0].mask = 0 },
		"copy of no source":      func(p *plan) { p.programs[0].ops[0].ref = 2 },
		"copy past the source":   func(p *plan) { p.programs[0].ops[0].size = 1001 },
		"copy offset overflow":   func(p *plan) { p.programs[0].ops[0].off = 1<<62 - 1 },
		"window of no window":    func(p *plan) { p.programs[1].ops[0].ref = 2 },
		"window past the window": func(p *plan) { p.programs[1].ops[0].size = 11 },
		"unknown instruction":    func(p *plan) { p.programs[0].ops[2].kind = 7 },
		"window too large":       func(p *plan) { p.windows[0].plain = maxWindow + 1 },
		"dictionary too large":   func(p *plan) { p.sources[0].size = 1 << 40; p.windows[0].dict[0].size = maxDict + 1 },
		"dictionary of nothing":  func(p *plan) { p.windows[0].dict[0].source = 9 },
		"stream of no stream":    func(p *plan) { p.programs[3].ops[0].ref = 2 },
		"stream past the stream": func(p *plan) { p.programs[3].ops[0].size = 201 },
		"stream of a stream":     func(p *plan) { p.programs[4].ops[0] = op{kind: opStream, size: 30} },
		"deflated in a stream":   func(p *plan) { p.programs[4].ops[0] = op{kind: opDeflate, size: 30} },
		"copy of no base's":      func(p *plan) { p.programs[2].ops[0].ref = 0; p.programs[2].ops[0].size = 5 },
		"stream for no base":     func(p *plan) { p.programs[4].mask = 1 },
		"program of no stream":   func(p *plan) { p.programs[5].entry = 6 },
		"slices of another size": func(p *plan) { p.sources[2].size = 71 },
		"slices too far":         func(p *plan) { p.sources[2].places[0].at.Slices[1].Off = 1<<62 - 30 },
	} {
		p := memberPlan()
		change(p)
		if got, err := decodePlan(p.encode(someEntries(), codec.Fast), someEntries()); !errors.Is(err, ErrInvalid) || got != nil {
			t.Errorf("%s: decodePlan = %v, %v; want ErrInvalid", name, got, err)
		}
	}
	many := wholePlan()
	for range maxItems {
		many.windows[0].dict = append(many.windows[0].dict, span{})
	}
	if _, err := decodePlan(many.encode(someEntries(), codec.Fast), someEntries()); !errors.Is(err, ErrInvalid) {
		t.Errorf("of more items than a plan may have, decodePlan = %v, want ErrInvalid", err)
	}
	coded := memberPlan().encode(someEntries(), codec.Fast)
	for n := range coded {
		if got, err := decodePlan(coded[:n], someEntries()); !errors.Is(err, ErrInvalid) || got != nil {
			t.Fatalf("decodePlan of the first %d bytes = %v, %v; want ErrInvalid", n, got, err)
		}
	}
	if _, err := decodePlan(append(coded, 0), someEntries()); !errors.Is(err, ErrInvalid) {
		t.Errorf("decodePlan with a byte too many = %v, want ErrInvalid", err)
	}
}

func FuzzDecodePlan(f *testing.F) {
	for _, p := range []*plan{somePlan(), memberPlan(), wholePlan()} {
		coded := p.encode(someEntries(), codec.Fast)
		r := planReader{b: coded[len(planMagic)+1:]}
		f.Add(byte(4), r.column())
	}
	for _, name := range []string{"plan", "plan2"} {
		data, err := os.ReadFile(filepath.Join("testdata", "v1", name))
		must(f, err)
		f.Add(data[len(planMagic)], data[len(planMagic)+1:])
	}
	f.Fuzz(func(t *testing.T, version byte, data []byte) {
		head := append([]byte(planMagic), version)
		if version > 3 { // what is packed is mutated, and not what packs it
			data = appendColumn(nil, data, codec.Fast)
		}
		entries := someEntries()
		p, err := decodePlan(append(head, data...), entries)
		if err != nil {
			if p != nil {
				t.Fatal("a plan with an error")
			}
			return
		}
		again, err := decodePlan(p.encode(entries, codec.Fast), entries)
		if err != nil || !reflect.DeepEqual(again, p.asRead()) {
			t.Fatalf("decode(encode(p)) differs from p: %v", err)
		}
	})
}

func FuzzOpen(f *testing.F) {
	path, _ := create(f, files{"a": "target text", "b": bytesOf(1, 3000)}, files{"a": "base text", "b": bytesOf(1, 2500)})
	data, err := os.ReadFile(path)
	must(f, err)
	f.Add(data)
	f.Add(data[:len(data)/2])
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		name := filepath.Join(dir, fmt.Sprintf("d%d", os.Getpid()))
		must(t, os.WriteFile(name, data, 0o666))
		d, err := Open(name)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("Open = %v, want ErrInvalid", err)
			}
			return
		}
		d.Verify(t.Context(), func(Finding) {})
		d.Close()
	})
}
