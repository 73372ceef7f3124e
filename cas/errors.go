package cas

import (
	"errors"
	"fmt"
)

var (
	// ErrNotFound says that the store has no such chunk, record or object.
	ErrNotFound = errors.New("not found")
	// ErrCorrupt says that stored bytes are not what they should be.
	ErrCorrupt = errors.New("stored data is damaged")
	// ErrLocked says that another process holds what is needed.
	ErrLocked = errors.New("locked by another process")
	// ErrVersion says that the store was made by a program of another format version.
	ErrVersion = errors.New("unknown format version")
	// ErrClosed says that a transaction has already ended.
	ErrClosed = errors.New("transaction has ended")
)

// CorruptError says where stored bytes are damaged. It matches [ErrCorrupt].
type CorruptError struct {
	Object string // name of the damaged object in the store
	Off    int64  // offset in the object in bytes, -1 when unknown
	Key    Digest // what was being read; zero when it was the object itself
	Reason string
}

func (e *CorruptError) Error() string {
	text := e.Object
	if e.Off >= 0 {
		text += fmt.Sprintf(" at offset %d", e.Off)
	}
	if !e.Key.IsZero() {
		text += ": chunk " + e.Key.Short()
	}
	return text + ": " + e.Reason
}

func (e *CorruptError) Unwrap() error { return ErrCorrupt }

// NotFoundError names what the store lacks. It matches [ErrNotFound].
type NotFoundError struct {
	What string // such as "chunk", "record", "store"
	Name string
}

func (e *NotFoundError) Error() string { return e.What + " " + e.Name + ": not found" }

func (e *NotFoundError) Unwrap() error { return ErrNotFound }
