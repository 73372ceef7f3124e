package manifest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"ferry/cas"
	"ferry/chunking"
	"ferry/chunking/coded"
	"ferry/chunking/container"
	"ferry/manifest/tree"
)

// AddOptions say how to take a tree in.
type AddOptions struct {
	// Progress is told the bytes read; nil is allowed.
	Progress cas.Counter
	// Warn is told of what was left out or may cause trouble; nil is allowed.
	Warn func(Warning)
	// Members says to take container files apart into their members.
	Members bool
}

// Warning is something about one path that the user should know.
type Warning struct {
	Path string `json:"path"`
	Text string `json:"text"`
	// Skipped says that the path is not in the version.
	Skipped bool `json:"skipped"`
}

// AddStats says what was taken in.
type AddStats struct {
	Files      int       `json:"files"`
	Size       int64     `json:"size_bytes"`
	KnownFiles int       `json:"known_files"` // of a digest that the store had
	KnownSize  int64     `json:"known_bytes"`
	Skipped    int       `json:"skipped"` // left out, each with a Warning
	New        cas.Added `json:"new"`
}

// Add takes all of a tree into the store, and returns its manifest, which is
// stored too. The version has no name yet: see [Archive.Tag]. Errors of the
// source name the path; nothing counts unless the error is nil.
func (a *Archive) Add(ctx context.Context, t tree.Tree, opts AddOptions) (*Manifest, AddStats, error) {
	tx := a.store.Begin(ctx)
	defer tx.Abort()
	in := &ingest{params: a.params, archive: a, sink: tx, opts: opts, byPath: map[string]int{}}
	if err := in.run(ctx, t); err != nil {
		return nil, in.stats, err
	}
	m, err := in.manifest()
	if err != nil {
		return nil, in.stats, err
	}
	if err := in.putBytes(ctx, m.Encode()); err != nil {
		return nil, in.stats, err
	}
	in.stats.New, err = tx.Commit()
	return m, in.stats, err
}

// sink is where an ingest puts chunks: a transaction, or nowhere.
type sink interface {
	Has(key cas.Digest) (bool, error)
	HasRecord(name cas.Digest) (bool, error)
	Put(key cas.Digest, data []byte) (bool, error)
	PutRecord(name cas.Digest, body []byte) error
}

// ingest is one run of Add or of Scan. Its methods run on the goroutine that
// called it, which alone puts to the sink, so that the order of chunks depends
// on the source alone.
type ingest struct {
	params  chunking.Params
	archive *Archive // to look known files up; nil for a scan
	sink    sink
	opts    AddOptions
	scanned map[cas.Digest]*Recipe // for a scan; else nil
	stats   AddStats
	entries []Entry
	byPath  map[string]int // index into entries
	chunker *chunking.Chunker
}

func (in *ingest) warn(w Warning) {
	if w.Skipped {
		in.stats.Skipped++
	}
	if in.opts.Warn != nil {
		in.opts.Warn(w)
	}
}

func (in *ingest) run(ctx context.Context, t tree.Tree) error {
	var err error
	if in.chunker, err = chunking.New(nil, in.params); err != nil {
		return err
	}
	p := startReaders(ctx, in, t)
	defer p.stop()
	for it := range p.items {
		<-it.ready // soon, when ctx ends
		err := it.err
		if err == nil {
			err = in.take(ctx, it)
		}
		it.close() // always: the walk may wait for it
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", it.node.Path, err)
		}
	}
	return p.err()
}

// take stores what is new of an item and notes its entry.
func (in *ingest) take(ctx context.Context, it *item) error {
	n := it.node
	e := Entry{Path: n.Path}
	switch n.Kind {
	case tree.Dir:
		e.Type = TypeDir
	case tree.Link:
		if !validLink(n.Link) {
			return fmt.Errorf("%w: the link's target is not UTF-8", ErrInvalid)
		}
		e.Type, e.Link = TypeLink, n.Link
	case tree.Special:
		in.warn(Warning{Path: n.Path, Text: "a device, socket or pipe has no place in a package", Skipped: true})
		return nil
	case tree.HardLink:
		i, ok := in.byPath[n.Link]
		if !ok || in.entries[i].Type != TypeFile {
			return fmt.Errorf("%w: hard link to %q, which is no file before it", ErrInvalid, n.Link)
		}
		e = in.entries[i]
		e.Path = n.Path
	case tree.File:
		if err := in.takeFile(ctx, it); err != nil {
			return err
		}
		e.Type, e.Exec, e.ModTime = TypeFile, n.Exec, clampTime(n.ModTime)
		e.Size, e.Digest = it.size, it.digest
		if it.sniffedExec {
			e.Exec = true
		}
	}
	if i, ok := in.byPath[e.Path]; ok {
		if e.Type == TypeDir && in.entries[i].Type == TypeDir {
			return nil
		}
		return fmt.Errorf("%w: stands twice in the source", ErrInvalid)
	}
	in.byPath[e.Path] = len(in.entries)
	in.entries = append(in.entries, e)
	return nil
}

func (in *ingest) takeFile(ctx context.Context, it *item) error {
	switch {
	case it.known:
		in.stats.KnownFiles++
	case it.layout != nil:
		if err := in.takeApart(ctx, it); err != nil {
			return err
		}
	case it.stream != nil:
		if err := in.takeStream(ctx, it); err != nil {
			return err
		}
	default:
		for _, c := range it.cuts {
			if !c.Zero() {
				if _, err := in.sink.Put(c.Key, it.data[c.off:c.off+c.Size]); err != nil {
					return err
				}
			}
		}
		if err := in.putRecipe(ctx, plainRecipe(it.digest, it.size, it.runs())); err != nil {
			return err
		}
	}
	in.stats.Files++
	in.stats.Size += it.size
	if it.known {
		in.stats.KnownSize += it.size
	}
	return nil
}

// takeStream cuts and stores a large file while it is read.
func (in *ingest) takeStream(ctx context.Context, it *item) error {
	h := cas.NewHasher()
	runs, err := in.putStream(io.TeeReader(tree.UntilDone(ctx, it.stream), h), in.progress)
	if err != nil {
		return err
	}
	digest := h.Digest()
	if !it.digest.IsZero() && it.digest != digest {
		return ErrChanged
	}
	it.digest, it.size = digest, 0
	for _, run := range runs {
		it.size += run.Size
	}
	return in.putRecipe(ctx, plainRecipe(digest, it.size, runs))
}

// takeApart stores a container file, each of its streams cut on its own.
func (in *ingest) takeApart(ctx context.Context, it *item) error {
	h := cas.NewHasher()
	source := &countingReader{r: io.TeeReader(tree.UntilDone(ctx, it.stream), h), told: in.progress}
	if it.size > 0 {
		source.told = nil // it was read before
	}
	recipe := &Recipe{Digest: it.digest, Layout: layoutOps(it.layout.Parts)}
	for _, s := range it.layout.Streams {
		recipe.Streams = append(recipe.Streams, Stream{Name: s.Name, Size: s.Size})
	}
	put := func(i int, r io.Reader) (err error) {
		recipe.Streams[i].Runs, err = in.putStream(r, nil)
		return err
	}
	if it.guarded != nil {
		return in.takeScattered(ctx, it, recipe, put)
	}
	err := it.layout.Read(source, put)
	if coded.Damaged(err) && ctx.Err() == nil {
		return ErrChanged
	}
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, source); err != nil {
		return err
	}
	if h.Digest() != it.digest {
		return ErrChanged
	}
	it.size = source.n
	recipe.Size = source.n
	return in.putRecipe(ctx, recipe)
}

// takeScattered stores a container file that is read here and there, such as a disk
// image.
func (in *ingest) takeScattered(ctx context.Context, it *item, recipe *Recipe, put func(int, io.Reader) error) error {
	each := func(i int, r io.Reader) error { return put(i, tree.UntilDone(ctx, r)) }
	if err := it.layout.ReadAt(it.guarded, each); err != nil {
		return err
	}
	if it.size == 0 { // it is counted as it is stored
		in.progress(it.guarded.size)
	}
	it.size = it.guarded.size
	recipe.Size = it.size
	return in.putRecipe(ctx, recipe)
}

// layoutOps returns the instructions for the parts of a container.
func layoutOps(parts []container.Part) []Op {
	ops := make([]Op, len(parts))
	for i, p := range parts {
		switch {
		case p.Deflated():
			ops[i] = Op{Kind: OpDeflate, Size: p.Size, Reconstruction: p.Reconstruction, Inner: layoutOps(p.Inner)}
		case p.Zero:
			ops[i] = Op{Kind: OpZero, Size: p.Size}
		default:
			ops[i] = Op{Kind: OpSlice, Stream: p.Stream, Off: p.Off, Size: p.Size}
		}
	}
	return ops
}

func (in *ingest) progress(n int64) {
	if in.opts.Progress != nil {
		in.opts.Progress.Add(n)
	}
}

// countingReader counts what is read.
type countingReader struct {
	r    io.Reader
	n    int64
	told func(int64)
}

func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.n += int64(n)
	if r.told != nil {
		r.told(int64(n))
	}
	return n, err
}

// putRecipe stores how a file is made of chunks, unless that follows from its digest.
func (in *ingest) putRecipe(ctx context.Context, r *Recipe) error {
	if in.scanned != nil {
		r.index()
		in.scanned[r.Digest] = r
		return nil
	}
	if r.isChunk() {
		return nil
	}
	coded := r.Encode()
	if in.archive != nil {
		// A record is not replaced: it must be the same, or chunks that only it
		// names would be missing still.
		have, err := in.archive.recipe(ctx, r.Digest, r.Size)
		if err == nil && !bytes.Equal(have.Encode(), coded) {
			return fmt.Errorf("%w: the store has it in another form, of which something is lost: add it to a new store", cas.ErrCorrupt)
		}
	}
	if len(coded) <= inlineRecipe {
		return in.sink.PutRecord(r.Digest, append([]byte{recipeInline}, coded...))
	}
	if len(coded) > maxRecipe {
		return fmt.Errorf("%d bytes of recipe: none may be larger than %d", len(coded), maxRecipe)
	}
	list, err := in.putStream(bytes.NewReader(coded), nil)
	if err != nil {
		return err
	}
	return in.sink.PutRecord(r.Digest, appendRuns([]byte{recipeChunked}, list))
}

// putStream cuts and stores bytes, and returns their runs. It tells told, if that
// is not nil, of each.
func (in *ingest) putStream(r io.Reader, told func(int64)) ([]Run, error) {
	var runs []Run
	in.chunker.Reset(r)
	for {
		c, err := in.chunker.Next()
		if errors.Is(err, io.EOF) {
			return runs, nil
		}
		if err != nil {
			return nil, err
		}
		run := Run{Size: c.Size}
		if !c.Zero() {
			run.Key = cas.Sum(c.Data)
			if _, err := in.sink.Put(run.Key, c.Data); err != nil {
				return nil, err
			}
		}
		runs = append(runs, run)
		if told != nil {
			told(c.Size)
		}
	}
}

// putBytes stores bytes as a file.
func (in *ingest) putBytes(ctx context.Context, data []byte) error {
	runs, err := in.putStream(bytes.NewReader(data), nil)
	if err != nil {
		return err
	}
	return in.putRecipe(ctx, plainRecipe(cas.Sum(data), int64(len(data)), runs))
}

// manifest makes the manifest of all entries: directories only where they are empty.
func (in *ingest) manifest() (*Manifest, error) {
	full := map[string]bool{}
	for _, e := range in.entries {
		for dir := parent(e.Path); dir != "" && !full[dir]; dir = parent(dir) {
			full[dir] = true
		}
	}
	var entries []Entry
	for _, e := range in.entries {
		if e.Type != TypeDir || !full[e.Path] {
			entries = append(entries, e)
		}
	}
	m, err := New(entries)
	if err != nil {
		return nil, err
	}
	for _, w := range Portability(m) {
		in.warn(w)
	}
	return m, nil
}
