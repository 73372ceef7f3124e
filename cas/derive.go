package cas

import (
	"bytes"
	"container/list"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"golang.org/x/sync/semaphore"

	"ferry/cas/index"
	"ferry/cas/pack"
	"ferry/delta/codec"
)

// A derived frame holds no bytes of its chunks: it says which pieces they are of
// something that is made by a patch of other chunks. How, stands in a derivation,
// which is a chunk like any other, and so are its patch and the list of its base.

// Ref names a run of bytes: a chunk, or zeros if Key is zero.
type Ref struct {
	Key  Digest
	Size int64
}

// Derivation says how bytes are made of other chunks.
type Derivation struct {
	Kind  codec.Kind
	Size  int64 // of what is made, at most codec.MaxSize
	Base  []Ref // what it is coded against: in all at most codec.MaxSize
	Patch []byte
}

// derivation is one as it stands in the store.
type derivation struct {
	depth    int // more than that of any derivation which its base needs
	kind     codec.Kind
	size     int64
	baseList Digest
	base     []Ref
	patch    []Ref
}

const (
	derivationMagic   = "FRYV"
	derivationVersion = 1
	// MaxDepth bounds how many derivations may have to be made, one of the other,
	// to read a chunk.
	MaxDepth   = 8
	patchPiece = 1 << 20
)

// encode returns the derivation's chunk; the list of its base is another.
func (d *derivation) encode() []byte {
	b := append([]byte(derivationMagic), derivationVersion, byte(d.depth), byte(d.kind))
	b = binary.AppendUvarint(b, uint64(d.size))
	b = append(b, d.baseList[:]...)
	return appendRefs(b, d.patch)
}

func appendRefs(b []byte, refs []Ref) []byte {
	for _, r := range refs {
		b = append(b, r.Key[:]...)
		b = binary.AppendUvarint(b, uint64(r.Size))
	}
	return b
}

// errDerivation says that a derivation is malformed.
var errDerivation = errors.New("malformed derivation")

func decodeDerivation(b []byte) (*derivation, error) {
	const head = len(derivationMagic) + 3
	if len(b) < head || string(b[:4]) != derivationMagic || b[4] != derivationVersion {
		return nil, errDerivation
	}
	d := &derivation{depth: int(b[5]), kind: codec.Kind(b[6])}
	size, n := binary.Uvarint(b[head:])
	if n <= 0 || size > codec.MaxSize || len(b) < head+n+DigestSize || d.depth == 0 || d.depth > MaxDepth {
		return nil, errDerivation
	}
	d.size, d.baseList = int64(size), Digest(b[head+n:head+n+DigestSize])
	var err error
	d.patch, err = decodeRefs(b[head+n+DigestSize:])
	return d, err
}

// decodeRefs reads a list of runs of at most codec.MaxSize bytes in all.
func decodeRefs(b []byte) ([]Ref, error) {
	var refs []Ref
	total := uint64(0)
	for len(b) > 0 {
		if len(b) < DigestSize {
			return nil, errDerivation
		}
		size, n := binary.Uvarint(b[DigestSize:])
		if total += size; n <= 0 || size > codec.MaxSize || total > codec.MaxSize {
			return nil, errDerivation
		}
		refs = append(refs, Ref{Digest(b[:DigestSize]), int64(size)})
		b = b[DigestSize+n:]
	}
	return refs, nil
}

// derivedPiece is a run of the bytes that a derivation makes.
type derivedPiece struct{ off, size int }

// derivedBody is what a derived frame holds.
func derivedBody(key Digest, pieces []derivedPiece) []byte {
	b := append([]byte(nil), key[:]...)
	for _, p := range pieces {
		b = binary.AppendUvarint(b, uint64(p.off))
		b = binary.AppendUvarint(b, uint64(p.size))
	}
	return b
}

func parseDerived(b []byte) (key Digest, pieces []derivedPiece, err error) {
	if len(b) < DigestSize {
		return key, nil, errDerivation
	}
	key, b = Digest(b[:DigestSize]), b[DigestSize:]
	total := uint64(0)
	for len(b) > 0 {
		off, n := binary.Uvarint(b)
		if n <= 0 {
			return key, nil, errDerivation
		}
		size, m := binary.Uvarint(b[n:])
		if total += size; m <= 0 || off > codec.MaxSize || size > pack.MaxFrame || total > pack.MaxFrame {
			return key, nil, errDerivation
		}
		pieces = append(pieces, derivedPiece{int(off), int(size)})
		b = b[n+m:]
	}
	return key, pieces, nil
}

// derivation reads the derivation under key, with its base.
func (s *Store) derivation(ctx context.Context, key Digest) (*derivation, error) {
	data, err := s.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	d, err := decodeDerivation(data)
	if err == nil {
		var list []byte
		if list, err = s.Get(ctx, d.baseList); err == nil {
			d.base, err = decodeRefs(list)
		}
	}
	if errors.Is(err, errDerivation) {
		err = &CorruptError{Object: "derivation " + key.Short(), Off: -1, Key: key, Reason: err.Error()}
	}
	return d, err
}

// depthKey is the context's key of the depth of the derivation being read.
type depthKey struct{}

// derivedBlob makes a derived chunk. It does not go through the cache of frames:
// there, one that needs itself would wait for itself.
func (s *Store) derivedBlob(ctx context.Context, e index.Entry) ([]byte, error) {
	key, pieces, err := s.derivedKey(ctx, e)
	if err != nil {
		return nil, err
	}
	corrupt := func(reason string) error {
		return &CorruptError{Object: packName(e.Pack), Off: e.Frame, Key: e.Key, Reason: reason}
	}
	at := 0
	i := slices.IndexFunc(pieces, func(p derivedPiece) bool { at += p.size; return at > e.Off })
	if i < 0 || at-pieces[i].size != e.Off || pieces[i].size != e.Size {
		return nil, corrupt("is no piece of its derived frame")
	}
	outer, nested := ctx.Value(depthKey{}).(int)
	whole, depth, ok := s.derived.find(key)
	if !ok {
		d, err := s.derivation(ctx, key)
		if err != nil {
			return nil, err
		}
		if depth = d.depth; !nested || depth < outer {
			if whole, err = s.makeDerived(ctx, key, d, nested); err != nil {
				return nil, err
			}
		}
	}
	if nested && depth >= outer {
		return nil, corrupt("derivation " + key.Short() + " is needed by one that is not above it")
	}
	p := pieces[i]
	if p.off > len(whole) || p.size > len(whole)-p.off {
		return nil, corrupt(errDerivation.Error())
	}
	return whole[p.off : p.off+p.size : p.off+p.size], nil
}

// makeDerived makes what a derivation makes, or waits for another that does so.
func (s *Store) makeDerived(ctx context.Context, key Digest, d *derivation, nested bool) ([]byte, error) {
	if !nested {
		// Only the outermost waits for memory, and before others can wait for what it
		// makes: what that needs comes out of its share.
		share := min(maxDerived, 2*d.size+sizeOf(d.base))
		if err := s.derived.memory.Acquire(ctx, share); err != nil {
			return nil, err
		}
		defer s.derived.memory.Release(share)
	}
	return s.derived.get(key, d, func() ([]byte, error) {
		return s.derive(context.WithValue(ctx, depthKey{}, d.depth), key, d)
	})
}

// derive makes what a derivation makes.
func (s *Store) derive(ctx context.Context, key Digest, d *derivation) ([]byte, error) {
	base, err := s.join(ctx, d.base)
	if err != nil {
		return nil, err
	}
	patch, err := s.join(ctx, d.patch)
	if err != nil {
		return nil, err
	}
	plain, err := codec.Decode(nil, patch, base, d.kind, int(d.size))
	if err != nil {
		return nil, &CorruptError{Object: "derivation " + key.Short(), Off: -1, Key: key, Reason: err.Error()}
	}
	return plain, nil
}

// join reads runs, one after the other.
func (s *Store) join(ctx context.Context, refs []Ref) ([]byte, error) {
	out := make([]byte, 0, sizeOf(refs))
	keys := func(yield func(Digest) bool) {
		for _, r := range refs {
			if !r.Key.IsZero() && !yield(r.Key) {
				return
			}
		}
	}
	i := 0
	zeros := func() {
		for ; i < len(refs) && refs[i].Key.IsZero(); i++ {
			out = append(out, make([]byte, refs[i].Size)...)
		}
	}
	for chunk, err := range s.Stream(ctx, keys) {
		if err != nil {
			return nil, err
		}
		zeros()
		if int64(len(chunk)) != refs[i].Size {
			return nil, &CorruptError{Object: "list of chunks", Off: -1, Key: refs[i].Key, Reason: "another length"}
		}
		out = append(out, chunk...)
		i++
	}
	zeros()
	if i < len(refs) {
		return nil, errors.Join(ctx.Err(), io.ErrUnexpectedEOF)
	}
	return out, nil
}

func sizeOf(refs []Ref) (sum int64) {
	for _, r := range refs {
		sum += r.Size
	}
	return sum
}

// maxDerived bounds the memory in bytes that derivations being made take, and
// keptDerived that of those kept.
const (
	maxDerived  = 200 << 20
	keptDerived = 192 << 20
)

// derivedCache keeps what derivations made last: a file's chunks are read one
// after the other.
type derivedCache struct {
	memory *semaphore.Weighted

	mu    sync.Mutex
	byKey map[Digest]*list.Element
	order *list.List // of *derivedBytes, last used first

	parsed map[frameID]parsedFrame
}

type derivedBytes struct {
	key   Digest
	size  int
	depth int
	ready chan struct{}
	plain []byte
	err   error
}

func newDerivedCache() *derivedCache {
	return &derivedCache{memory: semaphore.NewWeighted(maxDerived), byKey: map[Digest]*list.Element{}, order: list.New(), parsed: map[frameID]parsedFrame{}}
}

// find returns the bytes under key, and the depth of what makes them, if they are at
// hand.
func (c *derivedCache) find(key Digest) (plain []byte, depth int, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	el, ok := c.byKey[key]
	if !ok {
		return nil, 0, false
	}
	d := el.Value.(*derivedBytes)
	select {
	case <-d.ready:
		c.order.MoveToFront(el)
		return d.plain, d.depth, d.err == nil
	default:
		return nil, 0, false
	}
}

// get returns the bytes under key, calling load when they are not at hand. Failures
// are not kept.
func (c *derivedCache) get(key Digest, of *derivation, load func() ([]byte, error)) ([]byte, error) {
	c.mu.Lock()
	if el, ok := c.byKey[key]; ok {
		c.order.MoveToFront(el)
		c.mu.Unlock()
		d := el.Value.(*derivedBytes)
		<-d.ready
		if d.err != nil {
			return load() // the other's failure may be that of its context
		}
		return d.plain, nil
	}
	d := &derivedBytes{key: key, size: int(of.size), depth: of.depth, ready: make(chan struct{})}
	c.byKey[key] = c.order.PushFront(d)
	c.mu.Unlock()
	d.plain, d.err = load()
	close(d.ready)
	c.mu.Lock()
	defer c.mu.Unlock()
	if d.err != nil {
		c.drop(c.byKey[key])
	}
	sum := 0
	for el := c.order.Front(); el != nil; {
		next := el.Next()
		if sum += el.Value.(*derivedBytes).size; sum > keptDerived {
			c.drop(el)
		}
		el = next
	}
	return d.plain, d.err
}

func (c *derivedCache) drop(el *list.Element) {
	if el == nil {
		return
	}
	c.order.Remove(el)
	delete(c.byKey, el.Value.(*derivedBytes).key)
}

// Optimizer replaces chunks by derivations. It keeps prunes, repairs and other
// optimizers away. What it replaces stays until a prune clears it away. It is used
// by one goroutine.
type Optimizer struct {
	s       *Store
	tx      *Tx
	release func()
	used    map[Digest]struct{} // chunks that are bases: they stay what they are
	depths  map[Digest]uint8    // of chunks that are derived
}

// Optimize begins to optimize the store. End it with Commit or Abort.
func (s *Store) Optimize(ctx context.Context) (*Optimizer, error) {
	release, err := s.lockPrune(ctx)
	if err != nil {
		return nil, err
	}
	o := &Optimizer{s: s, release: release, used: map[Digest]struct{}{}, depths: map[Digest]uint8{}}
	if err := o.survey(ctx); err != nil {
		release()
		return nil, err
	}
	o.tx = s.begin(ctx, nil)
	return o, nil
}

// survey finds the derivations that there are.
func (o *Optimizer) survey(ctx context.Context) error {
	if err := o.s.refresh(ctx); err != nil {
		return err
	}
	frames := map[frameID][]index.Entry{}
	err := o.s.eachEntry(func(e index.Entry) error {
		if e.Codec == pack.Derived && !o.s.isDoomed(e.Pack) {
			id := frameID{e.Pack, e.Frame}
			frames[id] = append(frames[id], e)
		}
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	for _, entries := range frames {
		key, _, err := o.s.derivedKey(ctx, entries[0])
		if err != nil {
			return err
		}
		d, err := o.s.derivation(ctx, key)
		if err != nil {
			return err
		}
		for _, e := range entries {
			o.depths[e.Key] = max(o.depths[e.Key], uint8(d.depth))
		}
		o.use(d.base)
	}
	return nil
}

// parsedFrame is the body of a derived frame.
type parsedFrame struct {
	key    Digest
	pieces []derivedPiece
}

// maxParsed bounds the bodies kept.
const maxParsed = 64

// derivedKey reads a derived frame's body.
func (s *Store) derivedKey(ctx context.Context, e index.Entry) (Digest, []derivedPiece, error) {
	id := frameID{e.Pack, e.Frame}
	c := s.derived
	c.mu.Lock()
	f, ok := c.parsed[id]
	c.mu.Unlock()
	if ok {
		return f.key, f.pieces, nil
	}
	key, pieces, err := s.readDerivedKey(ctx, e)
	if err == nil {
		c.mu.Lock()
		if len(c.parsed) >= maxParsed {
			clear(c.parsed)
		}
		c.parsed[id] = parsedFrame{key, pieces}
		c.mu.Unlock()
	}
	return key, pieces, err
}

func (s *Store) readDerivedKey(ctx context.Context, e index.Entry) (Digest, []derivedPiece, error) {
	body := make([]byte, e.Stored)
	err := s.b.ReadAt(ctx, packName(e.Pack), body, e.Frame)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return Digest{}, nil, &CorruptError{Object: packName(e.Pack), Off: e.Frame, Key: e.Key, Reason: "the pack is truncated"}
	}
	if err != nil {
		return Digest{}, nil, err
	}
	key, pieces, err := parseDerived(body)
	if err != nil {
		err = &CorruptError{Object: packName(e.Pack), Off: e.Frame, Key: e.Key, Reason: err.Error()}
	}
	return key, pieces, err
}

func (o *Optimizer) use(base []Ref) {
	for _, r := range base {
		o.used[r.Key] = struct{}{}
	}
}

// Gain estimates the stored bytes of those chunks of target that a derivation
// against base could replace.
func (o *Optimizer) Gain(base, target []Ref) (int64, error) {
	pieces, depth := o.replaceable(base, target)
	if depth > MaxDepth {
		return 0, nil
	}
	sum := int64(0)
	for _, p := range pieces {
		e, _, err := o.s.locate(p.Key)
		if err != nil {
			return 0, err
		}
		// What a chunk takes of its frame is not known: text and programs compress
		// about alike within one.
		sum += min(int64(e.Size), int64(e.Size)*int64(e.Stored)/frameTarget)
	}
	return sum, nil
}

// replaceablePiece is a chunk that may be replaced, and where it stands in the target.
type replaceablePiece struct {
	Ref
	off int64
}

// replaceable returns the chunks of target that may be derived from base, and the
// depth of the derivation.
func (o *Optimizer) replaceable(base, target []Ref) (pieces []replaceablePiece, depth int) {
	skip := map[Digest]bool{{}: true}
	for _, r := range base {
		skip[r.Key] = true
		depth = max(depth, int(o.depths[r.Key]))
	}
	off := int64(0)
	for _, r := range target {
		_, used := o.used[r.Key]
		if _, derived := o.depths[r.Key]; !used && !derived && !skip[r.Key] {
			skip[r.Key] = true
			pieces = append(pieces, replaceablePiece{r, off})
		}
		off += r.Size
	}
	return pieces, depth + 1
}

// Derive makes the chunks of target derived ones: d makes all of target. It returns
// how many chunks it replaced.
func (o *Optimizer) Derive(d Derivation, target []Ref) (int, error) {
	pieces, depth := o.replaceable(d.Base, target)
	if len(pieces) == 0 || depth > MaxDepth {
		return 0, nil
	}
	in := derivation{depth: depth, kind: d.Kind, size: d.Size, base: d.Base}
	put := func(data []byte) (Digest, error) {
		key := Sum(data)
		_, err := o.tx.Put(key, data)
		return key, err
	}
	var err error
	if in.baseList, err = put(appendRefs(nil, d.Base)); err != nil {
		return 0, err
	}
	for patch := d.Patch; len(patch) > 0; {
		part := patch[:min(len(patch), patchPiece)]
		patch = patch[len(part):]
		key, err := put(part)
		if err != nil {
			return 0, err
		}
		in.patch = append(in.patch, Ref{key, int64(len(part))})
	}
	key, err := put(in.encode())
	if err != nil {
		return 0, err
	}
	// What a derived frame needs comes before it, in the packs and so in the index.
	if err := o.tx.flush(&o.tx.chunks); err != nil {
		return 0, err
	}
	for n := 0; len(pieces) > 0; n = 0 {
		var blobs []pack.Blob
		var cuts []derivedPiece
		for size := int64(0); n < len(pieces) && size+pieces[n].Size <= pack.MaxFrame/2; n++ {
			blobs = append(blobs, pack.Blob{Kind: pack.Chunk, Key: pieces[n].Key, Size: int(pieces[n].Size)})
			cuts = append(cuts, derivedPiece{int(pieces[n].off), int(pieces[n].Size)})
			size += pieces[n].Size
		}
		if n == 0 {
			return 0, fmt.Errorf("chunk %s of %d bytes: too large", pieces[0].Key.Short(), pieces[0].Size)
		}
		if err := o.tx.putDerived(blobs, derivedBody(key, cuts)); err != nil {
			return 0, err
		}
		for _, p := range pieces[:n] {
			o.depths[p.Key] = uint8(depth)
		}
		pieces = pieces[n:]
	}
	o.use(d.Base)
	return len(target), nil
}

// Commit makes what was derived durable and visible.
func (o *Optimizer) Commit() (Added, error) {
	defer o.release()
	err := o.tx.finish() // the index must not be merged now: this holds the lease
	return o.tx.added, err
}

// Abort ends the optimizer; what it finished stays. After Commit it does nothing.
func (o *Optimizer) Abort() {
	o.tx.Abort()
	o.release()
}

// putDerived adds a derived frame.
func (t *Tx) putDerived(blobs []pack.Blob, body []byte) error {
	out := &frameOut{openFrame: openFrame{blobs: blobs}, done: make(chan struct{}), codec: pack.Derived, body: body}
	close(out.done)
	select {
	case t.queue <- out:
		return nil
	case <-t.ctx.Done():
		return context.Cause(t.ctx)
	}
}

// moveDerived stores the live chunks of derived frames anew, as they are.
func (t *Tx) moveDerived(ctx context.Context, s *Store, frames map[frameID][]index.Entry) error {
	ids := make([]frameID, 0, len(frames))
	for id := range frames {
		ids = append(ids, id)
	}
	sortFrames(ids)
	// What they need comes before them.
	if err := t.flush(&t.chunks); err != nil {
		return err
	}
	for _, id := range ids {
		entries := frames[id]
		key, pieces, err := s.derivedKey(ctx, entries[0])
		if err != nil {
			return err
		}
		byOff := map[int]derivedPiece{}
		at := 0
		for _, p := range pieces {
			byOff[at] = p
			at += p.size
		}
		var blobs []pack.Blob
		var cuts []derivedPiece
		for _, e := range entries {
			p, ok := byOff[e.Off]
			if !ok || p.size != e.Size {
				return &CorruptError{Object: packName(e.Pack), Off: e.Frame, Key: e.Key, Reason: "is no piece of its derived frame"}
			}
			blobs = append(blobs, pack.Blob{Kind: e.Kind, Key: e.Key, Size: e.Size})
			cuts = append(cuts, p)
		}
		if err := t.putDerived(blobs, derivedBody(key, cuts)); err != nil {
			return err
		}
	}
	return nil
}

func sortFrames(ids []frameID) {
	slices.SortFunc(ids, func(a, b frameID) int {
		if c := bytes.Compare(a.pack[:], b.pack[:]); c != 0 {
			return c
		}
		return int(a.off - b.off)
	})
}
