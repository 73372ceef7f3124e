package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"ferry/cas"
	"ferry/manifest"
	"ferry/manifest/tree"
)

// inner is a file that a command looks into: a disk image, or a container file, which
// is the entry of a version.
type inner struct {
	path  string
	image *image
	*version
	entry manifest.Entry
}

func (in *inner) close() {
	if in.image != nil {
		in.image.close()
	}
	if in.version != nil {
		in.version.close()
	}
}

// openInner opens a file of a version to look into it; with no name, the only one.
func (a *app) openInner(ctx context.Context, arg, file string) (*inner, error) {
	if isPath(arg) {
		in, err := imageOfTree(ctx, arg, file)
		if err != nil || in != nil {
			return in, err
		}
	}
	v, err := a.openSide(ctx, arg, nil, true)
	if err != nil {
		return nil, err
	}
	if file == "" && len(v.manifest.Entries) == 1 {
		file = v.manifest.Entries[0].Path
	}
	e, ok := v.manifest.Find(file)
	if !ok || e.Type != manifest.TypeFile {
		v.close()
		return nil, fmt.Errorf("%s: %w", arg, &cas.NotFoundError{What: "file", Name: file})
	}
	return &inner{path: file, version: v, entry: e}, nil
}

// imageOfTree opens a disk image on disk, which need not be read as a whole; nil if the
// file is something else.
func imageOfTree(ctx context.Context, arg, file string) (*inner, error) {
	t, err := tree.Open(arg, tree.Options{})
	if err != nil {
		return nil, err
	}
	if file == "" && t.Format() == "file" {
		err = t.Walk(ctx, func(n tree.Node, _ func() (io.ReadCloser, error)) error { file = n.Path; return nil })
	}
	var c tree.Content
	if err == nil {
		c, err = t.OpenAt(ctx, file)
	}
	if err != nil {
		t.Close()
		return nil, fmt.Errorf("%s: %w", arg, err)
	}
	m, err := manifest.OpenImage(c)
	if err != nil || m == nil {
		c.Close()
		t.Close()
		return nil, err
	}
	return &inner{path: file, image: &image{Image: m, label: arg, path: file, close: func() { c.Close(); t.Close() }}}, nil
}

// listInside lists what is in a container file or disk image, at or below path.
func (a *app) listInside(ctx context.Context, arg, file, path string) ([]manifest.Entry, error) {
	in, err := a.openInner(ctx, arg, file)
	if err != nil {
		return nil, err
	}
	defer in.close()
	var all []manifest.Entry
	if in.image != nil {
		number := manifest.AllVolumes
		if first, _, _ := strings.Cut(path, "/"); first != "" {
			if n, err := strconv.Atoi(first); err == nil {
				number = n
			}
		}
		all, err = manifest.InsideImage(ctx, in.image.Image, number, nil, func(text string) { a.warn(manifest.Warning{Path: in.path, Text: text}) })
	} else {
		all, err = manifest.Inside(ctx, in.version, in.entry, a.warn)
	}
	if err != nil {
		return nil, err
	}
	var within []manifest.Entry
	for _, e := range all {
		if path == "" || e.Path == path || strings.HasPrefix(e.Path, path+"/") || strings.HasPrefix(e.Path, path+manifest.InsideMark) {
			e.Path = in.path + manifest.InsideMark + e.Path
			within = append(within, e)
		}
	}
	return within, nil
}

// openInside opens a file in a container file or disk image.
func (a *app) openInside(ctx context.Context, arg, file, path string) (io.ReadCloser, error) {
	in, err := a.openInner(ctx, arg, file)
	if err != nil {
		return nil, err
	}
	var r io.Reader
	if in.image != nil {
		r, err = manifest.OpenInImage(ctx, in.image.Image, path)
	} else {
		var c tree.Content
		if c, err = manifest.OpenInside(ctx, in.version, in.entry, path); err == nil {
			r = io.NewSectionReader(c, 0, c.Size())
			closeVersion := in.version.close
			in.version.close = func() { c.Close(); closeVersion() }
		}
	}
	if err != nil {
		in.close()
		return nil, fmt.Errorf("%s: %w", arg, err)
	}
	return &closeBoth{io.NopCloser(r), closeFunc(in.close)}, nil
}
