package delta

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"ferry/manifest/tree"
)

// site files: of nobody's package.
func own() files {
	return files{"site/own.conf": "mine", "lib/site.ps1": "mine too", "old/keep.txt": "beside a removed file"}
}

func applyInPlace(t testing.TB, path, dir string, force bool) *InPlaceReport {
	t.Helper()
	r, err := ApplyInPlace(context.Background(), open(t, path), dir, InPlaceOptions{Force: force})
	must(t, err)
	return r
}

func TestInPlaceAndUndo(t *testing.T) {
	path, _ := create(t, v2(), v1())
	dir := v1().with(own()).write(t)
	r := applyInPlace(t, path, dir, false)
	same(t, read(t, dir), v2().with(own()))
	if len(r.Modified) != 0 || r.Replaced == 0 || r.Added == 0 || r.Removed == 0 {
		t.Errorf("report = %+v", r)
	}
	if r := applyInPlace(t, path, dir, false); !r.Already {
		t.Errorf("second apply: Already = false, report %+v", r)
	}
	_, err := Undo(context.Background(), dir, false)
	must(t, err)
	same(t, read(t, dir), v1().with(own()))
	if _, err := os.Stat(filepath.Join(dir, tree.StateDir)); err == nil {
		t.Error("undo left the state folder")
	}
	if _, err := Undo(context.Background(), dir, false); !errors.Is(err, ErrNoUndo) {
		t.Errorf("second Undo = %v, want ErrNoUndo", err)
	}
	applyInPlace(t, path, dir, false)
	same(t, read(t, dir), v2().with(own()))
}

func TestInPlaceKeepsSiteChanges(t *testing.T) {
	path, _ := create(t, v2(), v1())
	changed := files{
		"lib/a.ps1":      "edited at the site", // the delta replaces it
		"lib/b.ps1":      "edited too",         // the delta leaves it alone
		"old/gone.txt":   "and this",           // the delta removes it
		"data/fresh.bin": "in the way",         // the delta adds it
	}
	dir := v1().with(changed).write(t)
	r := applyInPlace(t, path, dir, false)
	same(t, read(t, dir), v2().with(changed))
	if len(r.Modified) != len(changed) {
		t.Errorf("Modified = %v, want %d entries", r.Modified, len(changed))
	}
	for _, m := range r.Modified {
		if !m.Kept {
			t.Errorf("%s was not kept", m.Path)
		}
	}
}

func TestInPlaceForce(t *testing.T) {
	path, _ := create(t, v2(), v1())
	changed := files{"old/gone.txt": "edited", "data/fresh.bin": "in the way", "conf/was-file": "edited"}
	dir := v1().with(changed).write(t)
	applyInPlace(t, path, dir, true)
	same(t, read(t, dir), v2())
	_, err := Undo(context.Background(), dir, false)
	must(t, err)
	same(t, read(t, dir), v1().with(changed))
}

func TestInPlaceBlocked(t *testing.T) {
	path, _ := create(t, v2(), v1())
	mine := files{"conf/was-dir/mine": "own file in a folder that becomes a file", "data": "own file where a folder must be"}
	dir := v1().with(mine).write(t)
	r := applyInPlace(t, path, dir, true)
	got := read(t, dir)
	for p, want := range mine {
		if got[p] != want {
			t.Errorf("%s = %q, want the site's own %q", p, got[p], want)
		}
	}
	if len(r.Modified) != 2 {
		t.Errorf("Modified = %v, want 2 entries", r.Modified)
	}
}

func TestInPlaceOtherVersion(t *testing.T) {
	path, _ := create(t, v2(), v1())
	other := v1().with(files{"VERSION": "0.9", "lib/a.ps1": "older", "conf/was-file": "older", "old/gone.txt": "older", "conf/was-dir/in": "older", "bin/tool.exe": splice(v1()["bin/tool.exe"], 77)})
	dir := other.write(t)
	_, err := ApplyInPlace(context.Background(), open(t, path), dir, InPlaceOptions{})
	var wrong *BaseMismatchError
	if !errors.As(err, &wrong) {
		t.Errorf("ApplyInPlace = %v, want a BaseMismatchError", err)
	}
	same(t, read(t, dir), other)
}

func TestUndoRefusesLaterChanges(t *testing.T) {
	path, _ := create(t, v2(), v1())
	dir := v1().write(t)
	applyInPlace(t, path, dir, false)
	must(t, os.WriteFile(filepath.Join(dir, "lib", "a.ps1"), []byte("edited after"), 0o666))
	before := read(t, dir)
	r, err := Undo(context.Background(), dir, false)
	if !errors.Is(err, ErrModified) || len(r.Modified) != 1 || r.Modified[0].Path != "lib/a.ps1" {
		t.Fatalf("Undo = %+v, %v; want ErrModified for lib/a.ps1", r, err)
	}
	same(t, read(t, dir), before)
	_, err = Undo(context.Background(), dir, true)
	must(t, err)
	same(t, read(t, dir), v1())
}

func TestInPlaceBusy(t *testing.T) {
	path, _ := create(t, v2(), v1())
	dir := v1().write(t)
	s, err := openSite(dir)
	must(t, err)
	defer s.close()
	if _, err := ApplyInPlace(context.Background(), open(t, path), dir, InPlaceOptions{}); !errors.Is(err, ErrBusy) {
		t.Errorf("ApplyInPlace = %v, want ErrBusy", err)
	}
}

func TestSymlinkOutOfTree(t *testing.T) {
	path, _ := create(t, v2(), v1())
	outside := t.TempDir()
	dir := v1().with(files{"lib/a.ps1": "", "lib/b.ps1": ""}).write(t)
	must(t, os.RemoveAll(filepath.Join(dir, "lib")))
	if err := os.Symlink(outside, filepath.Join(dir, "lib")); err != nil {
		t.Logf("no symbolic links here: %v", err)
		return
	}
	ApplyInPlace(context.Background(), open(t, path), dir, InPlaceOptions{Force: true})
	if names, _ := os.ReadDir(outside); len(names) != 0 {
		t.Errorf("wrote %v outside the tree", names)
	}
}

func TestStageLinkedOutOfTree(t *testing.T) {
	path, _ := create(t, v2(), v1())
	outside, dir := t.TempDir(), v1().write(t)
	must(t, os.Mkdir(filepath.Join(dir, tree.StateDir), 0o777))
	if err := os.Symlink(outside, filepath.Join(dir, tree.StateDir, stageName)); err != nil {
		t.Logf("no symbolic links here: %v", err)
		return
	}
	if _, err := ApplyInPlace(context.Background(), open(t, path), dir, InPlaceOptions{}); err == nil {
		t.Error("ApplyInPlace = nil, want an error")
	}
	if names, _ := os.ReadDir(outside); len(names) != 0 {
		t.Errorf("wrote %v outside the tree", names)
	}
}

var errKilled = errors.New("killed")

// killAt opens a site whose n-th change of the tree fails, as if the process had
// been killed there.
func killAt(t testing.TB, dir string, n int) *site {
	t.Helper()
	s, err := openSite(dir)
	must(t, err)
	s.step = func(string) error {
		if n--; n < 0 {
			return errKilled
		}
		return nil
	}
	return s
}

// TestKilledAnywhere kills an in-place apply before each of its changes. A rerun
// then gives the target, and an undo the base.
func TestKilledAnywhere(t *testing.T) {
	path, _ := create(t, v2(), v1())
	d := open(t, path)
	kills := 0
	for n := 0; ; n++ {
		var trees [2]string
		killed := false
		for i := range trees {
			trees[i] = v1().with(own()).write(t)
			s := killAt(t, trees[i], n)
			_, err := s.apply(context.Background(), d, InPlaceOptions{})
			s.close()
			if killed = errors.Is(err, errKilled); err != nil && !killed {
				t.Fatal(err)
			}
		}
		applyInPlace(t, path, trees[0], false)
		same(t, read(t, trees[0]), v2().with(own()))
		if _, err := Undo(context.Background(), trees[1], false); err != nil && !errors.Is(err, ErrNoUndo) {
			t.Fatalf("killed at %d: Undo = %v", n, err)
		}
		same(t, read(t, trees[1]), v1().with(own()))
		if t.Failed() {
			t.Fatalf("killed at change %d", n)
		}
		if !killed {
			break
		}
		kills++
	}
	if kills < 20 {
		t.Errorf("killed %d times, want at least 20", kills)
	}
}

// TestUndoKilledAnywhere does the same to an undo: a rerun gives the base.
func TestUndoKilledAnywhere(t *testing.T) {
	path, _ := create(t, v2(), v1())
	for n := 0; ; n++ {
		dir := v1().with(own()).write(t)
		applyInPlace(t, path, dir, false)
		s := killAt(t, dir, n)
		_, err := s.undo(context.Background(), false)
		s.close()
		if err != nil && !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		killed := err != nil
		if killed {
			if _, err := Undo(context.Background(), dir, false); err != nil && !errors.Is(err, ErrNoUndo) {
				t.Fatalf("killed at %d: Undo = %v", n, err)
			}
		}
		same(t, read(t, dir), v1().with(own()))
		if t.Failed() {
			t.Fatalf("killed at change %d", n)
		}
		if !killed {
			return
		}
	}
}
