package manifest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"ferry/cas"
	"ferry/cas/backend"
	"ferry/manifest/tree"
)

// Ref names a version of a package, written NAME@VERSION.
type Ref struct {
	Name    string
	Version string
}

func (r Ref) String() string { return r.Name + "@" + r.Version }

var refPart = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,99}$`)

// ErrRef says that a text is not a reference.
var ErrRef = errors.New("not a reference of the form NAME@VERSION")

// ParseRef parses NAME@VERSION. Both parts start with a letter or digit and go on
// with those and "._+-", up to 100 characters. The error matches [ErrRef].
func ParseRef(s string) (Ref, error) {
	name, version, ok := strings.Cut(s, "@")
	if !ok {
		return Ref{}, fmt.Errorf("%q: %w", s, ErrRef)
	}
	for _, part := range []string{name, version} {
		if !refPart.MatchString(part) || tree.CheckWindows(part) != nil {
			return Ref{}, fmt.Errorf("%q: %w: %q may hold only letters, digits and ._+-, must start with a letter or digit, and not be a device name", s, ErrRef, part)
		}
	}
	return Ref{name, version}, nil
}

const catalogueDir = "catalogue/"

// catalogueFormat is the version of catalogue records.
const catalogueFormat = "ferry.catalogue/1"

// Version is what the catalogue says of a version.
type Version struct {
	Ref      Ref        `json:"-"`
	Format   string     `json:"format"`
	Manifest cas.Digest `json:"manifest"`
	Added    time.Time  `json:"added"`
	Files    int        `json:"files"`
	Size     int64      `json:"size_bytes"`
	Source   string     `json:"source"`
	Removed  bool       `json:"removed,omitempty"`

	generation int
}

// escape writes a name in lower case, so that names that differ in case stay
// apart where the file system does not tell: "K2s" becomes "!k2s".
func escape(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if 'A' <= c && c <= 'Z' {
			b.WriteByte('!')
			c |= 0x20
		}
		b.WriteByte(c)
	}
	return b.String()
}

func unescape(s string) string {
	var b strings.Builder
	upper := false
	for _, c := range []byte(s) {
		switch {
		case c == '!':
			upper = true
			continue
		case upper:
			c &^= 0x20
		}
		upper = false
		b.WriteByte(c)
	}
	return b.String()
}

func (r Ref) dir() string { return catalogueDir + escape(r.Name) + "/" + escape(r.Version) + "/" }

// generations returns the newest generation of each version under prefix.
func (a *Archive) generations(ctx context.Context, prefix string) (map[Ref]int, error) {
	newest := map[Ref]int{}
	err := a.store.Backend().List(ctx, prefix, func(info backend.Info) error {
		parts := strings.Split(strings.TrimPrefix(info.Name, catalogueDir), "/")
		if len(parts) != 3 {
			return nil
		}
		n, err := strconv.Atoi(parts[2])
		if err != nil || n < 1 || parts[2] != fmt.Sprintf("%06d", n) {
			return nil // not ours
		}
		ref := Ref{unescape(parts[0]), unescape(parts[1])}
		newest[ref] = max(newest[ref], n)
		return nil
	})
	return newest, err
}

func (a *Archive) readVersion(ctx context.Context, ref Ref, generation int) (Version, error) {
	v := Version{}
	name := fmt.Sprintf("%s%06d", ref.dir(), generation)
	r, err := a.store.Backend().Open(ctx, name)
	if err != nil {
		return v, err
	}
	defer r.Close()
	if err := json.NewDecoder(r).Decode(&v); err != nil {
		return v, &cas.CorruptError{Object: name, Off: -1, Reason: err.Error()}
	}
	if v.Format != catalogueFormat {
		return v, fmt.Errorf("%w: %s has %q, this program reads %q", cas.ErrVersion, name, v.Format, catalogueFormat)
	}
	v.Ref, v.generation = ref, generation
	return v, nil
}

// Versions lists the versions in the catalogue: by name, then by the time they
// were added.
func (a *Archive) Versions(ctx context.Context) ([]Version, error) {
	newest, err := a.generations(ctx, catalogueDir)
	if err != nil {
		return nil, err
	}
	var versions []Version
	for ref, n := range newest {
		v, err := a.readVersion(ctx, ref, n)
		if err != nil {
			return nil, err
		}
		if !v.Removed {
			versions = append(versions, v)
		}
	}
	slices.SortFunc(versions, func(a, b Version) int {
		return cmp.Or(cmp.Compare(a.Ref.Name, b.Ref.Name), a.Added.Compare(b.Added), cmp.Compare(a.Ref.Version, b.Ref.Version))
	})
	return versions, nil
}

// Version looks a reference up. The error matches cas.ErrNotFound when there is
// no such version.
func (a *Archive) Version(ctx context.Context, ref Ref) (Version, error) {
	newest, err := a.generations(ctx, ref.dir())
	if err != nil {
		return Version{}, err
	}
	n := newest[ref]
	if n == 0 {
		return Version{}, &cas.NotFoundError{What: "version", Name: ref.String()}
	}
	v, err := a.readVersion(ctx, ref, n)
	if err == nil && v.Removed {
		v, err = Version{generation: n}, &cas.NotFoundError{What: "version", Name: ref.String()}
	}
	return v, err
}

// ErrTaken says that a name and version already stand for another tree.
var ErrTaken = errors.New("the version exists with other content")

// Tag gives a manifest a name and version. Tagging the same manifest again does
// nothing; another manifest is [ErrTaken] unless replace is set. Of several
// processes that tag at once, each sees the others' tags.
func (a *Archive) Tag(ctx context.Context, ref Ref, m *Manifest, source string, now time.Time, replace bool) (Version, error) {
	for {
		old, err := a.Version(ctx, ref)
		switch {
		case err == nil && old.Manifest == m.ID():
			return old, nil
		case err == nil && !replace:
			return old, fmt.Errorf("%s: %w", ref, ErrTaken)
		case err != nil && !errors.Is(err, cas.ErrNotFound):
			return old, err
		}
		v := Version{
			Ref: ref, Format: catalogueFormat, Manifest: m.ID(), Added: now.UTC().Truncate(time.Second),
			Files: m.Files(), Size: m.Size(), Source: source, generation: old.generation + 1,
		}
		err = a.putVersion(ctx, v)
		if !errors.Is(err, backend.ErrExist) {
			return v, err
		}
	}
}

func (a *Archive) putVersion(ctx context.Context, v Version) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	data = append(data, '\n')
	return a.store.Backend().Put(ctx, fmt.Sprintf("%s%06d", v.Ref.dir(), v.generation), bytes.NewReader(data), int64(len(data)))
}

// Remove takes a version out of the catalogue. Its chunks stay until a prune.
// The error matches cas.ErrNotFound when there is no such version.
func (a *Archive) Remove(ctx context.Context, ref Ref, now time.Time) error {
	for {
		v, err := a.Version(ctx, ref)
		if err != nil {
			return err
		}
		v.Removed, v.Added = true, now.UTC().Truncate(time.Second)
		v.generation++
		err = a.putVersion(ctx, v)
		if !errors.Is(err, backend.ErrExist) {
			return err
		}
	}
}

// Live names everything that the catalogue's versions need, for a prune or a check.
func (a *Archive) Live(ctx context.Context, chunk, record func(cas.Digest) error) error {
	versions, err := a.Versions(ctx)
	if err != nil {
		return err
	}
	seen := map[cas.Digest]bool{}
	for _, v := range versions {
		if seen[v.Manifest] {
			continue
		}
		m, err := a.Manifest(ctx, v.Manifest)
		if err != nil {
			return fmt.Errorf("%s: %w", v.Ref, err)
		}
		files := append([]Entry{{Path: "manifest", Type: TypeFile, Digest: v.Manifest, Size: unknownSize}}, m.Entries...)
		for _, e := range files {
			if e.Type != TypeFile || seen[e.Digest] {
				continue
			}
			seen[e.Digest] = true
			if err := a.liveFile(ctx, e, chunk, record); err != nil {
				return fmt.Errorf("%s: %s: %w", v.Ref, e.Path, err)
			}
		}
	}
	return nil
}

func (a *Archive) liveFile(ctx context.Context, e Entry, chunk, record func(cas.Digest) error) error {
	r, parts, err := a.recipeIn(ctx, e.Digest, e.Size)
	if err != nil {
		return err
	}
	for key := range r.keys() {
		if err := chunk(key); err != nil {
			return err
		}
	}
	if r.isChunk() {
		return nil
	}
	if err := record(e.Digest); err != nil {
		return err
	}
	for _, key := range parts {
		if err := chunk(key); err != nil {
			return err
		}
	}
	return nil
}
