package cas

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"

	"ferry/cas/backend"
	"ferry/cas/index"
	"ferry/cas/pack"
)

// Sizes of what a transaction writes, chosen by measurement: docs/design.md,
// "Chunk and frame sizes". They are not part of the format.
const (
	frameTarget  = 1 << 20   // plain bytes that end a frame of chunks
	recordTarget = 256 << 10 // plain bytes that end a frame of records
	packTarget   = 32 << 20  // bytes that end a pack
	packsPerIdx  = 16        // packs after which an index is published
	framesAhead  = 24        // frames compressed while a pack is written and synced
)

// Tx adds chunks and records to a store. Nothing it adds counts until Commit
// has returned nil. A Tx is used by one goroutine; it compresses on all cores
// and gives the same packs on any number of them.
type Tx struct {
	s      *Store
	ctx    context.Context
	cancel context.CancelCauseFunc
	ended  bool

	chunks  openFrame
	records openFrame
	queue   chan *frameOut // in the order of the packs
	work    chan *frameOut
	wg      sync.WaitGroup
	added   Added

	mu      sync.Mutex
	pending map[Digest]struct{} // added, not yet in a published index
	exclude map[[32]byte]bool   // packs whose chunks do not count as present
	entries []index.Entry       // of packs not yet in a published index
	nPacks  int
}

// Added says what a transaction has written.
type Added struct {
	Chunks      int64 `json:"chunks"`       // chunks that were new
	Size        int64 `json:"size_bytes"`   // their plain bytes
	StoredBytes int64 `json:"stored_bytes"` // bytes of the packs that hold them
}

// openFrame gathers blobs for the next frame.
type openFrame struct {
	plain []byte
	blobs []pack.Blob
}

// frameOut is a frame on its way to a pack.
type frameOut struct {
	openFrame
	done  chan struct{}
	codec pack.Codec
	body  []byte
	err   error
}

// plainBuffers are the buffers of frames that were compressed.
var plainBuffers = sync.Pool{New: func() any {
	b := make([]byte, 0, frameTarget+frameTarget/4)
	return &b
}}

// Begin starts a transaction. End it with exactly one of Commit and Abort;
// Abort after Commit does nothing, so it can be deferred.
func (s *Store) Begin(ctx context.Context) *Tx { return s.begin(ctx, nil) }

func (s *Store) begin(ctx context.Context, exclude map[[32]byte]bool) *Tx {
	n := runtime.GOMAXPROCS(0)
	t := &Tx{
		s: s, pending: map[Digest]struct{}{}, exclude: exclude,
		queue: make(chan *frameOut, framesAhead), work: make(chan *frameOut, framesAhead),
	}
	t.ctx, t.cancel = context.WithCancelCause(ctx)
	for range n {
		t.wg.Add(1)
		go t.compress()
	}
	t.wg.Add(1)
	go t.write()
	return t
}

// Has reports whether a chunk is in the store or was added here.
func (t *Tx) Has(key Digest) (bool, error) {
	t.mu.Lock()
	_, ok := t.pending[key]
	t.mu.Unlock()
	if ok {
		return true, nil
	}
	if t.exclude == nil {
		return t.s.Has(key)
	}
	e, doomed, err := t.s.locate(key)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil && !doomed && !t.exclude[e.Pack], err
}

// HasRecord reports whether a record is in the store or was added here.
func (t *Tx) HasRecord(name Digest) (bool, error) { return t.Has(recordKey(name)) }

// Put adds a chunk unless it is there already, and reports whether it was new.
// key must be the digest of data; data is copied.
func (t *Tx) Put(key Digest, data []byte) (bool, error) {
	return t.put(&t.chunks, frameTarget, pack.Blob{Kind: pack.Chunk, Key: key, Size: len(data)}, data)
}

// PutRecord adds a record under name unless there is one already. The body is
// at most MaxRecord bytes, and copied.
func (t *Tx) PutRecord(name Digest, body []byte) error {
	if len(body) > MaxRecord {
		return fmt.Errorf("record %s: %d bytes, at most %d", name.Short(), len(body), MaxRecord)
	}
	sealed := sealRecord(name, body)
	_, err := t.put(&t.records, recordTarget, pack.Blob{Kind: pack.Record, Key: recordKey(name), Size: len(sealed)}, sealed)
	return err
}

func (t *Tx) put(f *openFrame, target int, blob pack.Blob, data []byte) (bool, error) {
	if t.ended {
		return false, ErrClosed
	}
	if len(data) == 0 || len(data) > pack.MaxFrame/2 {
		return false, fmt.Errorf("chunk %s: %d bytes, want 1 to %d", Digest(blob.Key).Short(), len(data), pack.MaxFrame/2)
	}
	has, err := t.Has(blob.Key)
	if has || err != nil {
		return false, err
	}
	t.mu.Lock()
	t.pending[blob.Key] = struct{}{}
	t.mu.Unlock()
	if blob.Kind == pack.Chunk {
		t.added.Chunks++
		t.added.Size += int64(len(data))
	}
	f.plain = append(f.plain, data...)
	f.blobs = append(f.blobs, blob)
	if len(f.plain) < target {
		return true, nil
	}
	return true, t.flush(f)
}

// flush sends a gathered frame to be compressed and written.
func (t *Tx) flush(f *openFrame) error {
	if len(f.blobs) == 0 {
		return nil
	}
	out := &frameOut{openFrame: *f, done: make(chan struct{})}
	*f = openFrame{plain: (*plainBuffers.Get().(*[]byte))[:0]}
	for _, ch := range []chan *frameOut{t.queue, t.work} {
		select {
		case ch <- out:
		case <-t.ctx.Done():
			return context.Cause(t.ctx)
		}
	}
	return nil
}

// compress codes frames, and decodes each again before it is let out.
func (t *Tx) compress() {
	defer t.wg.Done()
	enc := pack.NewEncoder()
	for out := range t.work {
		out.body, out.codec = enc.Encode(nil, out.plain)
		back, err := t.s.dec.Decode(out.codec, out.body)
		if err == nil && !bytes.Equal(back, out.plain) {
			err = errors.New("frame decodes to other bytes: is this machine's memory sound?")
		}
		out.err = err
		plain := out.plain
		out.plain = nil
		plainBuffers.Put(&plain)
		close(out.done)
	}
}

// write puts the frames into packs, in order.
func (t *Tx) write() {
	defer t.wg.Done()
	var b pack.Builder
	for out := range t.queue {
		select {
		case <-out.done:
		case <-t.ctx.Done():
			return
		}
		if out.err != nil {
			t.cancel(out.err)
			return
		}
		b.Add(pack.Frame{Codec: out.codec, Blobs: out.blobs}, out.body)
		if b.Size() >= packTarget {
			if err := t.putPack(&b); err != nil {
				t.cancel(err)
				return
			}
		}
	}
	if b.Size() > 0 {
		if err := t.putPack(&b); err != nil {
			t.cancel(err)
		}
	}
}

func (t *Tx) putPack(b *pack.Builder) error {
	data, id, frames := b.Finish()
	for variant := byte(1); ; variant++ {
		ok, err := t.tryPack(data, id)
		if err != nil {
			return err
		}
		if ok {
			break
		}
		data, id, frames = pack.Vary(data, frames, variant)
	}
	t.added.StoredBytes += int64(len(data)) // read only after wg.Wait
	t.entries = slices.AppendSeq(t.entries, index.Entries(id, frames))
	t.nPacks++
	if t.nPacks%packsPerIdx == 0 {
		return t.putIndex(t.ctx)
	}
	return nil
}

// tryPack writes a pack, and reports whether it may be built on. A pack of a
// doomed name may be deleted at any time, and one that stands already may be
// damaged: what it was to hold then goes into a pack of another name.
func (t *Tx) tryPack(data []byte, id [32]byte) (bool, error) {
	if t.s.isDoomed(id) {
		return false, nil
	}
	err := t.s.b.Put(t.ctx, packName(id), bytes.NewReader(data), int64(len(data)))
	if !errors.Is(err, backend.ErrExist) {
		return err == nil, err
	}
	r, err := t.s.b.Open(t.ctx, packName(id))
	if errors.Is(err, backend.ErrNotFound) {
		return t.tryPack(data, id) // deleted since
	}
	if err != nil {
		return false, err
	}
	defer r.Close()
	h := NewHasher()
	_, err = io.Copy(h, r)
	return h.Digest() == id, err
}

// putIndex publishes the entries of the packs written since the last time.
func (t *Tx) putIndex(ctx context.Context) error {
	if len(t.entries) == 0 {
		return nil
	}
	if err := t.s.putIndex(ctx, t.entries); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.entries {
		delete(t.pending, e.Key)
	}
	t.entries = nil
	return nil
}

// putIndex publishes an index of entries and opens it.
func (s *Store) putIndex(ctx context.Context, entries []index.Entry) error {
	data := index.Build(entries)
	info := backend.Info{Name: indexDir + Sum(data).Hex(), Size: int64(len(data))}
	var table *index.Table
	for table == nil {
		err := s.b.Put(ctx, info.Name, bytes.NewReader(data), info.Size)
		if err != nil && !errors.Is(err, backend.ErrExist) {
			return err
		}
		// One that stood already may be gone again: merged into another.
		table, err = s.openTable(ctx, info)
		if err != nil && !errors.Is(err, backend.ErrNotFound) {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tables[info.Name] = table
	return nil
}

// Commit makes all that was added durable and visible, and returns what it was.
func (t *Tx) Commit() (Added, error) {
	if err := t.finish(); err != nil {
		return Added{}, err
	}
	// Merging is housekeeping: where it fails, the next commit tries again.
	_ = t.s.mergeIndexes(context.WithoutCancel(t.ctx))
	return t.added, nil
}

// finish writes out all that was added.
func (t *Tx) finish() error {
	if t.ended {
		return ErrClosed
	}
	defer t.Abort()
	if err := errors.Join(t.flush(&t.chunks), t.flush(&t.records)); err != nil {
		return err
	}
	t.stop()
	if err := context.Cause(t.ctx); err != nil {
		return err
	}
	return t.putIndex(t.ctx)
}

func (t *Tx) stop() {
	t.ended = true
	close(t.queue)
	close(t.work)
	t.wg.Wait()
}

// Abort ends the transaction. Packs that were complete stay, with an index, so
// that doing it again does not compress them again; prune clears them if nobody
// does. After Commit it does nothing.
func (t *Tx) Abort() {
	if !t.ended {
		t.cancel(context.Canceled)
		t.stop()
		// A failure here costs only time: the packs are then not found again.
		_ = t.putIndex(context.WithoutCancel(t.ctx))
	}
	t.cancel(context.Canceled)
}
