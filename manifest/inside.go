package manifest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"ferry/cas"
	"ferry/chunking/disk"
	"ferry/manifest/tree"
)

// Opener gives the content of a version's files. [*Archive] and [*Scan] are openers.
type Opener interface {
	// Recipe returns how a file is cut, and of what streams a container file is.
	Recipe(ctx context.Context, e Entry) (*Recipe, error)
	// OpenAt opens a file for reading anywhere.
	OpenAt(ctx context.Context, e Entry) (tree.Content, error)
	// OpenStream opens stream i of a file's recipe, which stands at that location.
	OpenStream(ctx context.Context, e Entry, r *Recipe, i int, at Location) (tree.Content, error)
}

// InsideMark stands between the path of a container file or disk image and that of
// something in it.
const InsideMark = "!"

// OpenImage looks into a file's content. It returns nil if that is no disk image, and
// an error if it is one that cannot be read.
func OpenImage(c tree.Content) (*disk.Image, error) {
	head := make([]byte, min(disk.Head, c.Size()))
	if _, err := c.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if !disk.Recognise(head) {
		return nil, nil
	}
	m, err := disk.Open(c, c.Size())
	switch {
	case errors.Is(err, disk.ErrFormat):
		return nil, nil
	case err != nil && disk.Malformed(err):
		err = fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return m, err
}

// Inside returns what is in a container file or disk image, as entries sorted by path
// within it; nil if there is nothing to look into. Of a disk image these are the files,
// links and empty folders of each volume, behind its number and a slash; digests are
// stream identifiers, as in [Deep].
//
// Volumes that cannot be read are left out, and warn, if it is not nil, is told.
func Inside(ctx context.Context, o Opener, e Entry, warn func(Warning)) ([]Entry, error) {
	r, err := o.Recipe(ctx, e)
	if err != nil || !r.Container() {
		return nil, err
	}
	c, err := o.OpenAt(ctx, e)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	m, err := OpenImage(c)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.Path, err)
	}
	var entries []Entry
	if m == nil {
		for _, s := range r.Streams {
			if !s.Between() && !isMetadata(s.Name) {
				entries = append(entries, Entry{Path: s.Name, Type: TypeFile, Size: s.Size, Digest: s.ID()})
			}
		}
	} else {
		streams := map[string]int{}
		for i, s := range r.Streams {
			streams[s.Name] = i
		}
		known := func(path string, size int64) (d cas.Digest, ok bool) {
			i, ok := streams[path]
			if !ok || r.Streams[i].Size != size { // which has holes
				return d, false
			}
			return r.Streams[i].ID(), true
		}
		tell := func(text string) {
			if warn != nil {
				warn(Warning{Path: e.Path, Text: text})
			}
		}
		if entries, err = InsideImage(ctx, m, AllVolumes, known, tell); err != nil {
			return nil, fmt.Errorf("%s: %w", e.Path, err)
		}
	}
	slices.SortStableFunc(entries, func(a, b Entry) int { return cmp.Compare(a.Path, b.Path) })
	return slices.CompactFunc(entries, func(a, b Entry) bool { return a.Path == b.Path }), nil
}

// isMetadata reports whether a stream of a disk image is no file: see [disk.Stream].
func isMetadata(name string) bool {
	first, _, _ := strings.Cut(name[strings.LastIndex(name, InsideMark)+1:], "/")
	number, _, ok := strings.Cut(first, ":")
	if number == "" {
		return ok
	}
	_, err := strconv.Atoi(number)
	return ok && err == nil
}

// AllVolumes is the number of none, for [InsideImage].
const AllVolumes = -1

// InsideImage lists a volume of a disk image, or all. The digest of a file is the one
// that known has for it, or that of its bytes; with known nil, files have none. Of all
// volumes, those that cannot be read are left out, and told of, as is what may be older
// than it should.
func InsideImage(ctx context.Context, m *disk.Image, number int, known func(path string, size int64) (cas.Digest, bool), tell func(text string)) ([]Entry, error) {
	var entries []Entry
	for _, v := range m.Volumes {
		if v.Kind == "" || number != AllVolumes && v.Number != number {
			continue
		}
		if v.Ext4 != nil && v.Ext4.NeedsRecovery() {
			tell(fmt.Sprintf("volume %d has a journal to be replayed: what is shown may be older", v.Number))
		}
		files, err := v.Files(ctx)
		if err != nil && number == AllVolumes && disk.Malformed(err) {
			tell(fmt.Sprintf("volume %d is left out: %v", v.Number, err))
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("volume %d: %w", v.Number, err)
		}
		err = fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
			if err != nil || name == "." {
				return err
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			e, err := insideEntry(files, name, d, fmt.Sprintf("%d/%s", v.Number, name), known)
			if e.Type != "" && err == nil {
				entries = append(entries, e)
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("volume %d: %w", v.Number, err)
		}
	}
	return entries, nil
}

func insideEntry(files *disk.Files, name string, d fs.DirEntry, path string, known func(string, int64) (cas.Digest, bool)) (e Entry, err error) {
	fi, err := d.Info()
	if err != nil {
		return e, err
	}
	shown := strings.ToValidUTF8(path, "\uFFFD")
	switch mode := fi.Mode(); {
	case mode.IsDir():
		children, err := files.ReadDir(name)
		if err != nil || len(children) > 0 {
			return e, err
		}
		return Entry{Path: shown, Type: TypeDir}, nil
	case mode&fs.ModeSymlink != 0:
		link, err := files.ReadLink(name)
		return Entry{Path: shown, Type: TypeLink, Link: strings.ToValidUTF8(link, "\uFFFD")}, err
	case mode.IsRegular():
		e = Entry{Path: shown, Type: TypeFile, Exec: mode&0o111 != 0, Size: fi.Size(), ModTime: clampTime(fi.ModTime().Unix())}
		if known == nil {
			return e, nil
		}
		if digest, ok := known(shown, fi.Size()); ok {
			e.Digest = digest
			return e, nil
		}
		f, err := files.Open(name)
		if err != nil {
			return e, err
		}
		h := cas.NewHasher()
		_, err = io.Copy(h, f)
		e.Digest = h.Digest()
		return e, err
	}
	return e, nil
}

// OpenInside opens what stands at path in a container file or disk image. Close it.
func OpenInside(ctx context.Context, o Opener, e Entry, path string) (tree.Content, error) {
	missing := &cas.NotFoundError{What: "path", Name: e.Path + InsideMark + path}
	c, err := o.OpenAt(ctx, e)
	if err != nil {
		return nil, err
	}
	m, err := OpenImage(c)
	if err == nil && m != nil {
		f, err := OpenInImage(ctx, m, path)
		if err != nil {
			c.Close()
			return nil, fmt.Errorf("%s: %w", e.Path, err)
		}
		return &innerContent{f, c}, nil
	}
	c.Close()
	if err != nil {
		return nil, err
	}
	r, err := o.Recipe(ctx, e)
	if err != nil {
		return nil, err
	}
	for i, s := range r.Streams {
		if s.Name == path && !s.Between() {
			return o.OpenStream(ctx, e, r, i, r.Locations()[i])
		}
	}
	return nil, missing
}

// innerContent is a file of a disk image.
type innerContent struct {
	*io.SectionReader
	image io.Closer
}

func (c *innerContent) Close() error { return c.image.Close() }

// OpenInImage opens a file of a disk image, at the number of a volume and a path in
// that; links are followed.
func OpenInImage(ctx context.Context, m *disk.Image, path string) (*io.SectionReader, error) {
	missing := &cas.NotFoundError{What: "path in the image", Name: path}
	number, rest, _ := strings.Cut(path, "/")
	n, err := strconv.Atoi(number)
	if err != nil {
		return nil, missing
	}
	v, ok := m.Volume(n)
	if !ok {
		return nil, missing
	}
	files, err := v.Files(ctx)
	if err != nil {
		return nil, err
	}
	f, err := files.Open(rest)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) {
		return nil, missing
	}
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	at, ok := f.(io.ReaderAt)
	if err != nil || !ok {
		return nil, fmt.Errorf("%s: is a folder", path)
	}
	return io.NewSectionReader(at, 0, fi.Size()), nil
}
