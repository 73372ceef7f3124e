package delta

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"ferry/cas"
	"ferry/chunking"
	"ferry/manifest"
	"ferry/manifest/tree"
)

// ErrNoContent says that of a file only digests are known.
var ErrNoContent = errors.New("its content is not at hand")

// Partial is a Files some of whose content may not be at hand. Such a base can be
// copied from, as it is the site that copies, but new bytes are coded only against
// what can be read. Of any other Files, all content can be read.
type Partial interface {
	Files
	// Available reports whether OpenAt would give a file's content.
	Available(ctx context.Context, e manifest.Entry) (bool, error)
	// AvailableStream reports whether OpenStream would give stream i of a recipe.
	AvailableStream(ctx context.Context, e manifest.Entry, r *manifest.Recipe, i int) (bool, error)
}

// Inventory says what a site has: its manifest, and of which chunks each file is. It
// holds no content. As the Files of a [Version], it is a base that a delta for just
// that site is made from. It is safe for concurrent use.
type Inventory struct {
	// Label is what to call the site, such as the name of its folder.
	Label string
	// Number is what the site's version file says; empty when there is none.
	Number string
	// Params is the policy under which the files were cut.
	Params chunking.Params
	// Manifest lists the site's files.
	Manifest *manifest.Manifest

	recipes map[cas.Digest]*manifest.Recipe // of the files that are not empty
	library *manifest.Archive

	mu    sync.Mutex
	known map[contentKey]bool // whether the library has it
}

// contentKey names a file, or a stream of one.
type contentKey struct {
	file   cas.Digest
	stream int // wholeFile for all of it
}

const wholeFile = -1

var _ Partial = (*Inventory)(nil)

// NewInventory makes the inventory of files that were cut under p.
func NewInventory(ctx context.Context, m *manifest.Manifest, p chunking.Params, recipe func(ctx context.Context, e manifest.Entry) (*manifest.Recipe, error)) (*Inventory, error) {
	files, err := distinctFiles(m)
	if err != nil {
		return nil, err
	}
	v := &Inventory{Params: p, Manifest: m, recipes: map[cas.Digest]*manifest.Recipe{}}
	for _, e := range files {
		if v.recipes[e.Digest], err = recipe(ctx, e); err != nil {
			return nil, fmt.Errorf("%s: %w", e.Path, err)
		}
	}
	return v, ctx.Err()
}

// distinctFiles returns the files that are not empty, each content once, in the order
// of the manifest.
func distinctFiles(m *manifest.Manifest) ([]manifest.Entry, error) {
	var files []manifest.Entry
	sizes := map[cas.Digest]int64{}
	for _, e := range m.Entries {
		if e.Type != manifest.TypeFile || e.Size == 0 {
			continue
		}
		size, ok := sizes[e.Digest]
		if ok && size != e.Size {
			return nil, fmt.Errorf("%w: %s: a content of two sizes", ErrInvalid, e.Path)
		}
		if !ok {
			sizes[e.Digest] = e.Size
			files = append(files, e)
		}
	}
	return files, nil
}

// SetLibrary lets content be taken from an archive, as far as it has what the site
// has. It must stay open as long as the inventory is used, and be set before that.
func (v *Inventory) SetLibrary(a *manifest.Archive) { v.library = a }

// Recipe implements Files.
func (v *Inventory) Recipe(_ context.Context, e manifest.Entry) (*manifest.Recipe, error) {
	if r := v.recipes[e.Digest]; r != nil {
		return r, nil
	}
	if e.Size == 0 {
		return &manifest.Recipe{Digest: e.Digest}, nil
	}
	return nil, fmt.Errorf("%s: %w", e.Path, ErrNoContent)
}

// Available implements Partial.
func (v *Inventory) Available(ctx context.Context, e manifest.Entry) (bool, error) {
	if e.Size == 0 {
		return true, nil
	}
	if ok, err := v.hasFile(ctx, e); ok || err != nil {
		return ok, err
	}
	r, err := v.Recipe(ctx, e)
	if err != nil || !oneStream(r) {
		return false, err
	}
	return v.AvailableStream(ctx, e, r, 0)
}

// AvailableStream implements Partial.
func (v *Inventory) AvailableStream(_ context.Context, e manifest.Entry, r *manifest.Recipe, i int) (bool, error) {
	return v.remember(contentKey{e.Digest, i}, func() (bool, error) { return v.hasRuns(r.Streams[i].Runs) })
}

// hasFile reports whether the library has a file by its digest, however it is cut
// there.
func (v *Inventory) hasFile(ctx context.Context, e manifest.Entry) (bool, error) {
	return v.remember(contentKey{e.Digest, wholeFile}, func() (bool, error) {
		r, err := v.library.Recipe(ctx, e)
		if errors.Is(err, cas.ErrNotFound) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		for _, s := range r.Streams {
			if ok, err := v.hasRuns(s.Runs); !ok || err != nil {
				return false, err
			}
		}
		return true, nil
	})
}

// hasRuns reports whether the library has all of these chunks.
func (v *Inventory) hasRuns(runs []manifest.Run) (bool, error) {
	for _, run := range runs {
		if run.Zero() {
			continue
		}
		if ok, err := v.library.Store().Has(run.Key); !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

// remember asks the library once; with no library, nothing is there.
func (v *Inventory) remember(key contentKey, ask func() (bool, error)) (bool, error) {
	if v.library == nil {
		return false, nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if ok, known := v.known[key]; known {
		return ok, nil
	}
	ok, err := ask()
	if err != nil {
		return false, err
	}
	if v.known == nil {
		v.known = map[contentKey]bool{}
	}
	v.known[key] = ok
	return ok, nil
}

// OpenAt implements Files. The error matches [ErrNoContent] when the library does not
// have the file.
func (v *Inventory) OpenAt(ctx context.Context, e manifest.Entry) (tree.Content, error) {
	ok, err := v.hasFile(ctx, e)
	if err != nil {
		return nil, err
	}
	if ok {
		return v.library.OpenAt(ctx, e)
	}
	r, err := v.Recipe(ctx, e)
	if err != nil {
		return nil, err
	}
	if !oneStream(r) {
		return nil, fmt.Errorf("%s: %w", e.Path, ErrNoContent)
	}
	return v.OpenStream(ctx, e, r, 0, manifest.Location{})
}

// OpenStream implements Files. The error matches [ErrNoContent] when the library lacks
// one of its chunks.
func (v *Inventory) OpenStream(ctx context.Context, e manifest.Entry, r *manifest.Recipe, i int, _ manifest.Location) (tree.Content, error) {
	ok, err := v.AvailableStream(ctx, e, r, i)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("%s: %w", label(e.Path+"\x00/"+r.Streams[i].Name), ErrNoContent)
	}
	return v.library.OpenRuns(ctx, r.Streams[i].Runs), nil
}
