package cas

import (
	"context"
	"errors"
	"sync"

	"github.com/zeebo/blake3"
)

// Records are small blobs that are found under a name instead of their own
// digest, such as the recipe of the file with a given digest. Their key is
// derived from the name, and their bytes end in a checksum over name and body,
// so they verify as strictly as chunks do.

// recordContext separates the keys of records from digests of content
// (BLAKE3 specification, section 2.3: derive_key).
const recordContext = "ferry.store 2026 record name to key v1"

// MaxRecord bounds the body of a record in bytes.
const MaxRecord = 1 << 20

// recordHashers are derive_key hashers that have taken recordContext in.
var recordHashers = sync.Pool{New: func() any { return blake3.NewDeriveKey(recordContext) }}

func recordKey(name Digest) (key Digest) {
	h := recordHashers.Get().(*blake3.Hasher)
	defer recordHashers.Put(h)
	h.Reset() // keeps the context
	h.Write(name[:])
	h.Sum(key[:0])
	return key
}

func sealRecord(name Digest, body []byte) []byte {
	sum := recordSum(name, body)
	return append(body[:len(body):len(body)], sum[:]...)
}

func recordSum(name Digest, body []byte) Digest {
	h := NewHasher()
	h.Write(name[:])
	h.Write(body)
	return h.Digest()
}

// Record returns the body of the record of that name, verified. The bytes are
// shared: do not change them. Errors are as for Get.
func (s *Store) Record(ctx context.Context, name Digest) ([]byte, error) {
	key := recordKey(name)
	data, _, err := s.get(ctx, key)
	if errors.Is(err, ErrNotFound) {
		return nil, &NotFoundError{What: "record", Name: name.String()}
	}
	if err != nil {
		return nil, err
	}
	n := len(data) - DigestSize
	if n < 0 || recordSum(name, data[:n]) != Digest(data[n:]) {
		return nil, &CorruptError{Object: "record " + name.Short(), Off: -1, Key: key, Reason: "does not match its checksum"}
	}
	return data[:n:n], nil
}

// HasRecord reports whether there is a record of that name, as Has does.
func (s *Store) HasRecord(name Digest) (bool, error) { return s.Has(recordKey(name)) }
