// Package backend keeps named immutable objects: the few operations that every
// place able to hold a store has in common.
//
// The one atomic primitive is [Backend.Put], which creates an object under a
// name that must be free: of many writers that race for a name, one wins.
package backend

import (
	"context"
	"errors"
	"io"
	"time"
)

var (
	// ErrNotFound says that there is no object of that name.
	ErrNotFound = errors.New("object not found")
	// ErrExist says that an object of that name stands already.
	ErrExist = errors.New("object already exists")
	// ErrBusy says that a lease is held by another process.
	ErrBusy = errors.New("lease is held by another process")
)

// Info describes an object.
type Info struct {
	Name    string
	Size    int64
	Created time.Time
}

// Backend is a flat set of objects. Names are slash-separated components of
// lower-case letters, digits and "!._+-". All methods are safe for concurrent use.
type Backend interface {
	// Put creates an object of exactly size bytes. It is visible whole and durable,
	// or not at all. It returns an error matching ErrExist when the name is taken.
	Put(ctx context.Context, name string, r io.Reader, size int64) error
	// ReadAt fills p with the bytes at off, or returns an error: ErrNotFound when
	// there is no such object, io.ErrUnexpectedEOF when it ends before.
	ReadAt(ctx context.Context, name string, p []byte, off int64) error
	// Open returns a reader of the whole object. The caller closes it.
	Open(ctx context.Context, name string) (io.ReadCloser, error)
	// Stat returns what is known of an object without reading it.
	Stat(ctx context.Context, name string) (Info, error)
	// List calls fn for every object whose name starts with prefix, which ends
	// in a slash or is empty, in no given order.
	List(ctx context.Context, prefix string, fn func(Info) error) error
	// Delete removes an object. Removing one that is not there is no error.
	Delete(ctx context.Context, name string) error
	// Lease takes the named lease for this process, or returns ErrBusy. It is
	// given back by release, or when the process dies.
	Lease(ctx context.Context, name string) (release func(), err error)
	// Leases lists the leases that are held now, with the time they were taken.
	Leases(ctx context.Context) ([]Info, error)
	// URL names the place, for people.
	URL() string
}
