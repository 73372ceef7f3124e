package delta

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"ferry/manifest/place"
)

func TestApplyMakesTarget(t *testing.T) {
	path, info := create(t, v2(), v1())
	d := open(t, path)
	to := filepath.Join(t.TempDir(), "new")
	stats, err := Apply(context.Background(), d, treeBase(t, v1().write(t)), to, place.Options{})
	must(t, err)
	same(t, read(t, to), v2())
	if stats.Files != d.Target.Files() {
		t.Errorf("stats.Files = %d, want %d", stats.Files, d.Target.Files())
	}
	// Fresh bytes and edits cost; everything else stands in the base.
	if fresh := int64(400 << 10); info.PayloadSize > fresh+20<<10 {
		t.Errorf("payload = %d bytes, want at most the fresh file's %d and a little", info.PayloadSize, fresh)
	}
}

func TestInfoAddsUp(t *testing.T) {
	_, info := create(t, v2(), v1())
	kinds := map[string]string{}
	cost := int64(0)
	for _, f := range info.Files {
		kinds[f.Path] = string(f.Change)
		cost += f.Cost
		if f.Copied+f.Zero+f.New != f.Size {
			t.Errorf("%s: copied %d + zero %d + new %d is not its size %d", f.Path, f.Copied, f.Zero, f.New, f.Size)
		}
	}
	for path, want := range map[string]string{
		"bin/v2/moved.exe": "renamed", "bin/copy.exe": "copied", "bin/tool.exe": "changed",
		"data/fresh.bin": "added", "conf/was-dir": "added",
	} {
		if kinds[path] != want {
			t.Errorf("%s is %q, want %q", path, kinds[path], want)
		}
	}
	if cost > info.PayloadSize || cost < info.PayloadSize-int64(len(info.Files)) {
		t.Errorf("costs add up to %d, want the payload's %d but for rounding", cost, info.PayloadSize)
	}
}

func TestApplyFromZip(t *testing.T) {
	path, _ := create(t, v2(), v1())
	name := filepath.Join(t.TempDir(), "base.zip")
	f, err := os.Create(name)
	must(t, err)
	zw := zip.NewWriter(f)
	for p, content := range v1() {
		w, err := zw.Create(p)
		must(t, err)
		_, err = io.WriteString(w, content)
		must(t, err)
	}
	must(t, zw.Close())
	must(t, f.Close())
	to := filepath.Join(t.TempDir(), "new")
	_, err = Apply(context.Background(), open(t, path), treeBase(t, name), to, place.Options{})
	must(t, err)
	same(t, read(t, to), v2())
}

func TestSeveralBases(t *testing.T) {
	shared := bytesOf(20, 500<<10)
	bases := []files{
		v1(),
		v1().with(files{"lib/b.ps1": "", "bin/tool.exe": splice(bytesOf(1, 900<<10), 30)}),
		{"VERSION": "0.1\n", "unrelated": bytesOf(40, 100<<10)},
	}
	target := v2().with(files{"new-in-all": shared})
	path, info := create(t, target, bases...)
	for i, b := range bases {
		to := filepath.Join(t.TempDir(), "new")
		_, err := Apply(context.Background(), open(t, path), treeBase(t, b.write(t)), to, place.Options{})
		if err != nil {
			t.Fatalf("base %d: %v", i, err)
		}
		same(t, read(t, to), target)
	}
	// What no base has is carried once, not once for each.
	_, alone := create(t, target, bases[2])
	if info.PayloadSize > alone.PayloadSize+100<<10 {
		t.Errorf("payload for three bases = %d bytes, for the worst alone %d", info.PayloadSize, alone.PayloadSize)
	}
	path, _ = create(t, target, bases[:2]...)
	_, err := Apply(context.Background(), open(t, path), treeBase(t, files{"VERSION": "9"}.write(t)), filepath.Join(t.TempDir(), "x"), place.Options{})
	var wrong *BaseMismatchError
	if !errors.As(err, &wrong) {
		t.Errorf("Apply to a foreign base = %v, want a BaseMismatchError", err)
	}
}

func TestCreateIsDeterministic(t *testing.T) {
	first, _ := create(t, v2(), v1(), v1().with(files{"lib/b.ps1": ""}))
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	second, _ := create(t, v2(), v1(), v1().with(files{"lib/b.ps1": ""}))
	a, err := os.ReadFile(first)
	must(t, err)
	b, err := os.ReadFile(second)
	must(t, err)
	if !bytes.Equal(a, b) {
		t.Errorf("two runs gave deltas of %d and %d bytes that differ", len(a), len(b))
	}
}

func TestWrongBase(t *testing.T) {
	path, _ := create(t, v2(), v1())
	tool := v1()["bin/tool.exe"]
	flipped := tool[:500000] + string([]byte{tool[500000] ^ 1}) + tool[500001:]
	for name, test := range map[string]struct {
		base files
		path string
		text string
	}{
		"file missing":            {v1().with(files{"bin/same.exe": ""}), "bin/same.exe", "missing"},
		"other size":              {v1().with(files{"bin/tool.exe": tool + "x"}), "bin/tool.exe", "bytes"},
		"flipped in a patch base": {v1().with(files{"bin/tool.exe": flipped}), "bin/tool.exe", "differ"},
		"flipped in a copy":       {v1().with(files{"bin/same.exe": "x" + v1()["bin/same.exe"][1:]}), "bin/same.exe", "differ"},
	} {
		to := filepath.Join(t.TempDir(), "new")
		_, err := Apply(context.Background(), open(t, path), treeBase(t, test.base.write(t)), to, place.Options{})
		var wrong *BaseMismatchError
		if !errors.As(err, &wrong) || wrong.Path != test.path || !strings.Contains(err.Error(), test.text) {
			t.Errorf("%s: error = %v, want a BaseMismatchError of %s that says %q", name, err, test.path, test.text)
		}
		if names, _ := os.ReadDir(filepath.Dir(to)); len(names) != 0 {
			t.Errorf("%s: left %v", name, names)
		}
	}
}

// TestDamagedDelta flips every so many bytes of a delta: it is refused, or gives
// exactly the target (bytes that nothing reads, such as the text's).
func TestDamagedDelta(t *testing.T) {
	path, _ := create(t, v2(), v1())
	sound, err := os.ReadFile(path)
	must(t, err)
	base := v1().write(t)
	refused := 0
	for off := 0; off < len(sound); off += len(sound)/60 + 1 {
		damaged := bytes.Clone(sound)
		damaged[off] ^= 0x20
		name := filepath.Join(t.TempDir(), "d")
		must(t, os.WriteFile(name, damaged, 0o666))
		to := filepath.Join(t.TempDir(), "new")
		d, err := Open(name)
		if err == nil {
			_, err = Apply(context.Background(), d, treeBase(t, base), to, place.Options{})
			d.Close()
		}
		if err == nil {
			same(t, read(t, to), v2())
			continue
		}
		refused++
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("offset %d: error = %v, want ErrInvalid", off, err)
		}
		if _, err := os.Stat(to); err == nil {
			t.Errorf("offset %d: the target appeared", off)
		}
	}
	if refused < 30 {
		t.Errorf("only %d of about 60 damaged deltas were refused", refused)
	}
	for _, n := range []int{0, 1, 30, len(sound) / 2, len(sound) - 1} {
		name := filepath.Join(t.TempDir(), "d")
		must(t, os.WriteFile(name, sound[:n], 0o666))
		if _, err := Open(name); !errors.Is(err, ErrInvalid) {
			t.Errorf("Open of the first %d bytes = %v, want ErrInvalid", n, err)
		}
	}
}

func TestVerifyNamesDamage(t *testing.T) {
	path, _ := create(t, v2(), v1())
	zr, err := zip.OpenReader(path)
	must(t, err)
	var off int64
	for _, zf := range zr.File {
		if zf.Name == payloadName(0) {
			off, err = zf.DataOffset()
			must(t, err)
		}
	}
	zr.Close()
	data, err := os.ReadFile(path)
	must(t, err)
	data[off+100] ^= 1
	must(t, os.WriteFile(path, data, 0o666))
	var found []Finding
	must(t, open(t, path).Verify(context.Background(), func(f Finding) { found = append(found, f) }))
	if len(found) == 0 || found[0].Object != payloadName(0) {
		t.Errorf("Verify found %v, want %s", found, payloadName(0))
	}
}

func TestApplyCancelled(t *testing.T) {
	path, _ := create(t, v2(), v1())
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	to := filepath.Join(t.TempDir(), "new")
	_, err := Apply(ctx, open(t, path), treeBase(t, v1().write(t)), to, place.Options{})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Apply = %v, want context.Canceled", err)
	}
	if _, err := os.Stat(to); err == nil {
		t.Error("the target appeared")
	}
}

func TestUnrelatedVersions(t *testing.T) {
	base, target := files{"a": bytesOf(50, 300<<10)}, files{"b": bytesOf(51, 300<<10), "c": bytesOf(52, 9<<20)}
	path, info := create(t, target, base)
	to := filepath.Join(t.TempDir(), "new")
	_, err := Apply(context.Background(), open(t, path), treeBase(t, base.write(t)), to, place.Options{})
	must(t, err)
	same(t, read(t, to), target)
	if !info.FullEstimated || info.FullSize <= 0 {
		t.Errorf("full size = %d, estimated %t; want an estimate", info.FullSize, info.FullEstimated)
	}
}
