package cas

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"slices"

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
	// maxDepth bounds how many derivations may have to be made, one of the other,
	// to read a chunk.
	maxDepth   = 8
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
	if n <= 0 || size > codec.MaxSize || len(b) < head+n+DigestSize || d.depth == 0 || d.depth > maxDepth {
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

func parseDerived(b []byte) (f derivedFrame, err error) {
	if len(b) < DigestSize {
		return f, errDerivation
	}
	f.key, b = Digest(b[:DigestSize]), b[DigestSize:]
	total := uint64(0)
	for len(b) > 0 {
		off, n := binary.Uvarint(b)
		if n <= 0 {
			return f, errDerivation
		}
		size, m := binary.Uvarint(b[n:])
		if total += size; m <= 0 || off > codec.MaxSize || size > pack.MaxFrame || total > pack.MaxFrame {
			return f, errDerivation
		}
		f.pieces = append(f.pieces, derivedPiece{int(off), int(size)})
		b = b[n+m:]
	}
	return f, nil
}

// needs lists the chunks that a derivation is read with, itself apart.
func (d *derivation) needs() []Digest {
	keys := []Digest{d.baseList}
	for _, r := range slices.Concat(d.base, d.patch) {
		if !r.Key.IsZero() {
			keys = append(keys, r.Key)
		}
	}
	return keys
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
	f, err := s.derivedFrame(ctx, e)
	if err != nil {
		return nil, err
	}
	p, err := f.piece(e)
	if err != nil {
		return nil, err
	}
	made, err := s.madeBy(ctx, f.key)
	if err != nil {
		return nil, err
	}
	if p.off > len(made) || p.size > len(made)-p.off {
		return nil, &CorruptError{Object: packName(e.Pack), Off: e.Frame, Key: e.Key, Reason: errDerivation.Error()}
	}
	return made[p.off : p.off+p.size : p.off+p.size], nil
}

// madeBy returns what the derivation under key makes. In one that is being made, it
// must be of less depth, so that none waits for itself.
func (s *Store) madeBy(ctx context.Context, key Digest) ([]byte, error) {
	outer, nested := ctx.Value(depthKey{}).(int)
	below := func(depth int) error {
		if nested && depth >= outer {
			return &CorruptError{Object: "derivation " + key.Short(), Off: -1, Key: key, Reason: "is needed by one that is not above it"}
		}
		return nil
	}
	if made, ok := s.derived.made.find(key); ok {
		return made.plain, below(made.depth)
	}
	d, err := s.derivation(ctx, key)
	if err != nil {
		return nil, err
	}
	if err := below(d.depth); err != nil {
		return nil, err
	}
	if !nested {
		// Only the outermost waits for memory, and before others can wait for what it
		// makes: what that needs comes out of its share.
		share := min(maxDerived, 2*d.size+sizeOf(d.base))
		if err := s.derived.memory.Acquire(ctx, share); err != nil {
			return nil, err
		}
		defer s.derived.memory.Release(share)
	}
	made, err := s.derived.made.get(key, func() (derived, error) {
		plain, err := s.derive(context.WithValue(ctx, depthKey{}, d.depth), key, d)
		return derived{plain, d.depth}, err
	})
	return made.plain, err
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
	made   *cache[Digest, derived]
	frames *cache[frameID, derivedFrame]
}

// derived is what a derivation of some depth made.
type derived struct {
	plain []byte
	depth int
}

// derivedFrame is the body of a derived frame.
type derivedFrame struct {
	key    Digest // of the derivation
	pieces []derivedPiece
}

// maxParsed bounds the bodies of derived frames kept.
const maxParsed = 64

func newDerivedCache() *derivedCache {
	return &derivedCache{
		memory: semaphore.NewWeighted(maxDerived),
		made:   newCache[Digest](keptDerived, func(d derived) int { return len(d.plain) }),
		frames: newCache[frameID](maxParsed, func(derivedFrame) int { return 1 }),
	}
}

// piece returns where the chunk at e stands in what the frame's derivation makes.
func (f derivedFrame) piece(e index.Entry) (derivedPiece, error) {
	at := 0
	for _, p := range f.pieces {
		if at == e.Off && p.size == e.Size {
			return p, nil
		}
		at += p.size
	}
	return derivedPiece{}, &CorruptError{Object: packName(e.Pack), Off: e.Frame, Key: e.Key, Reason: "is no piece of its derived frame"}
}

// derivedFrame reads the derived frame that e is in.
func (s *Store) derivedFrame(ctx context.Context, e index.Entry) (derivedFrame, error) {
	return s.derived.frames.get(frameID{e.Pack, e.Frame}, func() (derivedFrame, error) {
		body, err := s.readBody(ctx, e)
		if err != nil {
			return derivedFrame{}, err
		}
		f, err := parseDerived(body)
		if err != nil {
			err = &CorruptError{Object: packName(e.Pack), Off: e.Frame, Key: e.Key, Reason: err.Error()}
		}
		return f, err
	})
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
func (t *Tx) moveDerived(ctx context.Context, frames map[frameID][]index.Entry) error {
	ids := slices.SortedFunc(maps.Keys(frames), func(a, b frameID) int {
		return cmp.Or(bytes.Compare(a.pack[:], b.pack[:]), cmp.Compare(a.off, b.off))
	})
	// What they need comes before them.
	if err := t.flush(&t.chunks); err != nil {
		return err
	}
	for _, id := range ids {
		entries := frames[id]
		f, err := t.s.derivedFrame(ctx, entries[0])
		if err != nil {
			return err
		}
		var blobs []pack.Blob
		var cuts []derivedPiece
		for _, e := range entries {
			p, err := f.piece(e)
			if err != nil {
				return err
			}
			blobs = append(blobs, pack.Blob{Kind: e.Kind, Key: e.Key, Size: e.Size})
			cuts = append(cuts, p)
		}
		if err := t.putDerived(blobs, derivedBody(f.key, cuts)); err != nil {
			return err
		}
	}
	return nil
}
