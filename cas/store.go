package cas

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"strings"
	"sync"

	"ferry/cas/backend"
	"ferry/cas/index"
	"ferry/cas/pack"
)

// Names of objects and folders in a store.
const (
	configName = "config.json"
	packDir    = "packs/"
	indexDir   = "index/"
	doomedDir  = "doomed/"
	sinceDir   = "doomed-since/"
	sessionDir = "sessions/"
	pruneLease = "prune"
)

// formatVersion is what config.json says of stores that this package reads.
const formatVersion = "ferry.store/1"

// Config is what a store records once, at its creation.
type Config struct {
	// Format is the version of the store's formats.
	Format string `json:"format"`
	// Policy is recorded for the store's users, such as how they cut chunks.
	Policy json.RawMessage `json:"policy"`
}

// Store is an open store. Close it to end its session.
type Store struct {
	b       backend.Backend
	config  Config
	dec     *pack.Decoder
	frames  *cache[frameID, []byte]
	derived *derivedCache
	session string // name of this session's lease; empty when read without one
	release func()

	mu     sync.RWMutex
	tables map[string]*index.Table   // by object name
	doomed map[[32]byte]backend.Info // packs that a prune wants to delete
}

// Create makes a store in b that records policy. It returns an error matching
// backend.ErrExist when there is one already.
func Create(ctx context.Context, b backend.Backend, policy json.RawMessage) error {
	data, err := json.Marshal(Config{Format: formatVersion, Policy: policy})
	if err != nil {
		return err
	}
	data = append(data, '\n')
	return b.Put(ctx, configName, bytes.NewReader(data), int64(len(data)))
}

// Open opens the store in b and begins a session, which keeps prunes of other
// processes from deleting what it may need. It returns a [*NotFoundError] when
// there is no store, and ErrVersion when this program cannot read it.
func Open(ctx context.Context, b backend.Backend) (*Store, error) {
	s, err := openUnindexed(ctx, b)
	if err != nil {
		return nil, err
	}
	if err := s.refresh(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// openUnindexed opens a store without its index.
func openUnindexed(ctx context.Context, b backend.Backend) (*Store, error) {
	config, err := readConfig(ctx, b)
	if err != nil {
		return nil, err
	}
	s := &Store{b: b, config: config, dec: pack.NewDecoder(), frames: newFrameCache(), derived: newDerivedCache()}
	s.session, s.release, err = beginSession(ctx, b)
	if err != nil {
		return nil, err
	}
	return s, nil
}

func readConfig(ctx context.Context, b backend.Backend) (Config, error) {
	var c Config
	data, err := readObject(ctx, b, configName, 1<<20)
	if errors.Is(err, backend.ErrNotFound) {
		return c, &NotFoundError{What: "store", Name: b.URL()}
	}
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, &CorruptError{Object: configName, Off: -1, Reason: err.Error()}
	}
	if c.Format != formatVersion {
		return c, fmt.Errorf("%w: store %s has %q, this program reads %q", ErrVersion, b.URL(), c.Format, formatVersion)
	}
	return c, nil
}

// readObject reads a whole object of at most limit bytes.
func readObject(ctx context.Context, b backend.Backend, name string, limit int64) ([]byte, error) {
	r, err := b.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("object %s: %w", name, err)
	}
	if int64(len(data)) > limit {
		return nil, &CorruptError{Object: name, Off: limit, Reason: "longer than any such object"}
	}
	return data, nil
}

// beginSession takes a lease of a name of its own. A store that cannot be
// written to is read without one.
func beginSession(ctx context.Context, b backend.Backend) (name string, release func(), err error) {
	for try := 0; ; try++ {
		var id [8]byte
		rand.Read(id[:])
		name = sessionDir + hex.EncodeToString(id[:])
		release, err = b.Lease(ctx, name)
		switch {
		case err == nil:
			return name, release, nil
		case errors.Is(err, fs.ErrPermission) || isReadOnly(err):
			return "", func() {}, nil
		case !errors.Is(err, backend.ErrBusy) || try == 8:
			return "", nil, err
		}
	}
}

// Close ends the session.
func (s *Store) Close() error {
	s.release()
	if c, ok := s.b.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// Policy returns what Create recorded.
func (s *Store) Policy() json.RawMessage { return s.config.Policy }

// Backend returns where the store's objects are kept.
func (s *Store) Backend() backend.Backend { return s.b }

// refresh loads the lists of indexes and of doomed packs. Tables that are open
// already stay so.
func (s *Store) refresh(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	doomed := map[[32]byte]backend.Info{}
	err := s.b.List(ctx, doomedDir, func(info backend.Info) error {
		id, err := ParseHex(strings.TrimPrefix(info.Name, doomedDir))
		if err == nil { // else it is nobody's mark
			doomed[id] = info
		}
		return nil
	})
	if err != nil {
		return err
	}
	// A merge may delete a table before we come to it and after we missed the one
	// that replaces it: what is listed is right once it is listed twice.
	var listed, tables map[string]*index.Table
	for listed == nil || !maps.Equal(listed, tables) {
		listed, tables = tables, map[string]*index.Table{}
		err = s.b.List(ctx, indexDir, func(info backend.Info) error {
			t := cmp.Or(s.tables[info.Name], listed[info.Name])
			if t == nil {
				var err error
				t, err = s.openTable(ctx, info)
				if errors.Is(err, backend.ErrNotFound) {
					return nil // merged into another one meanwhile
				}
				if err != nil {
					return err
				}
			}
			tables[info.Name] = t
			return nil
		})
		if err != nil {
			return err
		}
	}
	s.tables, s.doomed = tables, doomed
	return nil
}

func (s *Store) openTable(ctx context.Context, info backend.Info) (*index.Table, error) {
	ctx = context.WithoutCancel(ctx) // the table outlives the call
	t, err := index.Open(info.Size, func(p []byte, off int64) error {
		return s.b.ReadAt(ctx, info.Name, p, off)
	})
	if errors.Is(err, index.ErrInvalid) {
		return nil, &CorruptError{Object: info.Name, Off: -1, Reason: err.Error() + " (run: ferry repair index)"}
	}
	return t, err
}

// isDoomed reports whether a prune wants to delete a pack.
func (s *Store) isDoomed(id [32]byte) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, doomed := s.doomed[id]
	return doomed
}

func packName(id [32]byte) string {
	h := Digest(id).Hex()
	return packDir + h[:2] + "/" + h
}

// locate finds where key stands: outside doomed packs if it can, then in any; in
// each case rather as it is than derived. The error is a [*NotFoundError] if it
// stands nowhere.
func (s *Store) locate(key Digest) (e index.Entry, doomed bool, err error) {
	e, found, err := s.find(key)
	if err == nil && found == nowhere {
		err = &NotFoundError{What: "chunk", Name: key.String()}
	}
	return e, found == inDoomed, err
}

// where says in what kind of pack a blob stands.
type where uint8

const (
	nowhere  where = iota
	inLive         // in one that stays
	inDoomed       // in such only that a prune is about to delete
)

// find is locate without an error for what stands nowhere.
func (s *Store) find(key Digest) (index.Entry, where, error) {
	e, found, err := s.lookup(key)
	if errors.Is(err, backend.ErrNotFound) { // a table was merged into another one
		if err := s.refresh(context.Background()); err != nil {
			return e, nowhere, err
		}
		e, found, err = s.lookup(key)
	}
	return e, found, err
}

func (s *Store) lookup(key Digest) (e index.Entry, found where, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	const none = 4
	rank := none
	for name, t := range s.tables {
		err := t.Find(key, func(_ int64, candidate index.Entry) bool {
			r := 0
			if candidate.Codec == pack.Derived {
				r = 1
			}
			if _, bad := s.doomed[candidate.Pack]; bad {
				r += 2
			}
			if r < rank {
				e, rank = candidate, r
			}
			return rank > 0
		})
		if errors.Is(err, index.ErrInvalid) {
			return e, nowhere, &CorruptError{Object: name, Off: -1, Key: key, Reason: err.Error() + " (run: ferry repair index)"}
		}
		if err != nil {
			return e, nowhere, err
		}
		if rank == 0 {
			break
		}
	}
	switch {
	case rank == none:
		return e, nowhere, nil
	case rank >= 2:
		return e, inDoomed, nil
	}
	return e, inLive, nil
}

// Has reports whether a chunk can be read. Chunks in packs that a prune is about
// to delete do not count.
func (s *Store) Has(key Digest) (bool, error) {
	_, found, err := s.find(key)
	return err == nil && found == inLive, err
}

// Size returns the plain length of a chunk in bytes, or a [*NotFoundError].
func (s *Store) Size(key Digest) (int64, error) {
	e, _, err := s.locate(key)
	return int64(e.Size), err
}

// Find returns the plain length of a chunk in bytes, if there is one of that key.
func (s *Store) Find(key Digest) (size int64, ok bool, err error) {
	e, found, err := s.find(key)
	return int64(e.Size), err == nil && found != nowhere, err
}

// Get returns a chunk, verified. The bytes are shared: do not change them.
// Errors are [*NotFoundError], [*CorruptError], or of the backend.
func (s *Store) Get(ctx context.Context, key Digest) ([]byte, error) {
	data, e, err := s.get(ctx, key)
	if err == nil && e.Kind != pack.Chunk { // then readBlob has not hashed it
		return nil, &CorruptError{Object: packName(e.Pack), Off: e.Frame, Key: key, Reason: "the index does not call it a chunk"}
	}
	return data, err
}

// get returns a blob and where it stands. Only chunks are verified.
func (s *Store) get(ctx context.Context, key Digest) ([]byte, index.Entry, error) {
	e, _, err := s.locate(key)
	if err != nil {
		return nil, e, err
	}
	data, err := s.readBlob(ctx, e)
	if !errors.Is(err, backend.ErrNotFound) {
		return data, e, err
	}
	// A prune moved the chunk to another pack since we looked.
	if err := s.refresh(ctx); err != nil {
		return nil, e, err
	}
	e, _, err = s.locate(key)
	if err != nil {
		return nil, e, err
	}
	data, err = s.readBlob(ctx, e)
	if errors.Is(err, backend.ErrNotFound) {
		return nil, e, &CorruptError{Object: packName(e.Pack), Off: -1, Key: key, Reason: "the pack is missing"}
	}
	return data, e, err
}

// readBlob reads the blob at e, and verifies it if e says that it is a chunk.
func (s *Store) readBlob(ctx context.Context, e index.Entry) ([]byte, error) {
	data, err := s.frameBlob(ctx, e)
	if err != nil {
		return nil, err
	}
	if e.Kind == pack.Chunk && Sum(data) != e.Key {
		return nil, &CorruptError{Object: packName(e.Pack), Off: e.Frame, Key: e.Key, Reason: "bytes do not hash to their key"}
	}
	return data, nil
}

// frameBlob reads the blob at e.
func (s *Store) frameBlob(ctx context.Context, e index.Entry) ([]byte, error) {
	if e.Codec == pack.Derived {
		return s.derivedBlob(ctx, e)
	}
	frame, err := s.frames.get(frameID{e.Pack, e.Frame}, func() ([]byte, error) { return s.readFrame(ctx, e) })
	if err != nil {
		return nil, err
	}
	if e.Off+e.Size > len(frame) {
		return nil, &CorruptError{Object: packName(e.Pack), Off: e.Frame, Key: e.Key, Reason: "lies outside its frame"}
	}
	return frame[e.Off : e.Off+e.Size : e.Off+e.Size], nil
}

func (s *Store) readFrame(ctx context.Context, e index.Entry) ([]byte, error) {
	body, err := s.readBody(ctx, e)
	if err != nil {
		return nil, err
	}
	plain, err := s.dec.Decode(e.Codec, body)
	if err != nil {
		return nil, &CorruptError{Object: packName(e.Pack), Off: e.Frame, Key: e.Key, Reason: err.Error()}
	}
	return plain, nil
}

// readBody reads the coded bytes of the frame that e is in.
func (s *Store) readBody(ctx context.Context, e index.Entry) ([]byte, error) {
	body := make([]byte, e.Stored)
	err := s.b.ReadAt(ctx, packName(e.Pack), body, e.Frame)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = &CorruptError{Object: packName(e.Pack), Off: e.Frame, Key: e.Key, Reason: "the pack is truncated"}
	}
	return body, err
}
