package cas

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"runtime"
	"slices"
	"strings"
	"sync"

	"ferry/cas/backend"
	"ferry/cas/index"
	"ferry/cas/pack"
)

// Problem is a finding of a check.
type Problem struct {
	// Kind is one of the Problem constants.
	Kind string `json:"kind"`
	// Object names the object of the store that it concerns.
	Object string `json:"object"`
	// Detail says what is wrong, and what to do.
	Detail string `json:"detail"`
	// Key is the chunk that cannot be read, if it is known.
	Key *Digest `json:"chunk,omitempty"`
	// Hint says that nothing is lost.
	Hint bool `json:"hint,omitempty"`
}

// Kinds of problems.
const (
	ProblemMissingPack   = "missing-pack"   // an index speaks of a pack that is not there
	ProblemDamagedPack   = "damaged-pack"   // a pack's bytes are not those of its name
	ProblemDamagedChunk  = "damaged-chunk"  // a chunk of a damaged pack cannot be read
	ProblemDamagedIndex  = "damaged-index"  // an index file's bytes are not those of its name
	ProblemNotIndexed    = "not-indexed"    // a pack holds blobs that no index knows
	ProblemWrongIndex    = "wrong-index"    // an index places a blob where the pack has none
	ProblemLostBase      = "lost-base"      // chunks are derived from what is not there
	ProblemForeignObject = "foreign-object" // a file that does not belong in the store
)

// CheckReport counts what a check has seen.
type CheckReport struct {
	Packs       int   `json:"packs"`
	Blobs       int64 `json:"blobs"`
	StoredBytes int64 `json:"stored_bytes"`
	ReadBytes   int64 `json:"read_bytes"` // bytes of packs read and hashed
	Problems    int   `json:"problems"`   // hints not counted
	Hints       int   `json:"hints"`
}

// Check compares packs, their directories and the indexes with each other, and
// with readData also hashes every byte of every pack. Findings go to report, one
// at a time. The error is of the check itself, not of what it found.
func (s *Store) Check(ctx context.Context, readData bool, progress Counter, report func(Problem)) (CheckReport, error) {
	c := &checker{s: s, progress: progress, readData: readData, emit: report}
	packs, err := c.checkIndexes(ctx)
	if err != nil {
		return c.sum, err
	}
	// The largest first, so that all cores end at about the same time.
	slices.SortStableFunc(packs, func(a, b backend.Info) int { return cmp.Compare(b.Size, a.Size) })
	err = parallel(ctx, packs, func(info backend.Info) error { return c.checkPack(ctx, info) })
	return c.sum, err
}

type checker struct {
	s        *Store
	progress Counter
	readData bool

	mu      sync.Mutex
	emit    func(Problem)
	sum     CheckReport
	derived sync.Map              // derivations looked at, by key
	indexed map[[32]byte]*packSum // over all tables, equal entries once
}

// packSum stands for the set of entries of a pack: their number, and a sum that
// does not depend on their order. Comparing sums costs far less than looking
// each entry up, which is done only where they differ.
type packSum struct{ n, sum uint64 }

func (p *packSum) add(e index.Entry) {
	// The key is a hash: mixing its front with the place (Fibonacci hashing, Knuth
	// vol. 3, 6.4) keeps different entries apart.
	const phi = 0x9e3779b97f4a7c15
	mix := binary.LittleEndian.Uint64(e.Key[:])
	for _, v := range []uint64{uint64(e.Frame), uint64(e.Stored), uint64(e.Off), uint64(e.Size), uint64(e.Codec), uint64(e.Kind)} {
		mix = (mix ^ v) * phi
		mix ^= mix >> 29
	}
	p.n++
	p.sum += mix
}

func (c *checker) report(p Problem) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.Hint {
		c.sum.Hints++
	} else {
		c.sum.Problems++
	}
	c.emit(p)
}

// checkIndexes verifies the index files and returns the packs that exist.
func (c *checker) checkIndexes(ctx context.Context) ([]backend.Info, error) {
	indexes, err := listAll(ctx, c.s.b, indexDir)
	if err != nil {
		return nil, err
	}
	for _, info := range indexes {
		if err := c.checkIndexFile(ctx, info); err != nil {
			return nil, err
		}
	}
	c.indexed = map[[32]byte]*packSum{}
	err = c.s.eachEntry(func(e index.Entry) error {
		sum := c.indexed[e.Pack]
		if sum == nil {
			sum = &packSum{}
			c.indexed[e.Pack] = sum
		}
		sum.add(e)
		return nil
	})
	if errors.Is(err, index.ErrInvalid) {
		c.indexed = nil // its file is reported above; there is nothing to compare
	} else if err != nil {
		return nil, err
	}
	packs, err := listAll(ctx, c.s.b, packDir)
	if err != nil {
		return nil, err
	}
	exists := map[string]bool{}
	for _, info := range packs {
		exists[info.Name] = true
	}
	for id := range c.indexed {
		// Of a doomed one, a prune may have deleted it since we began.
		if name := packName(id); !exists[name] && !c.s.isDoomed(id) {
			c.report(Problem{Kind: ProblemMissingPack, Object: name,
				Detail: fmt.Sprintf("%d indexed blobs are lost; run: ferry repair index, then add their versions again", c.indexed[id].n)})
		}
	}
	return packs, nil
}

func (c *checker) checkIndexFile(ctx context.Context, info backend.Info) error {
	r, err := c.s.b.Open(ctx, info.Name)
	if errors.Is(err, backend.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer r.Close()
	h := NewHasher()
	if _, err := io.Copy(h, r); err != nil {
		return fmt.Errorf("object %s: %w", info.Name, err)
	}
	if indexDir+h.Digest().Hex() != info.Name {
		c.report(Problem{Kind: ProblemDamagedIndex, Object: info.Name, Detail: "bytes do not hash to the name; run: ferry repair index"})
	}
	return nil
}

// eachEntry calls fn with every entry of all tables, equal ones once.
func (s *Store) eachEntry(fn func(index.Entry) error) error {
	_, tables := s.openTables()
	return index.Each(tables, fn)
}

// checkPack compares a pack's directory with the indexes, and reads its bytes.
func (c *checker) checkPack(ctx context.Context, info backend.Info) error {
	id, err := packID(info.Name)
	if err != nil {
		c.report(Problem{Kind: ProblemForeignObject, Object: info.Name, Detail: "not named like a pack; remove it", Hint: true})
		return nil
	}
	whole := true
	if c.readData {
		whole, err = c.hashPack(ctx, info)
		if errors.Is(err, backend.ErrNotFound) {
			return nil // a prune has deleted it since it was listed
		}
		if err != nil {
			return err
		}
	}
	frames, err := pack.ReadFrames(info.Size, func(p []byte, off int64) error { return c.s.b.ReadAt(ctx, info.Name, p, off) })
	if errors.Is(err, pack.ErrInvalid) || errors.Is(err, io.ErrUnexpectedEOF) {
		c.report(Problem{Kind: ProblemDamagedPack, Object: info.Name, Detail: err.Error()})
		return nil
	}
	if errors.Is(err, backend.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	entries := index.Entries(id, frames)
	c.mu.Lock()
	c.sum.Packs++
	for _, f := range frames {
		c.sum.Blobs += int64(len(f.Blobs))
	}
	c.sum.StoredBytes += info.Size
	c.mu.Unlock()
	// What a pack needs that is to be deleted, or that no index knows, may be gone.
	if !c.s.isDoomed(id) && c.indexed[id] != nil {
		if err := c.checkDerived(ctx, info.Name, entries); err != nil {
			return err
		}
	}
	if err := c.compareIndex(info.Name, id, entries); err != nil || whole {
		return err
	}
	return c.damagedChunks(ctx, info.Name, entries)
}

// checkDerived reports derived frames of which something is missing.
func (c *checker) checkDerived(ctx context.Context, name string, entries iter.Seq[index.Entry]) error {
	frame := int64(-1)
	for e := range entries {
		if e.Codec != pack.Derived || e.Frame == frame {
			continue
		}
		frame = e.Frame
		f, err := c.s.derivedFrame(ctx, e)
		if err == nil {
			err = c.derivation(ctx, f.key)
		}
		if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrNotFound) {
			k := Digest(e.Key)
			c.report(Problem{Kind: ProblemLostBase, Object: name, Key: &k, Detail: fmt.Sprintf("frame at offset %d: %v", frame, err)})
		} else if err != nil {
			return err
		}
	}
	return nil
}

// derivation looks for all that a derivation needs, once.
func (c *checker) derivation(ctx context.Context, key Digest) error {
	if _, done := c.derived.LoadOrStore(key, nil); done {
		return nil
	}
	d, err := c.s.derivation(ctx, key)
	if err != nil {
		return err
	}
	for _, k := range d.needs() {
		if _, _, err := c.s.locate(k); err != nil {
			return err
		}
	}
	return nil
}

// compareIndex reports blobs that the indexes lack or place elsewhere.
func (c *checker) compareIndex(name string, id [32]byte, entries iter.Seq[index.Entry]) error {
	var have packSum
	for e := range entries {
		have.add(e)
	}
	indexed := c.indexed[id]
	if c.indexed == nil {
		return nil
	}
	if indexed == nil {
		c.report(Problem{Kind: ProblemNotIndexed, Object: name, Hint: true,
			Detail: "no index knows this pack: left by an interrupted add; prune clears it, repair index takes it up"})
		return nil
	}
	if *indexed == have {
		return nil
	}
	blobs, missing := 0, 0
	for e := range entries {
		blobs++
		ok, err := c.s.hasEntry(e)
		if err != nil {
			return err
		}
		if !ok {
			missing++
		}
	}
	if missing > 0 {
		c.report(Problem{Kind: ProblemNotIndexed, Object: name, Detail: fmt.Sprintf("%d blobs are in no index; run: ferry repair index", missing)})
	}
	if wrong := int(indexed.n) - (blobs - missing); wrong > 0 {
		c.report(Problem{Kind: ProblemWrongIndex, Object: name, Detail: fmt.Sprintf("indexes place %d blobs in it that it does not hold; run: ferry repair index", wrong)})
	}
	return nil
}

// hasEntry reports whether some table holds exactly e.
func (s *Store) hasEntry(e index.Entry) (bool, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	found := false
	for _, t := range s.tables {
		err := t.Find(e.Key, func(_ int64, have index.Entry) bool {
			found = have == e
			return !found
		})
		if found || err != nil {
			return found, err
		}
	}
	return false, nil
}

// hashPack reports whether the pack's bytes hash to its name.
func (c *checker) hashPack(ctx context.Context, info backend.Info) (bool, error) {
	r, err := c.s.b.Open(ctx, info.Name)
	if err != nil {
		return false, err
	}
	defer r.Close()
	h := NewHasher()
	buf := hashBuffers.Get().(*[]byte)
	defer hashBuffers.Put(buf)
	n, err := io.CopyBuffer(onlyWriter{h}, &countingReader{r: r, ctx: ctx, c: c.progress}, *buf)
	if err != nil {
		return false, fmt.Errorf("object %s: %w", info.Name, err)
	}
	c.mu.Lock()
	c.sum.ReadBytes += n
	c.mu.Unlock()
	return packName(h.Digest()) == info.Name, nil
}

// hashBuffers are what packs are read through.
var hashBuffers = sync.Pool{New: func() any {
	buf := make([]byte, 1<<20)
	return &buf
}}

// damagedChunks finds which chunks of a damaged pack cannot be read.
func (c *checker) damagedChunks(ctx context.Context, name string, entries iter.Seq[index.Entry]) error {
	blobs, lost := 0, 0
	for e := range entries {
		blobs++
		_, err := c.s.readBlob(ctx, e)
		if err == nil {
			continue
		}
		if !errors.Is(err, ErrCorrupt) {
			return err
		}
		key := Digest(e.Key)
		lost++
		c.report(Problem{Kind: ProblemDamagedChunk, Object: name, Key: &key, Detail: err.Error()})
	}
	c.report(Problem{Kind: ProblemDamagedPack, Object: name, Detail: fmt.Sprintf("bytes do not hash to the name; %d of %d blobs cannot be read; to heal it, delete this file, run: ferry repair index, then add its versions again", lost, blobs)})
	return nil
}

func packID(name string) (Digest, error) {
	parts := strings.Split(name, "/")
	id, err := ParseHex(parts[len(parts)-1])
	if err == nil && packName(id) != name {
		err = fmt.Errorf("object %s: not in its folder", name)
	}
	return id, err
}

// listAll lists the objects under prefix, sorted by name.
func listAll(ctx context.Context, b backend.Backend, prefix string) ([]backend.Info, error) {
	var infos []backend.Info
	err := b.List(ctx, prefix, func(info backend.Info) error {
		infos = append(infos, info)
		return nil
	})
	slices.SortFunc(infos, func(a, b backend.Info) int { return strings.Compare(a.Name, b.Name) })
	return infos, err
}

// parallel calls fn for each item on all cores, and returns the first error.
func parallel[T any](ctx context.Context, items []T, fn func(T) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work := make(chan T)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for item := range work {
				if err := fn(item); err != nil {
					cancel(err)
				}
			}
		}()
	}
feed:
	for _, item := range items {
		select {
		case work <- item:
		case <-ctx.Done():
			break feed
		}
	}
	close(work)
	wg.Wait()
	return context.Cause(ctx)
}

// countingReader tells a Counter what is read, and ends with its context.
type countingReader struct {
	r   io.Reader
	ctx context.Context
	c   Counter
}

func (r *countingReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := r.r.Read(p)
	if r.c != nil {
		r.c.Add(int64(n))
	}
	return n, err
}

// onlyWriter hides other methods, so that io.CopyBuffer uses the buffer.
type onlyWriter struct{ io.Writer }
