package delta

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ferry/manifest/place"
)

// scripts are many small files, of which the target changes three.
func scripts() (base, target files) {
	base, target = files{}, files{}
	for i := range 400 {
		name, text := fmt.Sprintf("lib/%02d/script%03d.ps1", i/20, i), fmt.Sprintf("Write-Output %d\n", i)
		base[name], target[name] = text, text
	}
	target["lib/03/script061.ps1"] = "Write-Output changed\n"
	target["lib/09/new.ps1"] = "Write-Output new\n"
	delete(target, "lib/15/script301.ps1")
	return base, target
}

func unnamedDelta(t *testing.T) (d *Delta, base, target files) {
	base, target = scripts()
	path, _ := create(t, target, base)
	d = open(t, path)
	if named, all := d.Target.Files(), len(target); d.unnamed.n < all-10 || named+d.unnamed.n != all {
		t.Fatalf("%d files have names, %d none; want most of %d without", named, d.unnamed.n, all)
	}
	return d, base, target
}

// ownFiles are of a site: before, between and behind others, and beside each.
func ownFiles(base files) files {
	own := files{"a.log": "1", "lib/00/a": "2", "lib/99/z": "3", "zz/deep/er/file": "4"}
	for p, text := range base {
		if strings.HasPrefix(p, "lib/05/") {
			own[p+".bak"], own[p[:len(p)-4]] = text, text
		}
	}
	return own
}

func TestUnnamedApply(t *testing.T) {
	d, base, target := unnamedDelta(t)
	many := files{} // too many to compare each with each
	for i := range 300 {
		many[fmt.Sprintf("lib/04/log%05d.txt", i)] = fmt.Sprint(i)
	}
	for name, site := range map[string]files{"as it was": base, "with files of its own": base.with(ownFiles(base)), "with a folder of its own": base.with(many)} {
		to := filepath.Join(t.TempDir(), "new")
		if _, err := Apply(context.Background(), d, treeBase(t, site.write(t)), to, place.Options{}); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		same(t, read(t, to), target)
	}
}

func TestUnnamedMismatch(t *testing.T) {
	d, base, _ := unnamedDelta(t)
	for _, test := range []struct {
		name, path string
		changes    files
	}{
		{"edited", "lib/07/script143.ps1", files{"lib/07/script143.ps1": "Write-Output edited\n"}},
		{"edited, beside the site's own", "lib/07/script143.ps1", files{"lib/07/script143.ps1": "Write-Output 7\n", "lib/07/own": "1", "lib/08/own": "2"}},
		{"missing", "sorted between", files{"lib/07/script143.ps1": ""}},
		{"renamed", "sorted between", files{"lib/07/script143.ps1": "", "lib/07/script143b.ps1": base["lib/07/script143.ps1"]}},
	} {
		to := filepath.Join(t.TempDir(), "new")
		_, err := Apply(context.Background(), d, treeBase(t, base.with(test.changes).write(t)), to, place.Options{})
		var mismatch *BaseMismatchError
		if !errors.As(err, &mismatch) || !strings.Contains(mismatch.Path, test.path) {
			t.Errorf("%s: %v, want a mismatch at %s", test.name, err, test.path)
		}
	}
}

func TestUnnamedInPlace(t *testing.T) {
	d, base, target := unnamedDelta(t)
	site := files{
		"lib/02/script044.ps1": "Write-Output edited\n",
		"lib/05/script105.ps1": "Write-Output edited\n",
		"lib/11/script230.ps1": "",
	}
	for p, text := range ownFiles(base) {
		site[p] = text
	}
	dir := base.with(site).write(t)
	report, err := ApplyInPlace(context.Background(), d, dir, InPlaceOptions{})
	must(t, err)
	same(t, read(t, dir), target.with(site))
	var modified []string
	for _, m := range report.Modified {
		if modified = append(modified, m.Path); !m.Kept {
			t.Errorf("%s is not kept", m.Path)
		}
	}
	slices.Sort(modified)
	if len(modified) != 3 || !strings.HasPrefix(modified[0], "a file sorted") || modified[1] != "lib/02/script044.ps1" || modified[2] != "lib/05/script105.ps1" {
		t.Errorf("modified = %q, want a missing file and two edited ones", modified)
	}
}

// TestAlign compares with what was done to the names, which random marks tell.
func TestAlign(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	wrong, all := 0, 0
	for range 300 {
		n := rng.IntN(100)
		var marks []mark
		var have, contents []byte
		var want []int
		own := func() {
			for rng.IntN(4) == 0 {
				have, contents = append(have, byte(rng.IntN(256))), append(contents, byte(rng.IntN(256)))
			}
		}
		for range n {
			own()
			m := mark{path: byte(rng.IntN(256)), content: byte(rng.IntN(256))}
			marks = append(marks, m)
			switch rng.IntN(20) {
			case 0: // missing
				want = append(want, -1)
				continue
			case 1: // edited
				m.content++
			}
			want = append(want, len(have))
			have, contents = append(have, m.path), append(contents, m.content)
		}
		own()
		pairs, err := alignAll(marks, have, func(i, j int) (likeness, error) {
			if marks[i].content != contents[j] {
				return differs, nil
			}
			return equal, nil
		})
		must(t, err)
		if len(pairs) != n {
			t.Fatalf("%d pairs, want %d", len(pairs), n)
		}
		for i, j := range pairs {
			if all++; j != want[i] {
				wrong++
			}
			if j >= 0 && marks[i].path != have[j] {
				t.Fatalf("mark %d is paired with another path", i)
			}
		}
	}
	if wrong*500 > all {
		t.Errorf("%d of %d pairs are wrong", wrong, all)
	}
}

// TestAlignMany tells a folder of the site's own files, with which not all can be compared.
func TestAlignMany(t *testing.T) {
	const n, own = 2000, 200_000
	marks, have := make([]mark, n), make([]byte, 0, n+own)
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range marks {
		if i == n/2 {
			for range own {
				have = append(have, byte(rng.IntN(256)))
			}
		}
		marks[i] = mark{path: byte(rng.IntN(256))}
		have = append(have, marks[i].path)
	}
	pairs, err := alignAll(marks, have, func(i, j int) (likeness, error) {
		if j == i && i < n/2 || j == i+own && i >= n/2 {
			return equal, nil
		}
		return differs, nil
	})
	must(t, err)
	for i, j := range pairs {
		if want := i + own*bit(i >= n/2); j != want {
			t.Fatalf("mark %d is paired with %d, want %d", i, j, want)
		}
	}
	noContent := func(int, int) (likeness, error) { return unknown, nil }
	if _, err := alignAll(marks, have, noContent); !errors.Is(err, errTooMany) {
		t.Errorf("files of which nothing can be told: %v, want errTooMany", err)
	}
}
