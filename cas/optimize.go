package cas

import (
	"context"
	"fmt"

	"ferry/cas/index"
	"ferry/cas/pack"
)

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
		f, err := o.s.derivedFrame(ctx, entries[0])
		if err != nil {
			return err
		}
		d, err := o.s.derivation(ctx, f.key)
		if err != nil {
			return err
		}
		for _, e := range entries {
			o.depths[e.Key] = max(o.depths[e.Key], uint8(d.depth))
		}
		o.Keep(d.base)
	}
	return nil
}

// Keep lets chunks stay what they are: others will be derived from them.
func (o *Optimizer) Keep(base []Ref) {
	for _, r := range base {
		o.used[r.Key] = struct{}{}
	}
}

// Kept reports whether all of target stays what it is, because others are derived from it.
func (o *Optimizer) Kept(target []Ref) bool {
	for _, r := range target {
		if _, used := o.used[r.Key]; !used && !r.Key.IsZero() {
			return false
		}
	}
	return len(target) > 0
}

// Gain estimates the stored bytes of those chunks of target that a derivation
// against base could replace.
func (o *Optimizer) Gain(base, target []Ref) (int64, error) {
	pieces, depth := o.replaceable(base, target)
	if depth > maxDepth {
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
	if len(pieces) == 0 || depth > maxDepth {
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
	for rest := pieces; len(rest) > 0; {
		n := 0
		var blobs []pack.Blob
		var cuts []derivedPiece
		for size := int64(0); n < len(rest) && size+rest[n].Size <= pack.MaxFrame/2; n++ {
			blobs = append(blobs, pack.Blob{Kind: pack.Chunk, Key: rest[n].Key, Size: int(rest[n].Size)})
			cuts = append(cuts, derivedPiece{int(rest[n].off), int(rest[n].Size)})
			size += rest[n].Size
		}
		if n == 0 {
			return 0, fmt.Errorf("chunk %s of %d bytes: too large", rest[0].Key.Short(), rest[0].Size)
		}
		if err := o.tx.putDerived(blobs, derivedBody(key, cuts)); err != nil {
			return 0, err
		}
		rest = rest[n:]
	}
	for _, p := range pieces {
		o.depths[p.Key] = uint8(depth)
	}
	o.Keep(d.Base)
	return len(pieces), nil
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
