package cas

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"

	"ferry/cas/backend"
	"ferry/cas/index"
	"ferry/cas/pack"
)

// RepairIndex builds the index of the store in b anew from the directories of all
// packs, and replaces the index files with it, however damaged they are. Packs whose directory cannot be read are
// reported and left out. It returns the number of blobs indexed, ErrLocked while
// a prune or another repair runs.
func RepairIndex(ctx context.Context, b backend.Backend, report func(Problem)) (int64, error) {
	s, err := openUnindexed(ctx, b)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	release, err := s.lockPrune(ctx)
	if err != nil {
		return 0, err
	}
	defer release()
	old, err := listAll(ctx, s.b, indexDir) // before the packs: what comes later stays
	if err != nil {
		return 0, err
	}
	packs, err := listAll(ctx, s.b, packDir)
	if err != nil {
		return 0, err
	}
	r := indexRepair{s: s, report: report, keep: map[string]bool{}}
	for _, info := range packs {
		if err := r.add(ctx, info); err != nil {
			return r.n, err
		}
	}
	if err := r.flush(ctx); err != nil {
		return r.n, err
	}
	for _, info := range old {
		if r.keep[info.Name] {
			continue
		}
		if err := s.b.Delete(ctx, info.Name); err != nil {
			return r.n, err
		}
	}
	if err := s.refresh(ctx); err != nil {
		return r.n, err
	}
	names, _ := s.openTables()
	if len(names) < 2 {
		return r.n, nil
	}
	return r.n, s.replaceTables(ctx, names, nil)
}

// indexRepair gathers the entries of packs into index files of bounded size.
type indexRepair struct {
	s       *Store
	report  func(Problem)
	keep    map[string]bool // index files that are as they should be
	entries []index.Entry
	n       int64
}

func (r *indexRepair) add(ctx context.Context, info backend.Info) error {
	id, err := packID(info.Name)
	if err != nil {
		return nil
	}
	frames, err := pack.ReadFrames(info.Size, func(p []byte, off int64) error { return r.s.b.ReadAt(ctx, info.Name, p, off) })
	if errors.Is(err, pack.ErrInvalid) || errors.Is(err, io.ErrUnexpectedEOF) {
		r.report(Problem{Kind: ProblemDamagedPack, Object: info.Name, Detail: err.Error() + ": left out of the index"})
		return nil
	}
	if err != nil {
		return err
	}
	before := len(r.entries)
	r.entries = slices.AppendSeq(r.entries, index.Entries(id, frames))
	r.n += int64(len(r.entries) - before)
	if len(r.entries) < 1<<18 {
		return nil
	}
	return r.flush(ctx)
}

func (r *indexRepair) flush(ctx context.Context) error {
	if len(r.entries) == 0 {
		return nil
	}
	data := index.Build(r.entries)
	name := indexDir + Sum(data).Hex()
	r.entries = r.entries[:0]
	r.keep[name] = true
	err := r.s.b.Put(ctx, name, bytes.NewReader(data), int64(len(data)))
	if !errors.Is(err, backend.ErrExist) {
		return err
	}
	// The name is taken: by the same bytes, or by a damaged file.
	c := &checker{s: r.s, emit: func(Problem) {}}
	if err := c.checkIndexFile(ctx, backend.Info{Name: name}); err != nil || c.sum.Problems == 0 {
		return err
	}
	if err := r.s.b.Delete(ctx, name); err != nil {
		return err
	}
	return r.s.b.Put(ctx, name, bytes.NewReader(data), int64(len(data)))
}
