package manifest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"ferry/cas"
	"ferry/cas/backend"
	"ferry/chunking"
)

// Archive is a store together with its catalogue of named versions.
// It is safe for concurrent use.
type Archive struct {
	store  *cas.Store
	params chunking.Params
}

// CreateArchive makes a store in b that cuts files under p. It returns an error
// matching backend.ErrExist when there is a store already.
func CreateArchive(ctx context.Context, b backend.Backend, p chunking.Params) error {
	if err := p.Validate(); err != nil {
		return err
	}
	policy, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return cas.Create(ctx, b, policy)
}

// OpenArchive opens the store in b. Errors are those of cas.Open, and
// [chunking.ErrParams] for a policy that this program does not know.
func OpenArchive(ctx context.Context, b backend.Backend) (*Archive, error) {
	store, err := cas.Open(ctx, b)
	if err != nil {
		return nil, err
	}
	a := &Archive{store: store}
	err = json.Unmarshal(store.Policy(), &a.params)
	if err == nil {
		err = a.params.Validate()
	}
	if err != nil {
		store.Close()
		return nil, fmt.Errorf("store %s: policy: %w", b.URL(), err)
	}
	return a, nil
}

// Close ends the session with the store.
func (a *Archive) Close() error { return a.store.Close() }

// Store returns the store of chunks beneath.
func (a *Archive) Store() *cas.Store { return a.store }

// Params returns how the archive cuts files.
func (a *Archive) Params() chunking.Params { return a.params }

// Manifest returns the manifest of that id, verified.
func (a *Archive) Manifest(ctx context.Context, id cas.Digest) (*Manifest, error) {
	r, err := a.recipe(ctx, id, unknownSize)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", id.Short(), err)
	}
	data, err := a.bytes(ctx, r, maxManifest)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", id.Short(), err)
	}
	return Decode(data)
}

// unknownSize asks for a recipe whatever the size of its file.
const unknownSize = -1

// recipe returns how the store holds the file of that digest and size. The
// error matches cas.ErrNotFound when it does not.
func (a *Archive) recipe(ctx context.Context, digest cas.Digest, size int64) (*Recipe, error) {
	r, _, err := a.recipeIn(ctx, digest, size)
	return r, err
}

// recipeIn is recipe, and returns the chunks that hold a large recipe itself.
func (a *Archive) recipeIn(ctx context.Context, digest cas.Digest, size int64) (*Recipe, []cas.Digest, error) {
	if digest == emptyDigest {
		return &Recipe{Digest: digest}, nil, nil
	}
	n, ok, err := a.store.Find(digest)
	if err != nil {
		return nil, nil, err
	}
	if ok { // the file is one chunk
		if size != unknownSize && n != size {
			return nil, nil, fmt.Errorf("file %s: %w: holds %d bytes, want %d", digest.Short(), cas.ErrCorrupt, n, size)
		}
		return plainRecipe(digest, n, []Run{{digest, n}}), nil, nil
	}
	body, err := a.store.Record(ctx, digest)
	if err != nil {
		return nil, nil, err
	}
	r, chunks, err := a.unpackRecipe(ctx, body)
	if err != nil {
		return nil, nil, fmt.Errorf("recipe of file %s: %w", digest.Short(), err)
	}
	if r.Digest != digest || size != unknownSize && r.Size != size {
		return nil, nil, fmt.Errorf("recipe of file %s: %w: it is of file %s, %d bytes", digest.Short(), cas.ErrCorrupt, r.Digest.Short(), r.Size)
	}
	return r, chunks, nil
}

// Recipes are kept in records: small ones as they are, large ones as a list of
// the chunks that hold their bytes.
const (
	recipeInline   = 0
	recipeChunked  = 1
	inlineRecipe   = 64 << 10 // bytes up to which a recipe is kept inline
	recipeListSize = 1 << 18  // most chunks that a list may name
)

// unpackRecipe returns the recipe of a record, and the chunks that hold it.
func (a *Archive) unpackRecipe(ctx context.Context, body []byte) (*Recipe, []cas.Digest, error) {
	d := fieldReader{b: body, what: "recipe record"}
	switch form := d.byte(); form {
	case recipeInline:
		r, err := DecodeRecipe(d.b)
		return r, nil, err
	case recipeChunked:
		s := d.runs()
		if d.err == nil && (s.Size > maxRecipe || len(s.Runs) > recipeListSize || len(d.b) > 0) {
			d.fail("too large")
		}
		if d.err != nil {
			return nil, nil, d.err
		}
		data := make([]byte, 0, s.Size)
		var chunks []cas.Digest
		for _, run := range s.Runs {
			if run.Zero() {
				data = append(data, make([]byte, run.Size)...)
				continue
			}
			chunk, err := a.store.Get(ctx, run.Key)
			if err != nil {
				return nil, nil, err
			}
			data = append(data, chunk...)
			chunks = append(chunks, run.Key)
		}
		r, err := DecodeRecipe(data)
		return r, chunks, err
	default:
		return nil, nil, fmt.Errorf("%w: recipe record: unknown form %d", ErrInvalid, form)
	}
}

// bytes returns a whole file of at most limit bytes.
func (a *Archive) bytes(ctx context.Context, r *Recipe, limit int64) ([]byte, error) {
	if r.Size > limit {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrInvalid, r.Size, limit)
	}
	w := &sliceWriter{b: make([]byte, 0, r.Size)}
	err := a.write(ctx, w, r)
	return w.b, err
}

type sliceWriter struct{ b []byte }

func (w *sliceWriter) Write(p []byte) (int, error) {
	w.b = append(w.b, p...)
	return len(p), nil
}

var _ io.Writer = (*sliceWriter)(nil)
