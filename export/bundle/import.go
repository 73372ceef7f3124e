package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/gofrs/flock"

	"ferry/cas"
	"ferry/manifest"
	"ferry/manifest/place"
	"ferry/manifest/tree"
)

// Import brings addons of a bundle into the folder target, which is made if need
// be: those that names mean, all for none. Addons that stand there are updated. The
// folder is only changed when all that is new was written beside it and verified;
// on an error it is as it was. Killed in between, the next Import first takes back
// what was begun.
//
// Files of the addons' folders that the bundle does not have are removed when they
// are known to be the product's, and are kept and reported otherwise. Files that the
// site changed are kept and reported, unless opts say otherwise; where nothing is
// known of a file, it is replaced, and what stood there is put by.
//
// Errors are those of [Bundle.Select] and of the disk, cas.ErrLocked when another
// command works on the folder, and place.ErrExists for something of the site's own
// that stands in the way, in the folder or where images and packages go.
func Import(ctx context.Context, b *Bundle, names []string, target string, opts ImportOptions) (*Report, error) {
	selected, err := b.Select(names)
	if err != nil {
		return nil, err
	}
	_, err = os.Stat(target)
	isNew := errors.Is(err, fs.ErrNotExist)
	if err := os.MkdirAll(target, 0o777); err != nil {
		return nil, err
	}
	report, err := importInto(ctx, b, selected, target, opts.withDefaults())
	if err != nil && isNew {
		os.Remove(target) // fails unless empty
	}
	return report, err
}

func importInto(ctx context.Context, b *Bundle, selected []*Content, target string, opts ImportOptions) (*Report, error) {
	f, err := openFolder(target)
	if err != nil {
		return nil, err
	}
	defer f.close()
	return f.importBundle(ctx, b, selected, opts)
}

// folder is an installed tree that is being changed. Paths are relative to its
// root, with slashes.
type folder struct {
	dir  string
	root *os.Root
	lock *flock.Flock
	// step is called before each change of the tree; tests make it fail.
	step func(what string) error
}

var _ site = (*folder)(nil)

// Where an import keeps its own state, in the root of the tree. The lock is the one
// that in-place deltas take, and theirs is the other journal.
const (
	stateFolder  = tree.StateDir + "/addons"
	stageFolder  = stateFolder + "/stage"
	asideFolder  = stateFolder + "/aside"
	journalPath  = stateFolder + "/journal.json"
	lockPath     = tree.StateDir + "/lock"
	deltaJournal = tree.StateDir + "/journal.json"
	// keepFolder is for what goes aside and may be the site's own; replacedFolder is
	// where that is when the exchange is done.
	keepFolder     = stateFolder + "/keep"
	replacedFolder = stateFolder + "/replaced"
)

func openFolder(dir string) (*folder, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	f := &folder{dir: dir, root: root, step: func(string) error { return nil }}
	if err := f.takeLock(); err != nil {
		root.Close()
		return nil, err
	}
	return f, nil
}

func (f *folder) importBundle(ctx context.Context, b *Bundle, selected []*Content, opts ImportOptions) (*Report, error) {
	if there, err := place.Exists(f.root, filepath.FromSlash(deltaJournal)); err != nil || there {
		if err == nil {
			err = fmt.Errorf("%s: an update was interrupted here: finish it with the same ferry delta apply, or take it back with ferry delta undo: %w", f.dir, cas.ErrLocked)
		}
		return nil, err
	}
	if err := f.recover(); err != nil {
		return nil, err
	}
	m := newMerger(b, f, selected, opts)
	if err := m.run(ctx); err != nil {
		return nil, err
	}
	if err := m.putRecord(ctx); err != nil {
		return nil, err
	}
	waiting, err := m.waiting(ctx)
	if err != nil {
		return nil, err
	}
	placed, err := placeApart(ctx, m, waiting)
	if err == nil && len(m.put)+len(m.remove) > 0 {
		err = f.change(ctx, m)
	}
	if err != nil {
		for _, name := range placed {
			os.Remove(name)
		}
		return nil, err
	}
	return m.report, nil
}

// putRecord adds the record of what imports have placed to what is placed.
func (m *merger) putRecord(ctx context.Context) error {
	data := append(encodeJSON(m.record), '\n')
	s := inMemory(data)
	e, err := s.entry(ctx, recordPath, int64(len(data)), m.createdTime(), false)
	if err != nil {
		return err
	}
	have, err := m.site.read(ctx, recordPath, maxList)
	if err == nil && cas.Sum(have) == e.Digest {
		return nil
	}
	m.put[recordPath] = item{e, s.open}
	return nil
}

func (it item) copyTo(ctx context.Context, w io.Writer) error {
	r, err := it.open()
	if err != nil {
		return err
	}
	defer r.Close()
	return copyContext(ctx, w, r)
}

// change writes all that is new beside the tree, and then exchanges it.
func (f *folder) change(ctx context.Context, m *merger) error {
	var entries []manifest.Entry
	for _, it := range m.put {
		entries = append(entries, it.Entry)
	}
	staged, err := manifest.New(entries)
	if err != nil {
		return err
	}
	if err := f.root.MkdirAll(filepath.FromSlash(stateFolder), 0o777); err != nil {
		return err
	}
	dir := filepath.Join(f.dir, filepath.FromSlash(stageFolder))
	if err := place.CheckSpace(f.dir, dir, staged.Size()); err != nil {
		return err
	}
	st, err := place.OpenStage(dir)
	if err != nil {
		return err
	}
	fill := func(ctx context.Context, e manifest.Entry, w io.Writer) error { return m.put[e.Path].copyTo(ctx, w) }
	var stats place.Stats
	if err := st.Fill(ctx, staged, fill, place.Options{Progress: m.opts.Progress}, &stats); err != nil {
		if ctx.Err() == nil {
			st.Remove()
		}
		return err
	}
	if err := f.exchange(m.steps(staged)); err != nil {
		return err
	}
	if len(m.report.Replaced) > 0 {
		m.report.ReplacedIn = replacedFolder
		if waits, _ := place.Exists(f.root, filepath.FromSlash(keepFolder)); waits { // the next import moves it
			m.report.ReplacedIn = keepFolder
		}
	}
	return nil
}

// steps returns the exchange: what goes, and what comes.
func (m *merger) steps(staged *manifest.Manifest) []step {
	var steps []step
	for _, p := range slices.Sorted(maps.Keys(m.remove)) {
		steps = append(steps, step{Path: p, Old: true})
	}
	for _, e := range staged.Entries {
		isDir := e.Type == manifest.TypeDir
		steps = append(steps, step{Path: e.Path, Old: !isDir, New: true, Dir: isDir, Keep: !isDir && m.unknown[e.Path]})
	}
	return steps
}

func (f *folder) within(ctx context.Context, p string) ([]manifest.Entry, error) {
	var entries []manifest.Entry
	err := fs.WalkDir(f.root.FS(), p, func(name string, d fs.DirEntry, err error) error {
		if name == p && (errors.Is(err, fs.ErrNotExist) || place.IsNotDir(err)) {
			return fs.SkipAll
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		e, err := f.entry(ctx, name, d)
		if err == nil && e.Type != "" {
			entries = append(entries, e)
		}
		return err
	})
	return entries, err
}

// entry describes what stands at a path; it has no type for a folder that is not
// empty.
func (f *folder) entry(ctx context.Context, name string, d fs.DirEntry) (manifest.Entry, error) {
	e := manifest.Entry{Path: name}
	local := filepath.FromSlash(name)
	switch {
	case d.IsDir():
		dir, err := f.root.Open(local)
		if err != nil {
			return e, err
		}
		defer dir.Close()
		if names, err := dir.Readdirnames(1); len(names) > 0 || err != nil && !errors.Is(err, io.EOF) {
			return e, ignoreEOF(err)
		}
		e.Type = manifest.TypeDir
		return e, nil
	case d.Type()&fs.ModeSymlink != 0:
		link, err := f.root.Readlink(local)
		e.Type, e.Link = manifest.TypeLink, filepath.ToSlash(link)
		return e, err
	case !d.Type().IsRegular():
		e.Type = "special"
		return e, nil
	}
	file, err := f.root.Open(local)
	if err != nil {
		return e, err
	}
	defer file.Close()
	fi, err := file.Stat()
	if err != nil {
		return e, err
	}
	e.Type, e.Size, e.ModTime, e.Exec = manifest.TypeFile, fi.Size(), fi.ModTime().Unix(), fi.Mode()&0o111 != 0
	e.Digest, err = place.Digest(ctx, file)
	return e, err
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (f *folder) read(_ context.Context, p string, limit int64) ([]byte, error) {
	file, err := f.root.Open(filepath.FromSlash(p))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s: more than %d bytes", path.Base(p), limit)
	}
	return data, err
}
