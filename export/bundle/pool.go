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
	"ferry/manifest/deb"
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
	path  string // in the folder that it was found in, or in the package
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

// pool is where to look for what addons need: folders, and the package itself. The
// first of them that has all of an answer gives it: what is in several of them is
// never mixed.
type pool struct {
	sources []*source
	trees   []tree.Tree

	imagesRead bool
	unreadable []string // archives that are none, and why
}

// source is a folder, or the package.
type source struct {
	files   []*candidate
	images  []*image
	version bool // it is the package, where files have other uses, too
}

// addFolder adds the files of a folder, or the one file that name is.
func (p *pool) addFolder(ctx context.Context, name string) error {
	t, err := tree.Open(name, tree.Options{AsFile: true})
	if err != nil {
		return err
	}
	p.trees = append(p.trees, t)
	s := &source{}
	p.sources = append(p.sources, s)
	return t.Walk(ctx, func(n tree.Node, _ func() (io.ReadCloser, error)) error {
		if n.Kind == tree.File {
			s.files = append(s.files, &candidate{n.Path, path.Join(strings.ReplaceAll(name, `\`, "/"), n.Path), n.Size, func(ctx context.Context) (tree.Content, error) {
				return t.OpenAt(ctx, n.Path)
			}})
		}
		return nil
	})
}

// addVersion adds the files of a version.
func (p *pool) addVersion(m *manifest.Manifest, files Files) {
	s := &source{version: true}
	p.sources = append(p.sources, s)
	for _, e := range m.Entries {
		if e.Type == manifest.TypeFile {
			s.files = append(s.files, &candidate{e.Path, e.Path, e.Size, func(ctx context.Context) (tree.Content, error) {
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

// findImage returns the archive that holds an image, nil when there is none.
func (p *pool) findImage(ctx context.Context, ref addon.Reference, system string) (*image, error) {
	if err := p.readImages(ctx); err != nil {
		return nil, err
	}
	for _, s := range p.sources {
		if im := s.image(ref, system); im != nil {
			return im, nil
		}
	}
	return nil, nil
}

// image returns the archive that holds an image. Of several that do, one made for the
// system is preferred.
func (s *source) image(ref addon.Reference, system string) *image {
	var found *image
	for _, im := range s.images {
		if !im.holds(ref) {
			continue
		}
		if slices.Contains(im.systems, system) {
			return im
		}
		if found == nil && len(im.systems) == 0 { // it does not say for which
			found = im
		}
	}
	if found == nil && ref.Versionless() {
		return s.onlyImage(ref.Name(), system)
	}
	return found
}

// onlyImage returns the archive of an image by its name, if there is just one.
func (s *source) onlyImage(name, system string) *image {
	var found *image
	for _, im := range s.images {
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
	for _, s := range p.sources {
		for _, c := range s.files {
			if !strings.EqualFold(path.Ext(c.path), ".tar") {
				continue
			}
			if err := p.readImage(ctx, s, c); err != nil {
				return fmt.Errorf("%s: %w", c.where, err)
			}
		}
	}
	p.imagesRead = true
	return nil
}

func (p *pool) readImage(ctx context.Context, s *source, c *candidate) error {
	content, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer content.Close()
	info, err := readImage(ctx, content, content.Size())
	switch {
	case errors.Is(err, ErrInvalid):
		p.unreadable = append(p.unreadable, fmt.Sprintf("%s: %v", c.where, err))
	case err != nil:
		return err
	case len(info.refs)+len(info.digests) > 0:
		s.images = append(s.images, &image{candidate: c, imageInfo: info})
	}
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
	for _, s := range p.sources {
		if c := s.download(name, folder); c != nil {
			return c
		}
	}
	return nil
}

// download returns the file of a name, that in the folder if there are several.
func (s *source) download(name, folder string) *candidate {
	var found *candidate
	for _, c := range s.files {
		if path.Base(c.path) != name || s.version && !forPackages(c.path) {
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

// forPackages reports whether a file of the package stands where packages and
// downloads do. A file of the same name elsewhere is the product's, and may be
// another one.
func forPackages(p string) bool {
	for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
		switch path.Base(dir) {
		case zipPackages, debianFolder, linuxFolder, windowsFolder:
			return true
		}
	}
	return false
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
	for _, s := range p.sources {
		found, err := s.debian(ctx, name, version)
		if len(found) > 0 || err != nil {
			return found, err
		}
	}
	return nil, nil
}

// debian is findDebian in one source.
func (s *source) debian(ctx context.Context, name, version string) ([]*candidate, error) {
	var folder, alone []*candidate
	complete := ""
	for _, c := range s.files {
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
		if info.Name != name || version != "" && info.Version != version {
			continue
		}
		if !inFolder {
			alone = append(alone, c)
		} else if complete == "" {
			complete = path.Dir(c.path)
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

func (c *candidate) debian(ctx context.Context) (deb.Info, error) {
	content, err := c.open(ctx)
	if err != nil {
		return deb.Info{}, fmt.Errorf("%s: %w", c.where, err)
	}
	defer content.Close()
	info, err := deb.Read(ctx, io.NewSectionReader(content, 0, content.Size()))
	if err != nil {
		return deb.Info{}, fmt.Errorf("%s: %w", c.where, err)
	}
	return info, nil
}
