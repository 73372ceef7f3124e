package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"

	"ferry/cas/durable"
	"ferry/manifest/place"
	"ferry/manifest/tree"
)

// journal lists an exchange between a tree, its staging folder and the folder for
// what is put aside. While there is a journal, the exchange is not done: it is taken
// back. Every step can be taken back from any state in which a crash can have left
// it.
type journal struct {
	Format string `json:"format"`
	Steps  []step `json:"steps"`
}

const journalFormat = "ferry.exchange/1"

// step is a change of one path.
type step struct {
	Path string `json:"path"`
	Old  bool   `json:"old,omitempty"` // what stands, if anything does, goes aside
	New  bool   `json:"new,omitempty"` // what is staged takes its place
	Dir  bool   `json:"dir,omitempty"` // a folder that need not be moved
	// Keep says that what goes aside may be the site's own: it is not thrown away.
	Keep bool `json:"keep,omitempty"`
}

// aside is where what stands at the step's path goes.
func (st step) aside() string {
	if st.Keep {
		return keepFolder + "/" + st.Path
	}
	return asideFolder + "/" + st.Path
}

// exchange makes all steps, or none.
func (f *folder) exchange(steps []step) error {
	if err := f.root.RemoveAll(filepath.FromSlash(asideFolder)); err != nil { // of an exchange that was done
		return err
	}
	data, err := json.Marshal(journal{journalFormat, steps})
	if err != nil {
		return err
	}
	if err := f.step("journal"); err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(f.dir, filepath.FromSlash(journalPath)), data); err != nil {
		return err
	}
	err = f.forward(steps)
	if err == nil {
		err = f.sync(steps)
	}
	if err == nil {
		if err = f.step("close journal"); err == nil {
			err = f.closeJournal()
		}
	}
	if err != nil {
		if backErr := f.takeBack(steps); backErr != nil {
			return fmt.Errorf("%w; taking it back: %w: run the same command again", err, backErr)
		}
		return err
	}
	// Done. What was put aside is rubbish now: if it stays, the next import removes it.
	f.root.RemoveAll(filepath.FromSlash(asideFolder))
	f.root.RemoveAll(filepath.FromSlash(stageFolder))
	f.settleKept() // likewise
	return nil
}

// settleKept gives what an exchange put aside to be kept its lasting place, where it
// replaces that of an earlier one. It may only be called when there is no journal.
func (f *folder) settleKept() error {
	there, err := place.Exists(f.root, filepath.FromSlash(keepFolder))
	if err != nil || !there {
		return err
	}
	if err := f.root.RemoveAll(filepath.FromSlash(replacedFolder)); err != nil {
		return err
	}
	return place.Retry(func() error {
		return f.root.Rename(filepath.FromSlash(keepFolder), filepath.FromSlash(replacedFolder))
	})
}

// recover takes back an exchange that was interrupted, and ends one that was done.
func (f *folder) recover() error {
	data, err := f.readState(journalPath)
	if errors.Is(err, fs.ErrNotExist) {
		return f.settleKept()
	}
	if err != nil {
		return err
	}
	var j journal
	if err := json.Unmarshal(data, &j); err != nil || j.Format != journalFormat {
		return fmt.Errorf("%w: %s: format %q, this program reads %q", ErrInvalid, journalPath, j.Format, journalFormat)
	}
	for _, st := range j.Steps {
		if err := tree.CheckPath(st.Path); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrInvalid, journalPath, err)
		}
	}
	return f.takeBack(j.Steps)
}

// takeBack undoes an exchange and closes its journal.
func (f *folder) takeBack(steps []step) error {
	if err := f.backward(steps); err != nil {
		return err
	}
	if err := f.sync(steps); err != nil {
		return err
	}
	if err := f.root.RemoveAll(filepath.FromSlash(keepFolder)); err != nil { // empty folders
		return err
	}
	if err := f.closeJournal(); err != nil {
		return err
	}
	f.root.RemoveAll(filepath.FromSlash(asideFolder)) // empty folders
	f.root.RemoveAll(filepath.FromSlash(stageFolder))
	return nil
}

func (f *folder) readState(p string) ([]byte, error) {
	file, err := f.root.Open(filepath.FromSlash(p))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, maxList))
}

func (f *folder) closeJournal() error {
	if err := f.root.Remove(filepath.FromSlash(journalPath)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return durable.SyncDir(filepath.Join(f.dir, filepath.FromSlash(stateFolder)))
}

// sync makes the renames durable before the journal that speaks of them goes: all
// folders that the steps can have changed, and no others.
func (f *folder) sync(steps []step) error {
	dirs := map[string]bool{}
	for _, st := range steps {
		for _, p := range []string{st.Path, st.aside(), stageFolder + "/" + st.Path} {
			for dir := path.Dir(p); !dirs[dir]; dir = path.Dir(dir) {
				dirs[dir] = true // the root's parent is the root
			}
		}
	}
	for dir := range dirs {
		err := durable.SyncDir(filepath.Join(f.dir, filepath.FromSlash(dir)))
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !place.IsNotDir(err) {
			return err
		}
	}
	return nil
}

// forward makes the steps: first what goes, then what comes, so that a file can
// become a folder and the other way round.
func (f *folder) forward(steps []step) error {
	for _, st := range steps {
		if st.Old {
			if err := f.moveIfThere(st.Path, st.aside()); err != nil {
				return err
			}
		}
	}
	for _, st := range steps {
		if st.Old && !st.New {
			place.RemoveEmpty(f.root, path.Dir(st.Path))
		}
	}
	for _, st := range steps {
		var err error
		switch {
		case st.Dir:
			err = f.makeDir(st.Path)
		case st.New:
			err = f.move(stageFolder+"/"+st.Path, st.Path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// backward takes back the steps that were made.
func (f *folder) backward(steps []step) error {
	for i := len(steps) - 1; i >= 0; i-- {
		st := steps[i]
		if st.Dir {
			place.RemoveEmpty(f.root, st.Path)
			continue
		}
		if !st.New {
			continue
		}
		waits, err := place.Exists(f.root, filepath.FromSlash(stageFolder+"/"+st.Path))
		if err != nil {
			return err
		}
		if !waits { // it was moved
			if err := f.moveIfThere(st.Path, stageFolder+"/"+st.Path); err != nil {
				return err
			}
			place.RemoveEmpty(f.root, path.Dir(st.Path))
		}
	}
	for _, st := range steps {
		if st.Old {
			if err := f.moveIfThere(st.aside(), st.Path); err != nil {
				return err
			}
		}
	}
	return nil
}

// moveIfThere moves a file or link; a folder, or nothing, stays.
func (f *folder) moveIfThere(from, to string) error {
	fi, err := f.root.Lstat(filepath.FromSlash(from))
	if errors.Is(err, fs.ErrNotExist) || place.IsNotDir(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if fi.IsDir() {
		place.RemoveEmpty(f.root, from) // it must have been emptied
		return nil
	}
	return f.move(from, to)
}

func (f *folder) move(from, to string) error {
	if err := f.step("move " + from); err != nil {
		return err
	}
	if err := f.root.MkdirAll(filepath.FromSlash(path.Dir(to)), 0o777); err != nil {
		return err
	}
	return place.Retry(func() error { return f.root.Rename(filepath.FromSlash(from), filepath.FromSlash(to)) })
}

func (f *folder) makeDir(p string) error {
	if err := f.step("mkdir " + p); err != nil {
		return err
	}
	return f.root.MkdirAll(filepath.FromSlash(p), 0o777)
}
