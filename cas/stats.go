package cas

import (
	"context"

	"ferry/cas/index"
	"ferry/cas/pack"
)

// Stats says what a store holds.
type Stats struct {
	Packs       int   `json:"packs"`
	PackBytes   int64 `json:"pack_bytes"`
	Indexes     int   `json:"indexes"`
	IndexBytes  int64 `json:"index_bytes"`
	Chunks      int64 `json:"chunks"`
	ChunkBytes  int64 `json:"chunk_bytes"` // plain
	Records     int64 `json:"records"`
	RecordBytes int64 `json:"record_bytes"` // plain
	DoomedPacks int   `json:"doomed_packs"` // marked for deletion
}

// Stats counts what the store holds. It reads the index, not the packs.
func (s *Store) Stats(ctx context.Context) (Stats, error) {
	var st Stats
	packs, err := listAll(ctx, s.b, packDir)
	if err != nil {
		return st, err
	}
	for _, info := range packs {
		st.Packs++
		st.PackBytes += info.Size
	}
	indexes, err := listAll(ctx, s.b, indexDir)
	if err != nil {
		return st, err
	}
	for _, info := range indexes {
		st.Indexes++
		st.IndexBytes += info.Size
	}
	s.mu.RLock()
	st.DoomedPacks = len(s.doomed)
	s.mu.RUnlock()
	var last [32]byte
	err = s.eachEntry(func(e index.Entry) error {
		if e.Key == last {
			return nil // a second copy
		}
		last = e.Key
		if e.Kind == pack.Record {
			st.Records++
			st.RecordBytes += int64(e.Size)
		} else {
			st.Chunks++
			st.ChunkBytes += int64(e.Size)
		}
		return ctx.Err()
	})
	return st, err
}
