package guest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// A reader of bbolt databases that is safe with malformed ones (go.etcd.io/bbolt trusts
// its files). A file is pages of equal size; a page begins with u64 id, u16 flags, u16
// count, u32 overflow. A branch page has elements of u32 position, u32 key size, u64
// page; a leaf page, of u32 flags, u32 position, u32 key size, u32 value size;
// positions count from the element. A leaf with flag 1 is a bucket: u64 root page, u64
// sequence, and if the root is 0, a page of its own behind that (bbolt's page.go,
// bucket.go).
const (
	boltMagic   = 0xED0CDAED
	boltVersion = 2

	pageBranch = 0x01
	pageLeaf   = 0x02
	pageMeta   = 0x04

	pageHead   = 16
	maxBoltNew = 1 << 20 // elements read in all
	maxBoltUp  = 32      // branches above a leaf
	maxBoltKey = 32 << 10
)

var errBolt = errors.New("malformed database")

// boltDB is a database in memory.
type boltDB struct {
	data []byte
	page int // size in bytes
	left int // elements that may still be read, and bytes of keys and values
	more int64
}

// bucket is a bucket: a page of the database, or one within a leaf.
type bucket struct {
	db     *boltDB
	root   uint64
	inline []byte // of a small one
}

// openBolt returns the root bucket.
func openBolt(data []byte) (*bucket, error) {
	var best []byte
	db := &boltDB{data: data, left: maxBoltNew, more: 4*int64(len(data)) + 1<<20}
	for _, at := range metaPages(data) {
		meta := data[at+pageHead:]
		if binary.LittleEndian.Uint32(meta) != boltMagic || binary.LittleEndian.Uint32(meta[4:]) != boltVersion {
			continue
		}
		if best == nil || binary.LittleEndian.Uint64(meta[48:]) > binary.LittleEndian.Uint64(best[48:]) {
			best = meta
		}
	}
	if best == nil {
		return nil, fmt.Errorf("%w: no header", errBolt)
	}
	db.page = int(binary.LittleEndian.Uint32(best[8:]))
	if db.page < 512 || db.page > 1<<20 {
		return nil, fmt.Errorf("%w: pages of %d bytes", errBolt, db.page)
	}
	return &bucket{db: db, root: binary.LittleEndian.Uint64(best[16:])}, nil
}

// metaPages returns where the two headers may stand: the second is one page behind.
func metaPages(data []byte) (at []int) {
	const metaSize = 64
	for _, off := range []int{0, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536} {
		if off+pageHead+metaSize <= len(data) && binary.LittleEndian.Uint16(data[off+8:])&pageMeta != 0 {
			at = append(at, off)
		}
	}
	return at
}

// pageAt returns the bytes from a page on.
func (db *boltDB) pageAt(id uint64) ([]byte, error) {
	if id > uint64(len(db.data)/db.page) || int(id)*db.page+pageHead > len(db.data) {
		return nil, fmt.Errorf("%w: page %d", errBolt, id)
	}
	page := db.data[int(id)*db.page:]
	size := (uint64(binary.LittleEndian.Uint32(page[12:])) + 1) * uint64(db.page)
	return page[:min(size, uint64(len(page)))], nil
}

var errFound = errors.New("found")

// bucket returns the bucket of that name; an empty one if there is none.
func (b *bucket) bucket(name string) (*bucket, error) {
	found := &bucket{db: b.db, inline: make([]byte, pageHead)}
	binary.LittleEndian.PutUint16(found.inline[8:], pageLeaf)
	err := b.each(func(key string, inner *bucket, _ []byte) error {
		if key == name && inner != nil {
			found = inner
			return errFound
		}
		return nil
	})
	if errors.Is(err, errFound) {
		err = nil
	}
	return found, err
}

// each calls fn for each key, with the bucket or the value that it has.
func (b *bucket) each(fn func(key string, inner *bucket, value []byte) error) error {
	if b.inline != nil {
		return b.db.elements(b.inline, 0, fn)
	}
	return b.db.tree(b.root, 0, fn)
}

func (db *boltDB) tree(id uint64, depth int, fn func(string, *bucket, []byte) error) error {
	page, err := db.pageAt(id)
	if err != nil {
		return err
	}
	return db.elements(page, depth, fn)
}

func (db *boltDB) elements(page []byte, depth int, fn func(string, *bucket, []byte) error) error {
	if len(page) < pageHead || depth > maxBoltUp {
		return errBolt
	}
	flags, n := binary.LittleEndian.Uint16(page[8:]), int(binary.LittleEndian.Uint16(page[10:]))
	if db.left -= n; db.left < 0 || pageHead+16*n > len(page) {
		return errBolt
	}
	for i := range n {
		e := page[pageHead+16*i:]
		var err error
		switch {
		case flags&pageLeaf != 0:
			err = db.leaf(e, fn)
		case flags&pageBranch != 0:
			err = db.tree(binary.LittleEndian.Uint64(e[8:]), depth+1, fn)
		default:
			err = errBolt
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (db *boltDB) leaf(e []byte, fn func(string, *bucket, []byte) error) error {
	pos, key, value := uint64(binary.LittleEndian.Uint32(e[4:])), uint64(binary.LittleEndian.Uint32(e[8:])), uint64(binary.LittleEndian.Uint32(e[12:]))
	if db.more -= int64(key + value); key > maxBoltKey || db.more < 0 || pos+key+value > uint64(len(e)) {
		return errBolt
	}
	name, content := string(e[pos:pos+key]), e[pos+key:pos+key+value]
	if binary.LittleEndian.Uint32(e)&1 == 0 {
		return fn(name, nil, content)
	}
	if len(content) < 16 {
		return errBolt
	}
	inner := &bucket{db: db, root: binary.LittleEndian.Uint64(content)}
	if inner.root == 0 {
		inner.inline = bytes.Clone(content[16:])
	}
	return fn(name, inner, nil)
}
