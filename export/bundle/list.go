package bundle

import (
	"cmp"
	"context"
	"slices"

	"ferry/manifest"
	"ferry/manifest/addon"
)

// Listed describes an implementation of an addon: in a version, with what it needs;
// in a bundle, with what the bundle has for it.
type Listed struct {
	Addon          string   `json:"addon"`
	Implementation string   `json:"implementation"`
	Title          string   `json:"title"`
	Version        string   `json:"version"`
	Description    string   `json:"description"`
	Files          int      `json:"files"`
	Size           int64    `json:"size_bytes"` // of the files
	Images         []string `json:"images"`     // references; where an archive has none, its name
	ImageSize      int64    `json:"image_size_bytes"`
	Packages       []string `json:"packages"` // Debian packages and addresses; in a bundle, files
	PackageSize    int64    `json:"package_size_bytes"`
}

// List describes the addons of a version. Of opts, Root, ManifestName and Addons
// count.
func List(ctx context.Context, m *manifest.Manifest, files Files, opts Options) ([]Listed, error) {
	p := &Plan{opts: opts.withDefaults(), m: m, files: files}
	all, err := addon.Find(ctx, m, p.opts.Root, p.opts.ManifestName, p.read)
	if err != nil {
		return nil, err
	}
	chosen, err := addon.ParseSelection(all, opts.Addons)
	if err != nil {
		return nil, err
	}
	for _, a := range chosen.Addons() {
		if err := p.addAddon(&a, allOf(all, a.Name)); err != nil {
			return nil, err
		}
	}
	listed := []Listed{}
	for _, part := range p.parts {
		l, err := p.list(ctx, part)
		if err != nil {
			return nil, err
		}
		listed = append(listed, l)
	}
	return listed, nil
}

func (p *Plan) list(ctx context.Context, part *part) (Listed, error) {
	l := Listed{
		Addon: part.addon.Name, Implementation: part.impl.Name, Title: part.title(), Version: part.version(),
		Description: cmp.Or(part.impl.Description, part.addon.Description), Images: []string{}, Packages: []string{},
	}
	for _, e := range part.files {
		l.Files++
		l.Size += e.Size
	}
	images, err := part.impl.Images(ctx, p.m, p.read)
	if err != nil {
		return l, err
	}
	for _, im := range slices.Concat(images.Linux, images.Windows) {
		if ref := im.Reference.Familiar(); !slices.Contains(l.Images, ref) {
			l.Images = append(l.Images, ref)
		}
	}
	needs := part.impl.Needs
	l.Packages = append(l.Packages, needs.Debs...)
	for _, d := range slices.Concat(needs.Linux.Curl, needs.Windows.Curl) {
		l.Packages = append(l.Packages, d.URL)
	}
	return l, nil
}

// List describes what is in the bundle.
func (b *Bundle) List() []Listed {
	listed := []Listed{}
	for i := range b.Contents {
		c := &b.Contents[i]
		l := Listed{
			Addon: c.Addon, Implementation: c.Implementation, Title: c.Title(), Version: c.Version, Description: c.Description,
			Files: len(c.Files), Images: []string{}, Packages: []string{},
		}
		for _, f := range c.Files {
			l.Size += f.Size
		}
		for _, im := range c.Images {
			l.ImageSize += im.Size
			if len(im.References) == 0 {
				l.Images = append(l.Images, im.Name)
			}
			for _, ref := range im.References {
				if !slices.Contains(l.Images, ref) {
					l.Images = append(l.Images, ref)
				}
			}
		}
		for _, f := range c.Packages {
			l.PackageSize += f.Size
			l.Packages = append(l.Packages, f.Path)
		}
		listed = append(listed, l)
	}
	return listed
}
