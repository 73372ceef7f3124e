package manifest

import (
	"context"
	"errors"
	"fmt"
	"io"

	"ferry/cas"
	"ferry/chunking"
	"ferry/manifest/tree"
)

// Scan is a tree that was read and cut like one in an archive, with no store.
// Its contents are read from the tree, which must stay open and unchanged.
type Scan struct {
	Manifest *Manifest
	Stats    AddStats
	tree     tree.Tree
	recipes  map[cas.Digest]*Recipe
	members  *tree.Cache
}

// nowhere is a sink that keeps nothing.
type nowhere struct{}

func (nowhere) Has(cas.Digest) (bool, error)         { return false, nil }
func (nowhere) HasRecord(cas.Digest) (bool, error)   { return false, nil }
func (nowhere) Put(cas.Digest, []byte) (bool, error) { return true, nil }
func (nowhere) PutRecord(cas.Digest, []byte) error   { return nil }

// ScanTree reads all of t and returns what it holds, cut under p. Memory is
// about 50 bytes for each chunk.
func ScanTree(ctx context.Context, t tree.Tree, p chunking.Params, opts AddOptions) (*Scan, error) {
	in := &ingest{params: p, sink: nowhere{}, opts: opts, byPath: map[string]int{}, scanned: map[cas.Digest]*Recipe{}}
	if err := in.run(ctx, t); err != nil {
		return nil, err
	}
	m, err := in.manifest()
	if err != nil {
		return nil, err
	}
	s := &Scan{Manifest: m, Stats: in.stats, tree: t, recipes: in.scanned}
	s.members = NewMembers(ctx, t.OpenAt)
	return s, nil
}

// Close closes what was opened of members. The tree stays open.
func (s *Scan) Close() { s.members.Close() }

// Recipe is like [Archive.Recipe].
func (s *Scan) Recipe(_ context.Context, e Entry) (*Recipe, error) {
	if r := s.recipes[e.Digest]; r != nil {
		return r, nil
	}
	return plainRecipe(e.Digest, 0, nil), nil // only an empty file was not cut
}

// Chunks is like [Archive.Chunks].
func (s *Scan) Chunks(ctx context.Context, e Entry) ([]Chunk, error) {
	r, err := s.Recipe(ctx, e)
	return r.Chunks(), err
}

// OpenStream is like [Archive.OpenStream]; it needs to know where the stream stands.
func (s *Scan) OpenStream(_ context.Context, e Entry, _ *Recipe, _ int, at Location) (tree.Content, error) {
	return at.Open(s.members, e.Path), nil
}

// OpenAt is like [Archive.OpenAt].
func (s *Scan) OpenAt(ctx context.Context, e Entry) (tree.Content, error) {
	return s.tree.OpenAt(ctx, e.Path)
}

// Open is like [Archive.Open].
func (s *Scan) Open(ctx context.Context, e Entry) (io.ReadCloser, error) {
	return s.tree.Open(ctx, e.Path)
}

// WriteFile is like [Archive.WriteFile].
func (s *Scan) WriteFile(ctx context.Context, w io.Writer, e Entry) error {
	r, err := s.tree.Open(ctx, e.Path)
	if err != nil {
		return err
	}
	defer r.Close()
	h := cas.NewHasher()
	if _, err := io.Copy(io.MultiWriter(w, h), tree.UntilDone(ctx, r)); err != nil {
		return fmt.Errorf("%s: %w", e.Path, err)
	}
	if h.Digest() != e.Digest {
		return fmt.Errorf("%s: %w", e.Path, ErrChanged)
	}
	return nil
}

// ErrChanged says that a source was written to while it was read.
var ErrChanged = errors.New("changed while it was read; run it again when nothing writes to it")
