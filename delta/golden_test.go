package delta

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ferry/manifest/place"
)

// goldenTrees are what the deltas in testdata are of.
func goldenTrees() (base, target files) {
	base = files{
		"bin/tool.exe": bytesOf(40, 20<<10), "bin/old.dll": bytesOf(41, 3<<10), "docs/removed.md": "gone\n", "empty/": "",
		"notes.txt": strings.Repeat("A line of text that stands for many.\n", 40),
	}
	for i := range 60 {
		base[fmt.Sprintf("lib/%d/script%02d.ps1", i/20, i)] = fmt.Sprintf("Write-Output 'script %d'\n", i)
	}
	target = base.with(files{
		"bin/tool.exe": splice(base["bin/tool.exe"], 42), "bin/old.dll": "", "bin/new.dll": base["bin/old.dll"], "docs/removed.md": "",
		"docs/added.md": prose(43, 3<<10), "lib/1/script33.ps1": "Write-Output 'changed'\n", "lib/2/script99.ps1": base["lib/0/script07.ps1"],
	})
	return base, target
}

// prose returns n bytes of text of few words.
func prose(seed uint64, n int) string {
	var b strings.Builder
	words := strings.Fields("the package store keeps every chunk once and names it by a digest so that what was shipped before need not be shipped again over a link which is slow or is not there")
	for i := seed; b.Len() < n; i = i*6364136223846793005 + 1442695040888963407 {
		b.WriteString(words[i>>33%uint64(len(words))])
		b.WriteByte(" \n"[bit(i>>40%9 == 0)])
	}
	return b.String()[:n]
}

// TestGoldenDeltas applies deltas that were made by this version and by older ones.
// "first" has plan 4, target 1 and delta.json 1.
func TestGoldenDeltas(t *testing.T) {
	base, target := goldenTrees()
	path, _ := create(t, target, base)
	made, err := os.ReadFile(path)
	must(t, err)
	if *rewrite {
		must(t, os.WriteFile(filepath.Join("testdata", "second.ferry"), made, 0o666))
	}
	for _, name := range []string{"first.ferry", "second.ferry"} {
		golden := filepath.Join("testdata", name)
		to := filepath.Join(t.TempDir(), "new")
		d := open(t, golden)
		if _, err := Apply(context.Background(), d, treeBase(t, base.write(t)), to, place.Options{}); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		same(t, read(t, to), target)
		dir := base.write(t)
		_, err := ApplyInPlace(context.Background(), d, dir, InPlaceOptions{})
		must(t, err)
		same(t, read(t, dir), target)
	}
	golden, err := os.ReadFile(filepath.Join("testdata", "second.ferry"))
	must(t, err)
	if !bytes.Equal(made, golden) {
		t.Errorf("create gives %d bytes that are not the %d of second.ferry", len(made), len(golden))
	}
	d := open(t, path)
	if d.unnamed.n == 0 || len(d.Info.Files) != 5 {
		t.Errorf("%d files without names, %d listed; want some, and 5", d.unnamed.n, len(d.Info.Files))
	}
}
