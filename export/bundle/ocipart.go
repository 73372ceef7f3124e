package bundle

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"strings"

	"ferry/manifest"
)

// partReader puts a content together from layers.
type partReader struct {
	o             *ociReader
	c             Content
	notes         annotations
	whole         bool            // this program made it
	files, shared map[string]File // by path, relative to the implementation's and the addon's folder
	loose         []string        // files whose place K2s may have lost
}

// name finds out which implementation it is: K2s' releases put that in different
// places.
func (p *partReader) name(d descriptor, m manifestFile) error {
	var config configFile
	if s, err := p.o.blob(m.Config); err == nil && s.size > 2 {
		if err := p.o.json(s, &config); err != nil {
			return err
		}
	} else if err != nil && m.Config.Digest != "" {
		return err
	}
	p.c.Addon = cmp.Or(m.Annotations[noteAddon], config.Name, d.Annotations[noteAddon])
	p.c.Implementation = cmp.Or(m.Annotations[noteImpl], config.Implementation, d.Annotations[noteImpl], p.c.Addon)
	p.c.Version = cmp.Or(m.Annotations[noteVersion], config.Version, d.Annotations[noteVersion])
	p.c.Description = config.Description
	if err := checkName("addon", p.c.Addon); err != nil {
		return err
	}
	return checkName("implementation", p.c.Implementation)
}

// layer reads a layer: which, its media type says, with the patterns that K2s has.
func (p *partReader) layer(ctx context.Context, d descriptor) error {
	media := d.MediaType
	switch {
	case media == mediaEmpty:
		return nil
	case media == mediaShared:
		return p.texts(ctx, d, "", p.shared)
	case strings.Contains(media, "configfiles"):
		return p.texts(ctx, d, "", p.files)
	case strings.Contains(media, "helm.chart"):
		return p.texts(ctx, d, chartFolder, p.files)
	case strings.Contains(media, "manifests"):
		return p.texts(ctx, d, manifestsFolder, p.files)
	case strings.Contains(media, "scripts"):
		return p.texts(ctx, d, "", p.files)
	case strings.Contains(media, "images-windows"):
		return p.images(ctx, d, windows)
	case strings.Contains(media, "image.layer"):
		return p.images(ctx, d, linux)
	case strings.Contains(media, "packages"):
		return p.packages(ctx, d)
	default:
		return nil // of a later version: K2s passes over it, too
	}
}

// texts takes the files of a layer, below a folder of the implementation.
func (p *partReader) texts(ctx context.Context, d descriptor, folder string, into map[string]File) error {
	l, err := p.o.layer(ctx, d, maxText)
	if err != nil {
		return err
	}
	for _, s := range l.files {
		name := folder + s.name
		if name == DefaultManifestName && folder == "" {
			if err := p.manifest(l, s, d); err != nil {
				return err
			}
			continue
		}
		if s.typ == manifest.TypeLink {
			if err := checkLink(name, s.link); err != nil {
				return err
			}
		}
		if s.typ == manifest.TypeDir {
			if into[name].Type == "" {
				into[name] = File{Type: manifest.TypeDir}
			}
			continue
		}
		into[name] = File{
			Type: s.typ, Size: s.size, Exec: s.exec && s.typ == manifest.TypeFile, ModTime: s.mtime, Link: s.link,
			stored: inSection(fmt.Sprintf("%s@%d", d.Digest, s.off), l.r, s.off, s.size),
		}
		if strings.Contains(d.MediaType, "configfiles") && !strings.Contains(name, "/") && !isSettings(name) && path.Ext(name) == ".json" {
			p.loose = append(p.loose, name)
		}
	}
	return nil
}

// manifest takes the addon's manifest. That of the first layer counts: K2s removes
// others.
func (p *partReader) manifest(l *layer, s span, d descriptor) error {
	if s.typ != manifest.TypeFile {
		return invalidf("%s is no file", DefaultManifestName)
	}
	if p.c.yaml != nil || !strings.Contains(d.MediaType, "configfiles") {
		return nil
	}
	p.c.yamlTime = s.mtime
	key := fmt.Sprintf("%s@%d", d.Digest, s.off)
	if p.c.yaml = p.o.yamls[key]; p.c.yaml != nil {
		return nil
	}
	var err error
	p.c.yaml, err = readSpan(l.r, s, maxYAML)
	p.o.yamls[key] = p.c.yaml
	return err
}

// dropCopies drops the settings that K2s puts into the configuration once more,
// without their folder.
func (p *partReader) dropCopies() error {
	if len(p.loose) == 0 {
		return nil
	}
	inFolders := map[string][]File{} // by their names alone
	for name, f := range p.files {
		if base := path.Base(name); base != name && f.Type == manifest.TypeFile && f.Size <= maxJSON {
			inFolders[base] = append(inFolders[base], f)
		}
	}
	for _, name := range p.loose {
		for _, f := range inFolders[name] {
			if f.Size != p.files[name].Size {
				continue
			}
			same, err := sameBytes(f.stored, p.files[name].stored)
			if err != nil {
				return err
			}
			if same {
				delete(p.files, name)
				break
			}
		}
	}
	return nil
}

func sameBytes(a, b stored) (bool, error) {
	var data [2][]byte
	for i, s := range []stored{a, b} {
		r, err := s.open()
		if err != nil {
			return false, err
		}
		data[i], err = io.ReadAll(io.LimitReader(r, maxJSON))
		r.Close()
		if err != nil {
			return false, err
		}
	}
	return bytes.Equal(data[0], data[1]), nil
}

// images takes the image archives of a layer: those that are this manifest's,
// where it says so.
func (p *partReader) images(ctx context.Context, d descriptor, system string) error {
	var own []string
	if text := p.notes[noteImages]; text != "" && p.whole {
		if err := json.Unmarshal([]byte(text), &own); err != nil {
			return invalidf("%s: %v", noteImages, err)
		}
	}
	isOwn := map[string]bool{}
	for _, name := range own {
		isOwn[name] = true
	}
	l, err := p.o.layer(ctx, d, maxPackages)
	if err != nil {
		return err
	}
	for _, s := range l.files {
		if s.typ == manifest.TypeDir {
			continue
		}
		if s.typ != manifest.TypeFile || strings.Contains(s.name, "/") || !strings.EqualFold(path.Ext(s.name), ".tar") {
			return invalidf("layer of images: %s is no image archive", s.name)
		}
		if own != nil && !isOwn[s.name] {
			continue
		}
		im, err := p.o.image(ctx, l, s, fmt.Sprintf("%s@%d", d.Digest, s.off))
		if err != nil {
			return err
		}
		im.System = system
		p.c.Images = append(p.c.Images, im)
	}
	return nil
}

// image describes an image archive in a layer. It is looked into once, though many
// manifests may have the layer.
func (o *ociReader) image(ctx context.Context, l *layer, s span, key string) (Image, error) {
	if im, known := o.images[key]; known {
		return im, nil
	}
	im, err := newImage(ctx, l.r, s, key)
	if err == nil {
		o.images[key] = im
	}
	return im, err
}

// packages takes Debian packages and downloads.
func (p *partReader) packages(ctx context.Context, d descriptor) error {
	l, err := p.o.layer(ctx, d, maxPackages)
	if err != nil {
		return err
	}
	for _, s := range l.files {
		if s.typ == manifest.TypeDir {
			continue
		}
		if s.typ != manifest.TypeFile {
			return invalidf("layer of packages: %s is no file", s.name)
		}
		key := fmt.Sprintf("%s@%d", d.Digest, s.off)
		p.c.Packages = append(p.c.Packages, Package{kindOf(s.name), s.name, s.size, inSection(key, l.r, s.off, s.size)})
	}
	return nil
}

// content returns what was put together.
func (p *partReader) content() Content {
	p.c.Files = settle(p.files, folderOf(p.c.Addon, p.c.Implementation))
	p.c.Shared = settle(p.shared, p.c.Addon)
	return p.c
}

// settle gives files their paths, and drops folders that are not empty.
func settle(files map[string]File, folder string) []File {
	full := map[string]bool{}
	for name := range files {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			full[dir] = true
		}
	}
	var all []File
	for name, f := range files {
		if f.Type == manifest.TypeDir && full[name] {
			continue
		}
		f.Path = folder + "/" + name
		all = append(all, f)
	}
	return all
}
