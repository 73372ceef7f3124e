package manifest

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"ferry/cas"
	"ferry/manifest/tree"
)

// ErrInvalid says that bytes from outside are malformed, over a limit, or of an
// unknown version.
var ErrInvalid = errors.New("malformed data")

// Type says what an entry is.
type Type string

// The types of entries. A directory has an entry only when it is empty: others
// follow from the paths in them.
const (
	TypeFile Type = "file"
	TypeDir  Type = "dir"
	TypeLink Type = "link"
)

// Entry describes one path of a version.
type Entry struct {
	// Path is canonical in the sense of tree.CheckPath.
	Path string
	Type Type
	// Exec says that a file may be executed. It is all that is kept of modes, as
	// it is all that every archive format and most systems agree on.
	Exec bool
	// ModTime is when a file was last changed, in seconds since 1970, UTC.
	ModTime int64
	// Size is a file's length in bytes.
	Size int64
	// Digest is that of a file's bytes.
	Digest cas.Digest
	// Link is a symbolic link's target, as written.
	Link string
}

// Manifest lists the entries of one version, sorted by path.
type Manifest struct {
	Entries []Entry
}

// New returns the manifest of entries, which it sorts. It returns an error
// matching [ErrInvalid] that names the path when two entries cannot stand in
// one tree, and [*tree.UnsafePathError] when a path cannot stand in any.
func New(entries []Entry) (*Manifest, error) {
	slices.SortFunc(entries, func(a, b Entry) int { return cmp.Compare(a.Path, b.Path) })
	m := &Manifest{Entries: entries}
	if err := m.validate(); err != nil {
		return nil, err
	}
	return m, nil
}

// maxLink bounds a symbolic link's target in bytes.
const maxLink = 16 << 10

func (m *Manifest) validate() error {
	for i, e := range m.Entries {
		if err := e.validate(); err != nil {
			return err
		}
		if i > 0 && m.Entries[i-1].Path >= e.Path {
			return fmt.Errorf("%w: %q stands twice, or out of order", ErrInvalid, e.Path)
		}
	}
	before := "" // a folder that was looked for, with those it stands in
	for _, e := range m.Entries {
		top := parent(e.Path)
		for dir := top; dir != "" && dir != before && !strings.HasPrefix(before, dir+"/"); dir = parent(dir) {
			if other, ok := m.Find(dir); ok {
				return fmt.Errorf("%w: %q is a %s, yet %q stands in it", ErrInvalid, dir, other.Type, e.Path)
			}
		}
		before = top
	}
	return nil
}

// Stateless returns an error if a manifest has something where Ferry keeps its own
// state, which no tree has.
func (m *Manifest) Stateless() error {
	if within := m.Within(tree.StateDir); len(within) > 0 {
		return fmt.Errorf("%w: %q is where Ferry keeps its own state", ErrInvalid, within[0].Path)
	}
	return nil
}

func (e Entry) validate() error {
	if err := tree.CheckPath(e.Path); err != nil {
		return err
	}
	bad := func(what string) error { return fmt.Errorf("%w: entry %q: %s", ErrInvalid, e.Path, what) }
	switch e.Type {
	case TypeFile:
		if e.Size < 0 || e.Digest.IsZero() || e.Link != "" {
			return bad("a file needs a size and a digest")
		}
		if (e.Size == 0) != (e.Digest == emptyDigest) {
			return bad("size and digest disagree on whether it is empty")
		}
		if e.ModTime != clampTime(e.ModTime) {
			return bad("its time is outside the years 1 to 9999")
		}
		return nil
	case TypeLink:
		if e.Link == "" || len(e.Link) > maxLink || strings.ContainsRune(e.Link, 0) || !validLink(e.Link) {
			return bad("a link needs a target")
		}
	case TypeDir:
		if e.Link != "" {
			return bad("a directory has no target")
		}
	default:
		return bad(fmt.Sprintf("unknown type %q", e.Type))
	}
	if e.Size != 0 || e.Exec || e.ModTime != 0 || !e.Digest.IsZero() {
		return bad("only files have size, mode, time and digest")
	}
	return nil
}

var emptyDigest = cas.Sum(nil)

// parent returns the folder of a path, "" at the top.
func parent(path string) string {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return ""
	}
	return path[:i]
}

// Find returns the entry at path.
func (m *Manifest) Find(path string) (Entry, bool) {
	i, ok := m.Index(path)
	if !ok {
		return Entry{}, false
	}
	return m.Entries[i], true
}

// Index is like Find, and returns where in Entries it stands.
func (m *Manifest) Index(path string) (i int, ok bool) {
	return slices.BinarySearchFunc(m.Entries, path, func(e Entry, path string) int { return cmp.Compare(e.Path, path) })
}

// Within returns the entries at path and under it; all of them for "".
func (m *Manifest) Within(path string) []Entry {
	if path == "" {
		return m.Entries
	}
	var within []Entry
	for _, e := range m.Entries {
		if e.Path == path || strings.HasPrefix(e.Path, path+"/") {
			within = append(within, e)
		}
	}
	return within
}

// Size returns the sum of the files' sizes in bytes, at most 2^62.
func (m *Manifest) Size() int64 {
	sum := int64(0)
	for _, e := range m.Entries {
		if sum += e.Size; sum < 0 || sum > 1<<62 {
			return 1 << 62
		}
	}
	return sum
}

// Files returns the number of files.
func (m *Manifest) Files() int {
	n := 0
	for _, e := range m.Entries {
		if e.Type == TypeFile {
			n++
		}
	}
	return n
}

// ID returns the manifest's identity: the digest of its canonical bytes.
func (m *Manifest) ID() cas.Digest { return cas.Sum(m.Encode()) }
