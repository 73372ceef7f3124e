package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"ferry/export"
	"ferry/manifest"
	"ferry/manifest/addon"
	"ferry/manifest/tree"
)

// Files gives the content of a version's entries; both a manifest.Archive and a
// manifest.Scan do.
type Files interface {
	export.Files
	// OpenAt returns an entry's content for reading anywhere.
	OpenAt(ctx context.Context, e manifest.Entry) (tree.Content, error)
}

// candidate is a file that may be what an addon needs.
type candidate struct {
	path  string // in the pool
	where string // for people
	size  int64
	open  func(ctx context.Context) (tree.Content, error)
}

// copyTo writes the file's bytes.
func (c *candidate) copyTo(ctx context.Context, w io.Writer) error {
	content, err := c.open(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", c.where, err)
	}
	defer content.Close()
	if content.Size() != c.size {
		return fmt.Errorf("%s: %w", c.where, manifest.ErrChanged)
	}
	if err := copyContext(ctx, w, io.NewSectionReader(content, 0, c.size)); err != nil {
		return fmt.Errorf("%s: %w", c.where, err)
	}
	return nil
}

// pool is where to look for what addons need: folders, and the package itself.
// What was given first is taken first.
type pool struct {
	files []*candidate
	trees []tree.Tree

	images     []*image
	imagesRead bool
	unreadable []string // archives that are none, and why
}

// addFolder adds the files of a folder, or the one file that name is.
func (p *pool) addFolder(ctx context.Context, name string) error {
	t, err := tree.Open(name, tree.Options{AsFile: true})
	if err != nil {
		return err
	}
	p.trees = append(p.trees, t)
	return t.Walk(ctx, func(n tree.Node, _ func() (io.ReadCloser, error)) error {
		if n.Kind == tree.File {
			p.files = append(p.files, &candidate{n.Path, path.Join(strings.ReplaceAll(name, `\`, "/"), n.Path), n.Size, func(ctx context.Context) (tree.Content, error) {
				return t.OpenAt(ctx, n.Path)
			}})
		}
		return nil
	})
}

// addVersion adds the files of a version.
func (p *pool) addVersion(m *manifest.Manifest, files Files) {
	for _, e := range m.Entries {
		if e.Type == manifest.TypeFile {
			p.files = append(p.files, &candidate{e.Path, e.Path, e.Size, func(ctx context.Context) (tree.Content, error) {
				return files.OpenAt(ctx, e)
			}})
		}
	}
}

func (p *pool) close() {
	for _, t := range p.trees {
		t.Close()
	}
}

// findImage returns the archive that holds an image, nil when there is none. Of
// several that do, one made for the system is preferred.
func (p *pool) findImage(ctx context.Context, ref addon.Reference, system string) (*image, error) {
	if err := p.readImages(ctx); err != nil {
		return nil, err
	}
	var found *image
	for _, im := range p.images {
		if !im.holds(ref) {
			continue
		}
		if slices.Contains(im.systems, system) {
			return im, nil
		}
		if found == nil && len(im.systems) == 0 { // it does not say for which
			found = im
		}
	}
	if found == nil && ref.Versionless() {
		return p.onlyImage(ref.Name(), system), nil
	}
	return found, nil
}

// onlyImage returns the archive of an image by its name, if there is just one.
func (p *pool) onlyImage(name, system string) *image {
	var found *image
	for _, im := range p.images {
		fits := len(im.systems) == 0 || slices.Contains(im.systems, system)
		if fits && slices.ContainsFunc(im.refs, func(r addon.Reference) bool { return r.Name() == name }) {
			if found != nil {
				return nil
			}
			found = im
		}
	}
	return found
}

// readImages finds out once which of the files are image archives.
func (p *pool) readImages(ctx context.Context) error {
	if p.imagesRead {
		return nil
	}
	for _, c := range p.files {
		if !strings.EqualFold(path.Ext(c.path), ".tar") {
			continue
		}
		content, err := c.open(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", c.where, err)
		}
		refs, systems, err := readImage(ctx, content, content.Size())
		content.Close()
		switch {
		case errors.Is(err, ErrInvalid):
			p.unreadable = append(p.unreadable, fmt.Sprintf("%s: %v", c.where, err))
		case err != nil:
			return fmt.Errorf("%s: %w", c.where, err)
		case len(refs) > 0:
			p.images = append(p.images, &image{candidate: c, refs: refs, systems: systems})
		}
	}
	p.imagesRead = true
	return nil
}

// findDownload returns the file that was fetched from url for a system, nil when
// there is none. It has the last part of the address as its name.
func (p *pool) findDownload(url, system string) *candidate {
	name := downloadName(url)
	if name == "" {
		return nil
	}
	folder := linuxFolder
	if system == windows {
		folder = windowsFolder
	}
	var found *candidate
	for _, c := range p.files {
		if path.Base(c.path) != name {
			continue
		}
		if path.Base(path.Dir(c.path)) == folder {
			return c
		}
		if found == nil {
			found = c
		}
	}
	return found
}

// downloadName is the last part of an address.
func downloadName(url string) string {
	url, _, _ = strings.Cut(strings.TrimSpace(url), "#")
	url, _, _ = strings.Cut(url, "?")
	name := path.Base(url)
	if tree.CheckPath(name) != nil || strings.Contains(name, "/") {
		return ""
	}
	return name
}

// findDebian returns the files that install a Debian package: those of the folder
// debianpackages/NAME when it is one of them, as K2s keeps it with all that it
// depends on; else the one file that says that it is the package. None, when there
// is none.
func (p *pool) findDebian(ctx context.Context, want string) ([]*candidate, error) {
	name, version, _ := strings.Cut(want, "=")
	name, _, _ = strings.Cut(name, ":") // of an architecture
	var folder, alone []*candidate
	complete := ""
	for _, c := range p.files {
		if !strings.EqualFold(path.Ext(c.path), ".deb") {
			continue
		}
		inFolder := path.Base(path.Dir(c.path)) == name
		if inFolder {
			folder = append(folder, c)
		} else if !strings.HasPrefix(path.Base(c.path), name+"_") {
			continue
		}
		info, err := c.debian(ctx)
		if err != nil {
			return nil, err
		}
		if info.name != name || version != "" && info.version != version {
			continue
		}
		if inFolder {
			complete = path.Dir(c.path)
		} else {
			alone = append(alone, c)
		}
	}
	if complete != "" {
		return slices.DeleteFunc(folder, func(c *candidate) bool { return path.Dir(c.path) != complete }), nil
	}
	if len(alone) > 1 {
		return nil, fmt.Errorf("%s: which of %s and %s? name the version in the addon, or leave one out", name, alone[0].where, alone[1].where)
	}
	return alone, nil
}

func (c *candidate) debian(ctx context.Context) (debInfo, error) {
	content, err := c.open(ctx)
	if err != nil {
		return debInfo{}, fmt.Errorf("%s: %w", c.where, err)
	}
	defer content.Close()
	info, err := readDebian(ctx, io.NewSectionReader(content, 0, content.Size()))
	if err != nil {
		return debInfo{}, fmt.Errorf("%s: %w", c.where, err)
	}
	return info, nil
}
