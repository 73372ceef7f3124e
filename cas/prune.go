package cas

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"ferry/cas/backend"
	"ferry/cas/index"
	"ferry/cas/pack"
)

// DefaultGrace is how long a pack stays after it was marked for deletion. It
// must be longer than any add or export that does not hold a lease, which on a
// local store is none.
const DefaultGrace = 24 * time.Hour

// clockSlack is how far the times of two objects may be off.
const clockSlack = 2 * time.Second

// Live calls chunk and record for everything that must be kept. It is called
// more than once, and must look at the state of that moment.
type Live func(ctx context.Context, chunk, record func(Digest) error) error

// PruneOptions say how to prune.
type PruneOptions struct {
	// DryRun computes the report and changes nothing.
	DryRun bool
	// Grace is how old a mark must be before its pack is deleted; 0 is allowed.
	Grace time.Duration
	// MaxUnused is the share of a pack's plain bytes that may be dead before
	// its live chunks are moved to another pack, (0, 1]; 0 means 0.25.
	MaxUnused float64
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// PruneReport says what a prune did, or would do. Sizes are bytes of packs.
type PruneReport struct {
	Packs     int   `json:"packs"`      // before
	LiveSize  int64 `json:"live_bytes"` // plain bytes of live chunks
	DeadSize  int64 `json:"dead_bytes"` // plain bytes of dead chunks
	Marked    int   `json:"marked_packs"`
	Marking   int64 `json:"marked_bytes"`
	Moved     int64 `json:"moved_bytes"` // plain bytes moved out of marked packs
	Rescued   int   `json:"rescued_packs"`
	Deleted   int   `json:"deleted_packs"`
	Freed     int64 `json:"freed_bytes"`
	Waiting   int   `json:"waiting_packs"` // marked, and not yet deleted
	WaitingB  int64 `json:"waiting_bytes"`
	InUseBy   int   `json:"sessions"` // running sessions that packs wait for
	DryRun    bool  `json:"dry_run"`
	TempFreed int64 `json:"temporary_bytes"`
}

// lockPrune takes the lease that prune and repair share.
func (s *Store) lockPrune(ctx context.Context) (func(), error) {
	release, err := s.b.Lease(ctx, pruneLease)
	if errors.Is(err, backend.ErrBusy) {
		return nil, fmt.Errorf("store %s: another prune or repair is running: %w", s.b.URL(), ErrLocked)
	}
	return release, err
}

// Prune deletes what live does not name, in two steps, so that no lock stops
// adds or exports: packs are first marked as doomed, which makes writers store
// what they need anew; they are deleted by a later call (or this one, with no
// grace) once the grace time is over, no session from before the mark runs, and
// they are still dead.
//
// Its own session is not counted among those that run: call it on a Store on
// which no Tx is open and nothing was committed that live does not name yet.
func (s *Store) Prune(ctx context.Context, opts PruneOptions, live Live) (PruneReport, error) {
	if opts.MaxUnused == 0 {
		opts.MaxUnused = 0.25
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	release, err := s.lockPrune(ctx)
	if err != nil {
		return PruneReport{}, err
	}
	defer release()
	p := &pruner{s: s, opts: opts, live: live}
	p.report.DryRun = opts.DryRun
	for _, step := range []func(context.Context) error{p.survey, p.rescue, p.mark, p.delete, p.clearTemp} {
		if err := step(ctx); err != nil {
			return p.report, err
		}
	}
	return p.report, nil
}

type pruner struct {
	s      *Store
	opts   PruneOptions
	live   Live
	report PruneReport
	begun  time.Time // when our own session did

	packs  map[[32]byte]*packUse
	tables []*index.Table
	marked []bitmap // live entries, per table

	ctx     context.Context      // of the survey
	frames  map[frameID]struct{} // derived frames whose derivation is kept
	derived map[Digest]struct{}  // derivations whose parts are kept
}

// packUse is what a survey found of one pack.
type packUse struct {
	info       backend.Info
	live, size int64 // plain bytes
	doomed     bool
}

type bitmap []uint64

func (b bitmap) has(i int64) bool { return b[i/64]>>(i%64)&1 != 0 }
func (b bitmap) set(i int64)      { b[i/64] |= 1 << (i % 64) }

// survey finds out what is live in each pack. Memory is a bit for each blob.
func (p *pruner) survey(ctx context.Context) error {
	if err := p.s.refresh(ctx); err != nil {
		return err
	}
	for {
		names, _ := p.s.openTables()
		lost := p.look(ctx)
		if !errors.Is(lost, ErrNotFound) {
			return lost
		}
		// What is live may have been committed since the index was read.
		if err := p.s.refresh(ctx); err != nil {
			return err
		}
		if now, _ := p.s.openTables(); slices.Equal(now, names) {
			return lost
		}
	}
}

// look is a survey with the tables that are open.
func (p *pruner) look(ctx context.Context) error {
	p.packs = map[[32]byte]*packUse{}
	p.ctx, p.frames, p.derived = ctx, map[frameID]struct{}{}, map[Digest]struct{}{}
	infos, err := listAll(ctx, p.s.b, packDir)
	if err != nil {
		return err
	}
	for _, info := range infos {
		if id, err := packID(info.Name); err == nil {
			_, doomed := p.s.doomed[id]
			p.packs[id] = &packUse{info: info, doomed: doomed}
		}
	}
	_, p.tables = p.s.openTables()
	p.marked = nil
	for _, t := range p.tables {
		p.marked = append(p.marked, make(bitmap, t.Len()/64+1))
	}
	err = index.Each(p.tables, func(e index.Entry) error {
		if use := p.packs[e.Pack]; use != nil {
			use.size += int64(e.Size)
		}
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	err = p.live(ctx, p.keep, func(name Digest) error { return p.keep(recordKey(name)) })
	if err != nil {
		return err
	}
	p.report.Packs, p.report.LiveSize, p.report.DeadSize = len(p.packs), 0, 0
	for _, use := range p.packs {
		p.report.LiveSize += use.live
		p.report.DeadSize += use.size - use.live
	}
	return nil
}

// place is where a blob stands, and the bit that marks it.
type place struct {
	table int
	pos   int64
	e     index.Entry
}

// keep marks one place of a key as live: of several, one outside doomed packs, then
// one where it is derived, and then the one in the pack of the lowest id.
func (p *pruner) keep(key Digest) error {
	best, found := place{}, false
	for i, t := range p.tables {
		err := t.Find(key, func(pos int64, e index.Entry) bool {
			if use := p.packs[e.Pack]; use != nil && (!found || p.better(e, best.e)) {
				best, found = place{i, pos, e}, true
			}
			return true
		})
		if err != nil {
			return err
		}
	}
	if !found {
		return fmt.Errorf("nothing was deleted: the store is damaged (run: ferry check): %w",
			&NotFoundError{What: "live chunk", Name: key.String()})
	}
	if !p.marked[best.table].has(best.pos) {
		p.marked[best.table].set(best.pos)
		p.packs[best.e.Pack].live += int64(best.e.Size)
		if best.e.Codec == pack.Derived {
			return p.keepDerived(best.e)
		}
	}
	return nil
}

// keepDerived keeps what a derived chunk is made of.
func (p *pruner) keepDerived(e index.Entry) error {
	id := frameID{e.Pack, e.Frame}
	if _, done := p.frames[id]; done {
		return nil
	}
	p.frames[id] = struct{}{}
	f, err := p.s.derivedFrame(p.ctx, e)
	if err != nil {
		return err
	}
	if _, done := p.derived[f.key]; done {
		return nil
	}
	p.derived[f.key] = struct{}{}
	d, err := p.s.derivation(p.ctx, f.key)
	if err != nil {
		return err
	}
	for _, k := range append(d.needs(), f.key) {
		if err := p.keep(k); err != nil {
			return err
		}
	}
	return nil
}

func (p *pruner) better(a, b index.Entry) bool {
	da, db := p.packs[a.Pack].doomed, p.packs[b.Pack].doomed
	if da != db {
		return db
	}
	if a.Codec != b.Codec && (a.Codec == pack.Derived || b.Codec == pack.Derived) {
		return a.Codec == pack.Derived
	}
	return bytes.Compare(a.Pack[:], b.Pack[:]) < 0
}

// rescue takes the mark off packs that hold the only copy of something live, and
// clears marks of packs that are gone, which a prune that was cut off has left.
func (p *pruner) rescue(ctx context.Context) error {
	for id := range p.s.doomed {
		if p.packs[id] != nil || p.opts.DryRun {
			continue
		}
		if err := p.unmark(ctx, id); err != nil {
			return err
		}
	}
	for id, use := range p.packs {
		if !use.doomed || use.live == 0 {
			continue
		}
		p.report.Rescued++
		if p.opts.DryRun {
			continue
		}
		if err := p.unmark(ctx, id); err != nil {
			return err
		}
		use.doomed = false
	}
	return nil
}

// mark dooms packs that are dead, or so nearly dead that their live chunks are
// moved first. Packs younger than a running session may be its own.
func (p *pruner) mark(ctx context.Context) error {
	oldest, err := p.oldestSession(ctx)
	if err != nil {
		return err
	}
	chosen := map[[32]byte]bool{}
	for id, use := range p.packs {
		if use.doomed || (!oldest.IsZero() && use.info.Created.After(oldest.Add(-clockSlack))) {
			continue
		}
		if use.live == 0 || float64(use.size-use.live) > p.opts.MaxUnused*float64(use.size) {
			chosen[id] = true
			p.report.Marked++
			p.report.Marking += use.info.Size
			p.report.Moved += use.live
		}
	}
	if p.opts.DryRun || len(chosen) == 0 {
		return nil
	}
	if err := p.spareDamaged(ctx, chosen); err != nil {
		return err
	}
	if err := p.move(ctx, chosen); err != nil {
		return err
	}
	for id := range chosen {
		if err := p.touch(ctx, doomedDir, id); err != nil {
			return err
		}
	}
	return nil
}

// touch puts an empty object named after a pack.
func (p *pruner) touch(ctx context.Context, dir string, id [32]byte) error {
	err := p.s.b.Put(ctx, dir+Digest(id).Hex(), strings.NewReader(""), 0)
	if errors.Is(err, backend.ErrExist) {
		return nil
	}
	return err
}

// unmark takes the mark off a pack. The note of its age goes first: there is
// never a note without a mark.
func (p *pruner) unmark(ctx context.Context, id [32]byte) error {
	if err := p.s.b.Delete(ctx, sinceDir+Digest(id).Hex()); err != nil {
		return err
	}
	return p.s.b.Delete(ctx, doomedDir+Digest(id).Hex())
}

// since returns a time by which the mark of a pack could be seen. The time of
// the mark itself will not do: it is when its writing began, and a session may
// have begun between that and its end. So it is the time of a note that was
// begun when the mark stood.
func (p *pruner) since(ctx context.Context, id [32]byte) (time.Time, error) {
	if err := p.touch(ctx, sinceDir, id); err != nil {
		return time.Time{}, err
	}
	info, err := p.s.b.Stat(ctx, sinceDir+Digest(id).Hex())
	return info.Created, err
}

// oldestSession returns when the oldest other session began; zero without any.
func (p *pruner) oldestSession(ctx context.Context) (time.Time, error) {
	leases, err := p.s.b.Leases(ctx)
	var oldest time.Time
	p.report.InUseBy = 0
	for _, l := range leases {
		if l.Name == p.s.session {
			p.begun = l.Created
		}
		if !strings.HasPrefix(l.Name, sessionDir) || l.Name == p.s.session {
			continue
		}
		p.report.InUseBy++
		if oldest.IsZero() || l.Created.Before(oldest) {
			oldest = l.Created
		}
	}
	return oldest, err
}

// spareDamaged takes back the choice of packs that are damaged and hold something
// live. Records are verified by those who know their names alone: moved to a
// sound pack, a damaged one would not be found by a check any more.
func (p *pruner) spareDamaged(ctx context.Context, chosen map[[32]byte]bool) error {
	c := &checker{s: p.s}
	for id := range chosen {
		use := p.packs[id]
		if use.live == 0 {
			continue
		}
		whole, err := c.hashPack(ctx, use.info)
		if err != nil {
			return err
		}
		if !whole {
			delete(chosen, id)
			p.report.Marked--
			p.report.Marking -= use.info.Size
			p.report.Moved -= use.live
		}
	}
	return nil
}

// move stores the live blobs of the chosen packs anew.
func (p *pruner) move(ctx context.Context, chosen map[[32]byte]bool) error {
	tx := p.s.begin(ctx, chosen)
	defer tx.Abort()
	derived := map[frameID][]index.Entry{}
	for i, t := range p.tables {
		err := t.All(func(pos int64, e index.Entry) error {
			if !chosen[e.Pack] || !p.marked[i].has(pos) {
				return ctx.Err()
			}
			if e.Codec == pack.Derived {
				id := frameID{e.Pack, e.Frame}
				derived[id] = append(derived[id], e)
				return nil
			}
			data, err := p.s.readBlob(ctx, e)
			if err != nil {
				return err
			}
			frame, target := &tx.chunks, frameTarget
			if e.Kind == pack.Record {
				frame, target = &tx.records, recordTarget
			}
			_, err = tx.put(frame, target, pack.Blob{Kind: e.Kind, Key: e.Key, Size: e.Size}, data)
			return err
		})
		if err != nil {
			return err
		}
	}
	if err := tx.moveDerived(ctx, derived); err != nil {
		return err
	}
	// The index must not be merged now: this call holds the lease.
	return tx.finish()
}

// delete removes doomed packs whose time has come, after looking again at what
// is live: a session that began before the mark may have come to need one.
func (p *pruner) delete(ctx context.Context) error {
	if p.opts.DryRun {
		for _, use := range p.packs {
			if use.doomed {
				p.report.Waiting++
				p.report.WaitingB += use.info.Size
			}
		}
		return nil
	}
	oldest, err := p.oldestSession(ctx)
	if err != nil {
		return err
	}
	if err := p.survey(ctx); err != nil {
		return err
	}
	drop := map[[32]byte]bool{}
	for id, use := range p.packs {
		if !use.doomed {
			continue
		}
		marked, err := p.since(ctx, id)
		if err != nil {
			return err
		}
		due := !marked.Add(p.opts.Grace).After(p.opts.Now().Add(clockSlack))
		inUse := !oldest.IsZero() && !oldest.After(marked.Add(clockSlack))
		if due && !inUse && use.live == 0 {
			drop[id] = true
			continue
		}
		p.report.Waiting++
		p.report.WaitingB += use.info.Size
	}
	return p.drop(ctx, drop)
}

// drop deletes packs: their index entries first, so that nobody is led to what
// is gone, and their marks last.
func (p *pruner) drop(ctx context.Context, drop map[[32]byte]bool) error {
	if len(drop) == 0 {
		return nil
	}
	names, _ := p.s.openTables()
	if err := p.s.replaceTables(ctx, names, drop); err != nil {
		return err
	}
	for id := range drop {
		if err := p.s.b.Delete(ctx, packName(id)); err != nil {
			return err
		}
		if err := p.unmark(ctx, id); err != nil {
			return err
		}
		p.report.Deleted++
		p.report.Freed += p.packs[id].info.Size
	}
	return p.s.refresh(ctx)
}

// clearTemp removes what crashed writers left, on backends that have such.
func (p *pruner) clearTemp(ctx context.Context) error {
	b, ok := p.s.b.(interface {
		RemoveTemp(context.Context, func(backend.Info) bool) (int64, error)
	})
	if !ok || p.opts.DryRun {
		return nil
	}
	oldest, err := p.oldestSession(ctx)
	if err != nil {
		return err
	}
	if oldest.IsZero() || oldest.After(p.begun) {
		oldest = p.begun // a session that we have not seen may be writing
	}
	p.report.TempFreed, err = b.RemoveTemp(ctx, func(info backend.Info) bool {
		return info.Created.Before(oldest.Add(-clockSlack))
	})
	return err
}
