package cas

import (
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"slices"

	"ferry/cas/backend"
	"ferry/cas/index"
)

// maxTables is how many index files a store has before a commit merges some:
// a lookup of an unknown key asks each of them.
const maxTables = 8

// mergeIndexes merges small index files into one when there are many. It gives
// way to a running prune.
func (s *Store) mergeIndexes(ctx context.Context) error {
	s.mu.RLock()
	n := len(s.tables)
	s.mu.RUnlock()
	if n <= maxTables {
		return nil
	}
	release, err := s.b.Lease(ctx, pruneLease)
	if errors.Is(err, backend.ErrBusy) {
		return nil
	}
	if err != nil {
		return err
	}
	defer release()
	if err := s.refresh(ctx); err != nil {
		return err
	}
	names := s.smallTables()
	if len(names) < 2 {
		return nil
	}
	return s.replaceTables(ctx, names, nil)
}

// smallTables picks tables to merge, smallest first, until the next is larger
// than all of them together: so each entry is rewritten O(log n) times.
func (s *Store) smallTables() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	names := make([]string, 0, len(s.tables))
	for name := range s.tables {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(s.tables[a].Len(), s.tables[b].Len()), cmp.Compare(a, b))
	})
	sum := int64(0)
	for i, name := range names {
		if i >= maxTables/2 && s.tables[name].Len() > sum {
			return names[:i]
		}
		sum += s.tables[name].Len()
	}
	return names
}

// openTables returns the open tables and their names, sorted.
func (s *Store) openTables() (names []string, tables []*index.Table) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	names = slices.Sorted(maps.Keys(s.tables))
	for _, name := range names {
		tables = append(tables, s.tables[name])
	}
	return names, tables
}

// replaceTables publishes the union of the named tables without the packs in
// drop, then deletes them. On success none of the old ones is left.
func (s *Store) replaceTables(ctx context.Context, names []string, drop map[[32]byte]bool) error {
	tables := make([]*index.Table, len(names))
	s.mu.RLock()
	for i, name := range names {
		tables[i] = s.tables[name]
	}
	s.mu.RUnlock()
	merged, err := index.Merge(tables, drop)
	if err != nil {
		return err
	}
	kept := ""
	if merged.Len() > 0 {
		if kept, err = s.putMerged(ctx, merged); err != nil {
			return err
		}
	}
	var failed error
	for _, name := range names {
		if name == kept {
			continue
		}
		if err := s.b.Delete(ctx, name); err != nil {
			failed = errors.Join(failed, err)
		}
	}
	return errors.Join(failed, s.refresh(ctx))
}

// putMerged publishes a merged table under the digest of its bytes, which takes
// one more pass to compute.
func (s *Store) putMerged(ctx context.Context, merged *index.Merged) (string, error) {
	h := NewHasher()
	if _, err := merged.WriteTo(h); err != nil {
		return "", err
	}
	name := indexDir + h.Digest().Hex()
	r, w := io.Pipe()
	defer r.Close()
	go func() {
		_, err := merged.WriteTo(w)
		w.CloseWithError(err)
	}()
	err := s.b.Put(ctx, name, r, merged.Size())
	if errors.Is(err, backend.ErrExist) {
		err = nil
	}
	return name, err
}
