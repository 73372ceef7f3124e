package delta

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/gofrs/flock"

	"ferry/cas"
	"ferry/manifest"
	"ferry/manifest/place"
	"ferry/manifest/tree"
)

// InPlaceOptions say how to change a tree where it stands.
type InPlaceOptions struct {
	// Force replaces files that were changed at the site, too.
	Force bool
	// Match knows the delta's rules; it is needed when there are any.
	Match Matcher
	// Progress is told the bytes made and verified; nil is allowed.
	Progress cas.Counter
}

// InPlaceReport says what an in-place change did.
type InPlaceReport struct {
	Replaced int `json:"replaced"`
	Added    int `json:"added"`
	Removed  int `json:"removed"`
	Meta     int `json:"meta"`
	Resumed  int `json:"resumed_files"`
	// Already says that the tree was the target before.
	Already bool `json:"already_target,omitempty"`
	// Modified lists what was changed at the site: Kept files stay as they are,
	// the others were replaced by force (undo brings them back).
	Modified []Modified `json:"modified"`
	// Preserved lists what stays as the site has it by the delta's rules, also by force.
	Preserved []Modified `json:"preserved,omitempty"`
	// Forced says what was passed over by force.
	Forced string `json:"forced,omitempty"`
}

// Modified is a path that a site changed.
type Modified struct {
	Path   string `json:"path"`
	Reason string `json:"reason"`
	Kept   bool   `json:"kept"`
}

// Folders and files under tree.StateDir in an installed tree.
const (
	lockName    = "lock"
	journalName = "journal.json"
	stageName   = "stage"
	undoDir     = "undo"
)

// site is an installed tree that is being changed. All paths are relative to its
// root, with slashes.
type site struct {
	dir  string
	root *os.Root
	lock *flock.Flock
	// step is called before each change of the tree; tests make it fail.
	step func(what string) error
}

// openSite locks the tree at dir for this process.
func openSite(dir string) (*site, error) {
	fi, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if !fi.IsDir() {
		return nil, fmt.Errorf("%s: not a folder", dir)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	s := &site{dir: dir, root: root, step: func(string) error { return nil }}
	if err := s.mkdirState(); err != nil {
		root.Close()
		return nil, err
	}
	return s, nil
}

func (s *site) mkdirState() error {
	if err := s.root.MkdirAll(tree.StateDir, 0o777); err != nil {
		return err
	}
	if err := s.takeLock(); err != nil {
		return err
	}
	_, err := s.root.Lstat(s.state(addonsJournal))
	if err == nil {
		return fmt.Errorf("%s: %w: an import of addons was interrupted: run that again first", s.dir, ErrBusy)
	}
	return nil
}

// takeLock locks the tree. Who had the lock before may have removed its file meanwhile:
// then another counts.
func (s *site) takeLock() error {
	for range 100 {
		s.lock = flock.New(filepath.Join(s.dir, tree.StateDir, lockName))
		ok, err := s.lock.TryLock()
		if err == nil && !ok {
			err = fmt.Errorf("%s: %w", s.dir, ErrBusy)
		}
		if err != nil {
			return err
		}
		stands, err := s.root.Lstat(s.state(lockName))
		mine, failed := s.lock.Stat()
		if err == nil && failed == nil && os.SameFile(stands, mine) {
			return nil
		}
		s.lock.Unlock()
		if err := s.root.MkdirAll(tree.StateDir, 0o777); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s: %w", s.dir, ErrBusy)
}

// close unlocks the tree, and clears the state folder away if nothing is in it.
func (s *site) close() {
	s.root.Remove(s.state(lockName)) // fails while open, on Windows
	s.lock.Unlock()
	s.root.Remove(s.state(lockName))
	s.root.Remove(tree.StateDir) // fails unless empty
	s.root.Close()
}

func (s *site) state(parts ...string) string {
	return filepath.Join(append([]string{tree.StateDir}, parts...)...)
}

// ApplyInPlace turns the tree at dir into the target where it stands. All that
// is new is first made and verified in a staging folder; a journal then makes
// the exchange complete: killed at any moment, the next call finishes it, or
// Undo takes it back. Replaced files are kept for Undo.
//
// Files that the package does not know stay. Files that the site changed are
// reported, and stay too unless opts.Force is set. Errors are those of Apply, and
// ErrBusy.
func ApplyInPlace(ctx context.Context, d *Delta, dir string, opts InPlaceOptions) (*InPlaceReport, error) {
	s, err := openSite(dir)
	if err != nil {
		return nil, err
	}
	defer s.close()
	return s.apply(ctx, d, opts)
}

// addonsJournal is there while an import of addons is under way, or was interrupted.
const addonsJournal = "addons/journal.json"

func (s *site) apply(ctx context.Context, d *Delta, opts InPlaceOptions) (*InPlaceReport, error) {
	j, err := s.readJournal(s.state(journalName))
	if err != nil {
		return nil, err
	}
	if j != nil { // an exchange was interrupted: it is finished, whichever it was
		if err := s.finish(j); err != nil {
			return nil, err
		}
		if j.Delta == d.id && !j.Back {
			return j.Report, nil
		}
	}
	t, err := tree.Open(s.dir, tree.Options{})
	if err != nil {
		return nil, err
	}
	defer t.Close()
	u := &update{s: s, d: d, opts: opts, report: &InPlaceReport{Modified: []Modified{}}, stands: map[string]cas.Digest{}}
	if u.keep, err = opts.Match.compile(d.Info.Preserve); err != nil {
		return nil, err
	}
	if u.wholesale, err = opts.Match.compile(d.Info.WholeDirectories); err != nil {
		return nil, err
	}
	// A tree that is the target already, or in part, may be gone on with.
	if u.report.Forced, err = forced(d.checkNumber(ctx, TreeBase{t}, s.dir, d.Info.Target.Version), opts.Force); err != nil {
		return nil, err
	}
	a, missing, err := nearestApplier(ctx, d, TreeBase{t}, u.keep)
	if err != nil {
		return nil, err
	}
	defer a.close()
	u.a, u.d = a, a.d
	for _, what := range missing {
		u.report.Modified = append(u.report.Modified, Modified{what, "missing here, and the delta does not carry it", true})
	}
	if j, err = u.prepare(ctx); err != nil {
		return nil, err
	}
	a.close() // the exchange renames what was read: Windows does so with no open file
	if len(j.Steps) == 0 {
		j.Report.Already = len(j.Report.Modified) == 0
		return j.Report, s.dropStage()
	}
	// What an earlier use of the same delta left would look like steps done.
	if j.Undo, err = s.newUndo(j.Delta); err != nil {
		return nil, err
	}
	if err := s.root.RemoveAll(s.state(undoDir, j.Undo)); err != nil {
		return nil, err
	}
	if err := s.writeJournal(j); err != nil {
		return nil, err
	}
	return j.Report, s.finish(j)
}

// found is what stands at a path of the tree.
type found struct {
	kind   manifest.Type // empty when there is nothing
	size   int64
	digest cas.Digest
	link   string
	exec   bool
	mtime  int64
}

// look finds out what stands at a path.
func (s *site) look(ctx context.Context, p string) (found, error) {
	name := filepath.FromSlash(p)
	fi, err := s.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) || place.IsNotDir(err) {
		return found{}, nil
	}
	if err != nil {
		return found{}, err
	}
	switch {
	case fi.IsDir():
		return found{kind: manifest.TypeDir}, nil
	case fi.Mode()&fs.ModeSymlink != 0:
		link, err := s.root.Readlink(name)
		return found{kind: manifest.TypeLink, link: filepath.ToSlash(link)}, err
	case !fi.Mode().IsRegular():
		return found{kind: "special"}, nil
	}
	f, err := s.root.Open(name)
	if err != nil {
		return found{}, err
	}
	defer f.Close()
	digest, err := place.Digest(ctx, f)
	return found{kind: manifest.TypeFile, size: fi.Size(), digest: digest, exec: fi.Mode()&0o111 != 0, mtime: fi.ModTime().Unix()}, err
}

// same reports whether what was found has the content of an entry.
func (f found) same(e manifest.Entry) bool {
	return f.kind == e.Type && agrees(f.digest, e.Digest) && f.link == e.Link
}

// sameMeta reports whether it also has its mode and time.
func (f found) sameMeta(e manifest.Entry) bool {
	return e.Type != manifest.TypeFile || f.mtime == e.ModTime && (f.exec == e.Exec || runtime.GOOS == "windows")
}

// update is one in-place change being prepared.
type update struct {
	s      *site
	d      *Delta
	a      *applier
	opts   InPlaceOptions
	report *InPlaceReport

	keep      func(path string) bool // whether the site may have its own there
	wholesale func(path string) bool // whether it is in a folder that is to be the target's
	unmade    []Modified             // what cannot be made the target's, in such a folder

	base  map[string]neededFile // what the base has and the target not, or otherwise
	names map[string]string     // of the target, and what the base calls the file that the system takes for it
	steps []step
	// stands are the digests of files that are the target's already.
	stands map[string]cas.Digest
	// absent lists what base and target have and the tree has not.
	absent []string
}

// prepare stages and verifies all that is new, and returns the journal of the
// exchange. The tree itself is not changed.
func (u *update) prepare(ctx context.Context) (*journal, error) {
	u.base = map[string]neededFile{}
	for _, f := range u.d.need.Bases[u.a.base].Replaced {
		u.base[f.Path] = f
	}
	u.findRenamed()
	var staged []manifest.Entry
	for _, e := range u.d.Target.Entries {
		stage, err := u.entry(ctx, e)
		if err != nil {
			return nil, err
		}
		if stage {
			staged = append(staged, e)
		}
	}
	renamed := map[string]bool{}
	for _, was := range u.names {
		renamed[was] = true
	}
	for _, f := range u.d.need.Bases[u.a.base].Replaced {
		if _, stays := u.d.Target.Find(f.Path); !stays && !renamed[f.Path] {
			if err := u.removal(ctx, f); err != nil {
				return nil, err
			}
		}
	}
	if err := u.extra(ctx); err != nil {
		return nil, err
	}
	if len(u.unmade) > 0 && !u.opts.Force {
		first := u.unmade[0]
		return nil, fmt.Errorf("%s: %w: it %s; its folder is to be just the target's: put the base's file back first", first.Path, ErrModified, first.Reason)
	}
	if err := u.plausible(); err != nil {
		return nil, err
	}
	if err := u.stage(ctx, staged); err != nil {
		return nil, err
	}
	return &journal{
		Format: journalFormat, Delta: u.d.id, Base: u.d.plan.bases[u.a.base].label, Target: u.d.Info.TargetVersion,
		Manifest: u.d.plan.target, Steps: u.steps, Report: u.report,
	}, nil
}

// findRenamed finds base files whose names differ from those of target files in case
// only, where the system takes them for the same: they are not removed, but exchanged
// like files of that name.
func (u *update) findRenamed() {
	u.names = map[string]string{}
	if !u.s.foldsCase() {
		return
	}
	gone := map[string]string{}
	for _, f := range u.d.need.Bases[u.a.base].Replaced {
		if _, stays := u.d.Target.Find(f.Path); !stays {
			gone[strings.ToLower(f.Path)] = f.Path
		}
	}
	for _, e := range u.d.Target.Entries {
		was, ok := gone[strings.ToLower(e.Path)]
		if _, known := u.base[e.Path]; ok && !known {
			u.names[e.Path] = was
			old := u.base[was]
			old.Path = e.Path
			u.base[e.Path] = old
		}
	}
}

// foldsCase reports whether the system takes names that differ in case for the same.
func (s *site) foldsCase() bool {
	one, err := s.root.Lstat(tree.StateDir)
	other, failed := s.root.Lstat(strings.ToUpper(tree.StateDir))
	return err == nil && failed == nil && os.SameFile(one, other)
}

// plausible returns a [*BaseMismatchError] when most of what the delta replaces
// is not the base's: then the tree is not a changed copy of the base, but some
// other version, and a mixture would come out.
func (u *update) plausible() error {
	wrong, first := len(u.absent), ""
	if wrong > 0 {
		first = u.absent[0]
	}
	for _, m := range u.report.Modified {
		if _, ok := u.base[m.Path]; ok {
			wrong++
			if first == "" {
				first = m.Path
			}
		}
	}
	if u.opts.Force || wrong < 2 || 2*wrong <= len(u.base) {
		return nil
	}
	return u.a.mismatch(first, "it and %d more of %d files to be replaced are not the base's; is this another version?", wrong-1, len(u.base))
}

// entry decides what to do for an entry of the target, and reports whether it
// must be staged.
func (u *update) entry(ctx context.Context, e manifest.Entry) (stage bool, err error) {
	old, replaced := u.base[e.Path]
	have, err := u.s.look(ctx, e.Path)
	if err != nil {
		return false, err
	}
	if u.opts.Progress != nil && have.kind == manifest.TypeFile {
		u.opts.Progress.Add(have.size)
	}
	if have.same(e) {
		u.stands[e.Path] = have.digest
		if !have.sameMeta(e) {
			u.report.Meta++
			u.steps = append(u.steps, step{Path: e.Path, Kind: stepMeta, Exec: e.Exec, MTime: e.ModTime, OldExec: have.exec, OldMTime: have.mtime})
		}
		return false, nil
	}
	if replaced && have.kind == "" {
		u.absent = append(u.absent, e.Path)
	}
	unchanged := e.Type == manifest.TypeFile && (e.Size > 0 || isShort(e.Digest)) && u.a.programs[e.Path] == nil && !replaced
	reason, fixed := u.siteChange(have, old, replaced, unchanged), unchanged
	if reason == "" {
		reason, err = u.blocked(ctx, e, have)
		if err != nil {
			return false, err
		}
		fixed = true
	}
	if reason != "" {
		if have.kind != "" && u.keep(e.Path) {
			u.preserved(e.Path)
			return false, nil
		}
		kept := !u.opts.Force && !u.unit(e.Path) || fixed
		change := Modified{e.Path, reason, kept}
		u.report.Modified = append(u.report.Modified, change)
		if kept {
			if u.unit(e.Path) {
				u.unmade = append(u.unmade, change)
			}
			return false, nil
		}
	}
	st := step{Path: e.Path, Kind: stepExchange, Old: have.kind != "" && have.kind != manifest.TypeDir, New: true, Digest: digestOf(e), Link: e.Link, Exec: e.Exec, MTime: e.ModTime}
	if e.Type == manifest.TypeDir {
		st.Kind, st.New = stepDir, false
	}
	if st.Old {
		u.report.Replaced++
	} else {
		u.report.Added++
	}
	u.steps = append(u.steps, st)
	return e.Type != manifest.TypeDir, nil
}

func digestOf(e manifest.Entry) *cas.Digest {
	if e.Type != manifest.TypeFile {
		return nil
	}
	return &e.Digest
}

// siteChange says how what stands differs from what the base had there; empty
// when it does not.
func (u *update) siteChange(have found, old neededFile, replaced, unchanged bool) string {
	switch {
	case unchanged && have.kind == "":
		return "is missing here, and the delta does not carry it"
	case unchanged:
		return "was changed here, and the delta does not carry it"
	case !replaced && have.kind == "":
		return "" // new, and the place is free
	case have.kind == manifest.TypeDir:
		return "" // see blocked
	case !replaced:
		return "stands here, and is none of the base's files"
	case have.kind == "":
		return ""
	case old.Own:
		return "may be the site's own"
	case have.kind != old.Type, old.Digest != nil && !agrees(have.digest, *old.Digest), have.link != old.Link:
		return "was changed here"
	default:
		return ""
	}
}

// blocked says what of the site stands in the way of an entry, so that it cannot
// be placed even by force: a folder with files of the site's own, or a file where
// a folder must be.
func (u *update) blocked(ctx context.Context, e manifest.Entry, have found) (string, error) {
	if have.kind == manifest.TypeDir && e.Type != manifest.TypeDir {
		own, err := u.ownFileUnder(ctx, e.Path)
		if err != nil || own == "" {
			return "", err
		}
		return "a folder of this name holds " + own + ", which the base does not know, or not so", nil
	}
	for dir := path.Dir(e.Path); dir != "."; dir = path.Dir(dir) {
		fi, err := u.s.root.Lstat(filepath.FromSlash(dir))
		if errors.Is(err, fs.ErrNotExist) || place.IsNotDir(err) {
			continue
		}
		if err != nil {
			return "", err
		}
		if fi.IsDir() {
			break
		}
		if stays, err := u.stays(ctx, dir); stays || err != nil {
			return "its folder " + dir + " is no folder here", err
		}
		break
	}
	return "", nil
}

// stays reports whether what stands at p is kept: the base does not know it, or
// the site changed it and nothing is forced.
func (u *update) stays(ctx context.Context, p string) (bool, error) {
	old, replaced := u.base[p]
	switch {
	case u.unit(p):
		return false, nil
	case !replaced || u.opts.Force && !u.keep(p):
		return !replaced, nil
	}
	have, err := u.s.look(ctx, p)
	return u.siteChange(have, old, true, false) != "", err
}

// unit reports whether a path is replaced with its folder, whatever the site has there.
func (u *update) unit(p string) bool { return u.wholesale(p) && !u.keep(p) }

// preserved notes that what the site has at a path stays.
func (u *update) preserved(p string) {
	u.report.Preserved = append(u.report.Preserved, Modified{p, "is kept as it is here", true})
}

// extra takes away what stands in folders that are to be just the target's, and
// neither the base nor the target has.
func (u *update) extra(ctx context.Context) error {
	if len(u.d.Info.WholeDirectories) == 0 {
		return nil
	}
	var dirs []string
	err := fs.WalkDir(u.s.root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		if p == tree.StateDir {
			return fs.SkipDir
		}
		_, replaced := u.base[p]
		_, known := u.d.Target.Find(p)
		if p == "." || replaced || known || !u.unit(p) {
			return nil
		}
		if d.IsDir() {
			if len(u.d.Target.Within(p)) == 0 {
				dirs = append(dirs, p)
			}
			return nil
		}
		u.report.Removed++
		u.report.Modified = append(u.report.Modified, Modified{p, "stands in a folder that is to be just the target's", false})
		u.steps = append(u.steps, step{Path: p, Kind: stepExchange, Old: true})
		return nil
	})
	slices.Reverse(dirs) // the innermost first
	for _, p := range dirs {
		u.steps = append(u.steps, step{Path: p, Kind: stepRmdir})
	}
	return err
}

// ownFileUnder returns a file in a folder of the tree that the exchange will not
// take away; empty when there is none.
func (u *update) ownFileUnder(ctx context.Context, dir string) (string, error) {
	own := ""
	err := fs.WalkDir(u.s.root.FS(), dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		stays, err := u.stays(ctx, p)
		if stays {
			own = p
			return fs.SkipAll
		}
		return err
	})
	return own, err
}

// removal decides what to do for a base entry that the target lacks.
func (u *update) removal(ctx context.Context, f neededFile) error {
	have, err := u.s.look(ctx, f.Path)
	if err != nil || have.kind == "" {
		return err // gone already
	}
	if have.kind == manifest.TypeDir && f.Type != manifest.TypeDir && len(u.d.Target.Within(f.Path)) > 0 {
		return nil // has become the target's folder already
	}
	if f.Type == manifest.TypeDir {
		u.steps = append(u.steps, step{Path: f.Path, Kind: stepRmdir})
		return nil
	}
	changed := f.Own || have.kind != f.Type || f.Digest != nil && !agrees(have.digest, *f.Digest) || have.link != f.Link
	if changed && u.keep(f.Path) {
		u.preserved(f.Path)
		return nil
	}
	if changed {
		kept := !u.opts.Force && !u.unit(f.Path) || have.kind == manifest.TypeDir
		u.report.Modified = append(u.report.Modified, Modified{f.Path, "was changed here; the target has it no more", kept})
		if kept {
			return nil
		}
	}
	u.report.Removed++
	u.steps = append(u.steps, step{Path: f.Path, Kind: stepExchange, Old: true})
	return nil
}

// stage makes the new files and links in the staging folder.
func (u *update) stage(ctx context.Context, entries []manifest.Entry) error {
	m := &manifest.Manifest{Entries: entries}
	dir := filepath.Join(u.s.dir, u.s.state(stageName, u.d.id.Short()))
	if err := place.CheckSpace(u.s.dir, dir, m.Size()); err != nil {
		return err
	}
	if err := u.s.root.MkdirAll(u.s.state(stageName), 0o777); err != nil { // refuses a link that leads out
		return err
	}
	st, err := place.OpenStage(dir)
	if err != nil {
		return err
	}
	var stats place.Stats
	opts := place.Options{Progress: u.opts.Progress, Agrees: agrees, Verify: u.verify}
	err = st.Fill(ctx, m, u.a.fillOrDiagnose, opts, &stats)
	u.report.Resumed = stats.Resumed
	if err != nil && ctx.Err() == nil {
		st.Remove()
		u.s.root.Remove(u.s.state(stageName))
	}
	return err
}

// verify notes the whole digests of what was staged. Where nothing at the site differs
// from the target, these and what stands must make up the target's manifest.
func (u *update) verify(made map[string]cas.Digest) error {
	for i, s := range u.steps {
		if digest, ok := made[s.Path]; ok && s.Digest != nil {
			u.steps[i].Digest = &digest
		}
	}
	kept := func(m Modified) bool { return m.Kept }
	if slices.ContainsFunc(u.report.Modified, kept) || slices.ContainsFunc(u.report.Preserved, kept) {
		return nil
	}
	for p, digest := range u.stands {
		made[p] = digest
	}
	err := u.d.verify(u.d.Target, made)
	if err != nil && u.opts.Force && u.d.told() {
		return nil // some file is the site's own, and so alike that its mark is the same
	}
	return err
}

// dropStage removes all staging folders.
func (s *site) dropStage() error { return s.root.RemoveAll(s.state(stageName)) }

// move renames within the tree, making the folder that it goes to.
func (s *site) move(from, to string) error {
	if err := s.step("move " + filepath.ToSlash(from)); err != nil {
		return err
	}
	if err := s.root.MkdirAll(filepath.Dir(to), 0o777); err != nil {
		return err
	}
	return place.Retry(func() error { return s.root.Rename(from, to) })
}
