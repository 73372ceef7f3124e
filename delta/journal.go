package delta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"ferry/cas"
	"ferry/cas/durable"
	"ferry/manifest"
	"ferry/manifest/place"
	"ferry/manifest/tree"
)

// journal lists an exchange between a tree, its staging folder and its undo
// folder. Every step can be repeated, forwards and backwards, from any state in
// which the step before a crash can have left the tree; so a journal that is
// found is simply gone through again.
type journal struct {
	Format   string         `json:"format"`
	Delta    cas.Digest     `json:"delta"`
	Base     string         `json:"base"`
	Target   string         `json:"target"`
	Manifest cas.Digest     `json:"manifest"`
	Undo     string         `json:"undo"`           // folder under undo/ that keeps what was replaced
	Back     bool           `json:"back,omitempty"` // the exchange is being taken back
	Steps    []step         `json:"steps"`
	Report   *InPlaceReport `json:"report"`
}

// journalFormat is the version of journal.json and undo.json.
const journalFormat = "ferry.journal/1"

// step is a change of one path.
type step struct {
	Path string   `json:"path"`
	Kind stepKind `json:"kind"`
	// Old: what stands goes to the undo folder. New: what is staged takes its place.
	Old    bool        `json:"old,omitempty"`
	New    bool        `json:"new,omitempty"`
	Digest *cas.Digest `json:"digest,omitempty"` // of the new file
	Link   string      `json:"link,omitempty"`   // of the new link

	Exec     bool  `json:"exec,omitempty"`
	MTime    int64 `json:"mtime,omitempty"`
	OldExec  bool  `json:"old_exec,omitempty"`
	OldMTime int64 `json:"old_mtime,omitempty"`
}

type stepKind string

const (
	stepExchange stepKind = "exchange"
	stepMeta     stepKind = "meta"
	stepDir      stepKind = "mkdir"
	stepRmdir    stepKind = "rmdir"
)

const (
	undoName  = "undo.json"
	filesName = "files"
	maxState  = 1 << 30
)

// readJournal reads a journal; it returns nil when there is none.
func (s *site) readJournal(name string) (*journal, error) {
	f, err := s.root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxState))
	if err != nil {
		return nil, err
	}
	j := &journal{}
	if err := json.Unmarshal(data, j); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, name, err)
	}
	if tree.CheckPath(j.Undo) != nil || strings.Contains(j.Undo, "/") {
		return nil, fmt.Errorf("%w: %s: undo folder %q", ErrInvalid, name, j.Undo)
	}
	if j.Format != journalFormat {
		return nil, fmt.Errorf("%w: %s: format %q, this program reads %q", ErrInvalid, name, j.Format, journalFormat)
	}
	for _, st := range j.Steps {
		if err := tree.CheckPath(st.Path); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, name, err)
		}
	}
	return j, nil
}

func (s *site) writeJournal(j *journal) error {
	if err := s.step("journal"); err != nil {
		return err
	}
	data, err := json.Marshal(j)
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(s.dir, s.state(journalName)), data)
}

// Where the files of an exchange are while they are not in the tree.
func (s *site) staged(j *journal, p string) string {
	return s.state(stageName, j.Delta.Short(), filepath.FromSlash(p))
}

func (s *site) undone(j *journal, p string) string {
	return s.state(undoDir, j.Undo, filesName, filepath.FromSlash(p))
}

// undoFolder names the n-th undo folder of a delta. There are several when it was
// applied again, to replace what an earlier apply kept.
func undoFolder(delta cas.Digest, n int) string { return fmt.Sprintf("%s-%06d", delta.Short(), n) }

// newUndo returns the folder for the next undo record of a delta.
func (s *site) newUndo(delta cas.Digest) (string, error) {
	for n := 0; ; n++ {
		name := undoFolder(delta, n)
		if there, err := place.Exists(s.root, s.state(undoDir, name, undoName)); err != nil || !there {
			return name, err
		}
	}
}

// finish goes through a journal, forwards or back, and closes it.
func (s *site) finish(j *journal) error {
	if j.Back {
		return s.finishBack(j)
	}
	if err := s.forward(j); err != nil {
		return err
	}
	if err := s.step("undo record"); err != nil {
		return err
	}
	dir := s.state(undoDir, j.Undo)
	if err := s.root.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	data, err := json.Marshal(j)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(s.dir, dir, undoName), data); err != nil {
		return err
	}
	if err := s.closeJournal(); err != nil {
		return err
	}
	if err := s.dropUndo(j.Delta.Short()); err != nil {
		return err
	}
	return s.dropStage()
}

// closeJournal makes the exchange final.
func (s *site) closeJournal() error {
	if err := s.sync(); err != nil {
		return err
	}
	if err := s.step("close journal"); err != nil {
		return err
	}
	if err := s.root.Remove(s.state(journalName)); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Join(s.dir, tree.StateDir))
}

// sync makes the renames durable before the journal that would repeat them goes.
func (s *site) sync() error {
	return filepath.WalkDir(s.dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return durable.SyncDir(p)
	})
}

// dropUndo removes the undo records of all exchanges but one.
func (s *site) dropUndo(keep string) error {
	dir, err := s.root.Open(s.state(undoDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	names, err := dir.Readdirnames(-1)
	dir.Close()
	if err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasPrefix(name, keep) {
			if err := s.root.RemoveAll(s.state(undoDir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// forward does every step that is not done: first what goes, then what comes, so
// that a file can become a folder and the other way round.
func (s *site) forward(j *journal) error {
	for _, st := range j.Steps {
		if st.Kind == stepExchange && st.Old {
			if err := s.takeOld(j, st); err != nil {
				return fmt.Errorf("%s: %w", st.Path, err)
			}
		}
	}
	for _, st := range j.Steps {
		if st.Kind == stepRmdir || st.Kind == stepExchange && st.Old && !st.New {
			if st.Kind == stepRmdir {
				place.RemoveDir(s.root, st.Path) // stays if the site put something in it
			}
			place.RemoveEmpty(s.root, path.Dir(st.Path))
		}
	}
	for _, st := range j.Steps {
		if err := s.forwardNew(j, st); err != nil {
			return fmt.Errorf("%s: %w", st.Path, err)
		}
	}
	return nil
}

// takeOld moves what stands to the undo folder, unless that was done.
func (s *site) takeOld(j *journal, st step) error {
	name, undo := filepath.FromSlash(st.Path), s.undone(j, st.Path)
	done, err := place.Exists(s.root, undo)
	if err != nil || done {
		return err
	}
	if there, err := place.Exists(s.root, name); err != nil || !there {
		return err
	}
	return s.move(name, undo)
}

func (s *site) forwardNew(j *journal, st step) error {
	name := filepath.FromSlash(st.Path)
	switch {
	case st.Kind == stepMeta:
		return s.setMeta(name, st.Exec, st.MTime)
	case st.Kind == stepDir:
		return s.root.MkdirAll(name, 0o777)
	case st.Kind == stepExchange && st.New:
		return s.moveIfThere(s.staged(j, st.Path), name)
	}
	return nil
}

func (s *site) moveIfThere(from, to string) error {
	there, err := place.Exists(s.root, from)
	if err != nil || !there {
		return err
	}
	return s.move(from, to)
}

func (s *site) setMeta(name string, exec bool, mtime int64) error {
	if err := s.step("meta " + name); err != nil {
		return err
	}
	t := time.Unix(mtime, 0)
	if err := s.root.Chtimes(name, t, t); err != nil {
		return err
	}
	fi, err := s.root.Stat(name)
	if err != nil {
		return err
	}
	mode := fi.Mode().Perm() &^ 0o111
	if exec {
		mode |= mode & 0o444 >> 2 // whoever may read it may execute it
	}
	if mode == fi.Mode().Perm() {
		return nil
	}
	return s.root.Chmod(name, mode)
}

// backward takes every step back that is done.
func (s *site) backward(j *journal) error {
	for i := len(j.Steps) - 1; i >= 0; i-- {
		st := j.Steps[i]
		name := filepath.FromSlash(st.Path)
		var err error
		switch {
		case st.Kind == stepMeta:
			err = s.setMeta(name, st.OldExec, st.OldMTime)
		case st.Kind == stepDir:
			place.RemoveDir(s.root, st.Path) // stays if the site put something in it
		case st.Kind == stepExchange && st.New:
			err = s.giveNew(j, st)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", st.Path, err)
		}
	}
	for _, st := range j.Steps {
		if st.Kind == stepExchange && st.New && !st.Old {
			place.RemoveEmpty(s.root, path.Dir(st.Path))
		}
	}
	for _, st := range j.Steps {
		var err error
		switch {
		case st.Kind == stepRmdir:
			err = s.root.MkdirAll(filepath.FromSlash(st.Path), 0o777)
		case st.Kind == stepExchange && st.Old:
			err = s.moveIfThere(s.undone(j, st.Path), filepath.FromSlash(st.Path))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", st.Path, err)
		}
	}
	return nil
}

// giveNew moves the new file back to the staging folder, unless it is there: the
// step was then not done, or was taken back already.
func (s *site) giveNew(j *journal, st step) error {
	name, staged := filepath.FromSlash(st.Path), s.staged(j, st.Path)
	if there, err := place.Exists(s.root, staged); err != nil || there {
		return err
	}
	return s.moveIfThere(name, staged)
}

func (s *site) finishBack(j *journal) error {
	if err := s.backward(j); err != nil {
		return err
	}
	// The undo record goes before the journal: while there is a journal, it
	// speaks for both.
	if err := s.step("drop undo"); err != nil {
		return err
	}
	if err := s.root.RemoveAll(s.state(undoDir, j.Undo)); err != nil {
		return err
	}
	s.root.Remove(s.state(undoDir))
	if err := s.closeJournal(); err != nil {
		return err
	}
	return s.dropStage()
}

// UndoReport says what an undo took back.
type UndoReport struct {
	Base     string     `json:"base"`   // what the tree is again
	Target   string     `json:"target"` // what it was
	Restored int        `json:"restored"`
	Removed  int        `json:"removed"`
	Modified []Modified `json:"modified"`
}

// Undo takes the last in-place change of the tree at dir back, or one that was
// interrupted. Files that the site changed since then make it stop before it
// changes anything, with ErrModified and the report's list, unless force is set.
// ErrNoUndo says that there is nothing to take back.
func Undo(ctx context.Context, dir string, force bool) (*UndoReport, error) {
	s, err := openSite(dir)
	if err != nil {
		return nil, err
	}
	defer s.close()
	return s.undo(ctx, force)
}

func (s *site) undo(ctx context.Context, force bool) (*UndoReport, error) {
	j, err := s.readJournal(s.state(journalName))
	if err == nil && j == nil {
		j, err = s.lastUndo()
	}
	if err != nil {
		return nil, err
	}
	if j == nil {
		return nil, fmt.Errorf("%s: %w", s.dir, ErrNoUndo)
	}
	r := &UndoReport{Base: j.Base, Target: j.Target, Modified: []Modified{}}
	for first := j.Delta; j != nil && j.Delta == first; {
		if err := s.undoOne(ctx, j, r, force); err != nil {
			return r, err
		}
		if j, err = s.lastUndo(); err != nil {
			return r, err
		}
	}
	return r, nil
}

func (s *site) undoOne(ctx context.Context, j *journal, r *UndoReport, force bool) error {
	for _, st := range j.Steps {
		if err := s.checkUndo(ctx, j, st, r); err != nil {
			return err
		}
	}
	if len(r.Modified) > 0 && !force {
		return fmt.Errorf("%s: %w since the update: %s and %d more", s.dir, ErrModified, r.Modified[0].Path, len(r.Modified)-1)
	}
	j.Back = true
	if err := s.writeJournal(j); err != nil {
		return err
	}
	return s.finish(j)
}

// checkFolder returns an error when a folder that stands where a file is to be
// restored holds what the exchange did not put there: it could not go, even by
// force.
func (s *site) checkFolder(j *journal, dir string) error {
	placed := map[string]bool{}
	for _, st := range j.Steps {
		placed[st.Path] = st.New
	}
	return fs.WalkDir(s.root.FS(), dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || placed[p] {
			return err
		}
		return fmt.Errorf("%s: %w since the update: %s stands in a folder that must become a file again; move it away", s.dir, ErrModified, p)
	})
}

// lastUndo reads the newest undo record; nil when there is none.
func (s *site) lastUndo() (*journal, error) {
	dir, err := s.root.Open(s.state(undoDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	slices.Sort(names) // of one delta: the newest last
	slices.Reverse(names)
	for _, name := range names {
		if j, err := s.readJournal(s.state(undoDir, name, undoName)); j != nil || err != nil {
			return j, err
		}
	}
	return nil, nil
}

// checkUndo counts a step, and notes when the site changed what it would take away.
func (s *site) checkUndo(ctx context.Context, j *journal, st step, r *UndoReport) error {
	if st.Kind != stepExchange {
		return nil
	}
	if st.Old {
		r.Restored++
	} else {
		r.Removed++
	}
	waiting, done := s.staged(j, st.Path), true
	if !st.New {
		waiting, done = s.undone(j, st.Path), false
	}
	if is, err := place.Exists(s.root, waiting); err != nil || is == done {
		return err // not yet exchanged
	}
	have, err := s.look(ctx, st.Path)
	if err != nil {
		return err
	}
	switch {
	case !st.New && have.kind == "":
	case !st.New && have.kind == manifest.TypeDir:
		return s.checkFolder(j, st.Path)
	case !st.New:
		r.Modified = append(r.Modified, Modified{Path: st.Path, Reason: "stands here again since the update"})
	case have.kind == "": // somebody removed it: nothing is lost
	case st.Digest != nil && (have.kind != manifest.TypeFile || have.digest != *st.Digest),
		st.Digest == nil && (have.kind != manifest.TypeLink || have.link != st.Link):
		r.Modified = append(r.Modified, Modified{Path: st.Path, Reason: "was changed since the update"})
	}
	return nil
}
