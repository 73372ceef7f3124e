package delta

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"ferry/cas"
	"ferry/delta/codec"
	"ferry/manifest"
)

// A delta does not carry the whole manifest of its target: of a file that stands
// in every base just as it does in the target, it has the first bytes of the
// digest, which tell a wrong file. The rest follows from the base, and the id of the
// manifest, which the delta carries, tells whether all came out right.
const (
	targetMagic   = "FRYT"
	targetVersion = 2 // 1 is written where it can say all
	shortSize     = 4
)

// frontSize is how many bytes of a digest a delta carries of a file that it makes, and
// older ones of a source.
const frontSize = 8

// shortened returns a digest that has only its first n bytes.
func shortened(d cas.Digest, n int) (s cas.Digest) {
	copy(s[:], d[:n])
	return s
}

// isShort reports whether only the first bytes of a digest are there.
func isShort(d cas.Digest) bool { return d == shortened(d, frontSize) && !d.IsZero() || isTiny(d) }

// agrees reports whether have is the digest want, as far as want is there.
func agrees(have, want cas.Digest) bool {
	if !isShort(want) {
		return have == want
	}
	if isTiny(want) {
		return have[0] == want[0]
	}
	n := frontSize
	if want == shortened(want, shortSize) {
		n = shortSize
	}
	return shortened(have, n) == want
}

// Flags of an entry in a coded target.
const (
	flagType   = 3 // 0 a file, 1 a folder, 2 a link
	flagExec   = 4
	flagShort  = 8
	flagFront  = 16
	flagListed = 32
)

// encodeTarget returns the coded entries, in columns, and the files without names.
// Paths that are listed, which is sorted, are not said again. keep says how many bytes of a file's digest are kept, shortSize, frontSize or all.
func encodeTarget(m *manifest.Manifest, others *unnamed, listed []string, keep func(i int) int, effort codec.Effort) []byte {
	var flags, paths, times, sizes, shorts, digests, links, skips []byte
	next := 0 // of those listed
	path, mtime := "", int64(0)
	version := byte(1)
	if others.n > 0 {
		version = 2
	}
	for i, e := range m.Entries {
		flag := byte(0)
		switch e.Type {
		case manifest.TypeDir:
			flag = 1
		case manifest.TypeLink:
			flag = 2
		}
		if e.Exec {
			flag |= flagExec
		}
		if at, ok := slices.BinarySearch(listed, e.Path); ok {
			flag |= flagListed
			version = 2
			skips = binary.AppendUvarint(skips, uint64(at-next))
			next = at + 1
		} else {
			n := commonFront(path, e.Path)
			paths = appendString(binary.AppendUvarint(paths, uint64(n)), e.Path[n:])
		}
		path = e.Path
		switch e.Type {
		case manifest.TypeFile:
			times = binary.AppendVarint(times, e.ModTime-mtime)
			mtime = e.ModTime
			sizes = binary.AppendUvarint(sizes, uint64(e.Size))
			n := keep(i)
			switch {
			case e.Size == 0:
			case n == shortSize && !shortened(e.Digest, n).IsZero():
				flag |= flagShort
				shorts = append(shorts, e.Digest[:n]...)
			case n == frontSize && shortened(e.Digest, n) != shortened(e.Digest, shortSize):
				flag |= flagFront
				version = 2
				shorts = append(shorts, e.Digest[:n]...)
			default:
				digests = append(digests, e.Digest[:]...)
			}
		case manifest.TypeLink:
			links = appendString(links, e.Link)
		}
		flags = append(flags, flag)
	}
	out := append([]byte(targetMagic), version)
	out = binary.AppendUvarint(out, uint64(len(m.Entries)))
	columns := [][]byte{flags, paths, times, sizes, shorts, digests, links}
	if version > 1 {
		columns = append(append(columns, skips), others.columns()...)
	}
	for _, column := range columns {
		out = appendColumn(out, column, effort)
	}
	return out
}

// maxEntries bounds the entries of a target: each takes about 100 bytes of memory.
const maxEntries = 1 << 22

// columnPart is the length in bytes of a coded part of a column.
const columnPart = 8 << 20

// appendColumn codes bytes, in parts that the codec takes.
func appendColumn(out, column []byte, effort codec.Effort) []byte {
	for first := true; first || len(column) > 0; first = false {
		part := column[:min(len(column), columnPart)]
		column = column[len(part):]
		more := byte(0)
		if len(column) > 0 {
			more = 1
		}
		coded, kind := codec.Encode(nil, part, nil, effort)
		out = append(out, more, byte(kind))
		out = appendNumbers(out, uint64(len(part)), uint64(len(coded)))
		out = append(out, coded...)
	}
	return out
}

// decodeTarget parses what encodeTarget gives, with the same paths listed. Errors match
// ErrInvalid.
func decodeTarget(data []byte, listed []string) (*manifest.Manifest, *unnamed, error) {
	d := &planReader{b: data, what: manifestName}
	version := d.header(targetMagic, targetVersion)
	n := int(d.upTo(maxEntries))
	columns := make([]planReader, 13)
	said := len(columns)
	if version == 1 {
		said = 7 // the others are empty
	}
	for i := range columns[:said] {
		columns[i] = planReader{b: d.column(), what: manifestName}
	}
	if d.err == nil && len(d.b) > 0 {
		d.fail("more bytes behind its end")
	}
	if d.err == nil && (n != len(columns[0].b) || n > len(columns[1].b)/2+len(columns[7].b)) {
		d.fail("flags or paths are not of its entries")
	}
	if d.err != nil {
		return nil, nil, d.err
	}
	others := &unnamed{marks: make([][]mark, n+1)}
	if version > 1 {
		others = takeUnnamed(columns[8:], n)
	}
	flags, paths, times, sizes, shorts, digests, links, skips := &columns[0], &columns[1], &columns[2], &columns[3], &columns[4], &columns[5], &columns[6], &columns[7]
	entries := make([]manifest.Entry, 0, n)
	path, mtime := "", int64(0)
	for range n {
		flag := flags.byte()
		var e manifest.Entry
		if flag&flagListed != 0 && version > 1 {
			at := int(skips.upTo(uint64(len(listed))))
			if at >= len(listed) {
				skips.fail("more files than delta.json lists")
				break
			}
			e.Path, listed = listed[at], listed[at+1:]
		} else {
			shared := int(paths.upTo(uint64(len(path))))
			e.Path = path[:shared] + paths.string(maxPlanPath)
		}
		path = e.Path
		switch flag & flagType {
		case 0:
			e.Type, e.Exec = manifest.TypeFile, flag&flagExec != 0
			mtime += times.varint()
			e.ModTime, e.Size = mtime, sizes.size()
			switch {
			case e.Size == 0:
				e.Digest = emptyDigest
			case flag&flagShort != 0:
				copy(e.Digest[:], shorts.bytes(shortSize))
			case flag&flagFront != 0 && version > 1:
				copy(e.Digest[:], shorts.bytes(frontSize))
			default:
				e.Digest = digests.digest()
			}
		case 1:
			e.Type = manifest.TypeDir
		default:
			e.Type, e.Link = manifest.TypeLink, links.string(maxPlanPath)
		}
		if paths.err != nil {
			break
		}
		entries = append(entries, e)
	}
	for i := range columns {
		if columns[i].err == nil && len(columns[i].b) > 0 {
			columns[i].fail("a column is too long")
		}
		if columns[i].err != nil {
			return nil, nil, columns[i].err
		}
	}
	for i := 1; i < len(entries); i++ {
		if entries[i-1].Path >= entries[i].Path {
			return nil, nil, fmt.Errorf("%w: %s: entries are not sorted", ErrInvalid, manifestName)
		}
	}
	m, err := manifest.New(entries)
	if err == nil {
		err = m.Stateless()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %s: %w", ErrInvalid, manifestName, err)
	}
	return m, others, nil
}

// column reads the parts of a column.
func (d *planReader) column() []byte {
	var plain []byte
	for more := byte(1); more != 0 && d.err == nil; {
		more = d.byte()
		kind := codec.Kind(d.byte())
		size, coded := int(d.upTo(columnPart)), int(d.upTo(uint64(len(d.b))))
		data := d.bytes(coded)
		if d.err != nil {
			break
		}
		if len(plain) > maxPlan {
			d.fail("column too long")
			break
		}
		var err error
		if plain, err = codec.Decode(plain, data, nil, kind, size); err != nil {
			d.fail(err.Error())
		}
	}
	return plain
}

// Complete returns the target's whole manifest, given what digests its files have
// in a tree that may be the target. Where the tree has another file, the digest stays
// short, and whole is false; it is also false if the result is not the manifest that the
// delta names.
func (d *Delta) Complete(ctx context.Context, digest func(ctx context.Context, e manifest.Entry) (cas.Digest, error)) (m *manifest.Manifest, whole bool, err error) {
	m, whole, err = d.complete(ctx, func(manifest.Entry) bool { return true }, digest)
	if err != nil {
		return nil, false, err
	}
	return m, whole && m.ID() == d.plan.target, ctx.Err()
}

// complete completes the digests of the files that are wanted, and says whether all of
// these agree.
func (d *Delta) complete(ctx context.Context, wanted func(e manifest.Entry) bool, digest func(ctx context.Context, e manifest.Entry) (cas.Digest, error)) (m *manifest.Manifest, agree bool, err error) {
	m = &manifest.Manifest{Entries: slices.Clone(d.Target.Entries)}
	var mu sync.Mutex
	var wg sync.WaitGroup
	agree = true
	next := 0
	take := func() *manifest.Entry {
		mu.Lock()
		defer mu.Unlock()
		for next < len(m.Entries) && err == nil {
			e := &m.Entries[next]
			next++
			if e.Type == manifest.TypeFile && isShort(e.Digest) && wanted(*e) {
				return e
			}
		}
		return nil
	}
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for e := take(); e != nil; e = take() {
				have, failed := digest(ctx, *e)
				mu.Lock()
				switch {
				case failed != nil && err == nil:
					err = failed
				case agrees(have, e.Digest):
					e.Digest = have
				default:
					agree = false
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return m, agree, err
}

// verify returns an error unless the files that were made complete m to the target's
// manifest.
func (d *Delta) verify(m *manifest.Manifest, made map[string]cas.Digest) error {
	m = &manifest.Manifest{Entries: slices.Clone(m.Entries)}
	for i, e := range m.Entries {
		if digest, ok := made[e.Path]; ok && isShort(e.Digest) {
			m.Entries[i].Digest = digest
		}
	}
	if m.ID() == d.plan.target {
		return nil
	}
	err := fmt.Errorf("%w: the files of the base and the delta's own do not make up manifest %s", ErrInvalid, d.plan.target)
	if d.told() {
		err = fmt.Errorf("%w; or some file of the base was changed, in a way that this delta does not see", err)
	}
	return err
}
