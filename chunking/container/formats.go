package container

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"strconv"
	"strings"

	"ferry/chunking/disk"
	"ferry/chunking/lz4"
)

// zipMembers finds the members of a zip, and of all that is one: jar, nupkg, whl,
// vsix, apk. PKWARE, APPNOTE.TXT 6.3.10.
func zipMembers(ctx context.Context, _ *splitter, r io.ReaderAt, size int64, _ place) ([]member, error) {
	zr, err := zip.NewReader(&boundedReader{r: r, left: maxDirectory}, size)
	if err != nil {
		return nil, ctx.Err() // cut off, perhaps: no container that we know
	}
	if len(zr.File) > maxMembers {
		return nil, nil
	}
	var members []member
	for _, f := range zr.File {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		off, err := f.DataOffset()
		n := int64(f.CompressedSize64)
		if err != nil || n <= 0 || off < 0 || off > size || n > size-off {
			continue
		}
		m := member{off: off, size: n, name: f.Name, deflated: f.Method == zip.Deflate}
		m.opaque = f.Flags&1 != 0 || f.Method != zip.Deflate && f.Method != zip.Store
		members = append(members, m)
	}
	slices.SortStableFunc(members, func(a, b member) int { return cmp.Compare(a.off, b.off) })
	end := int64(0)
	for _, m := range members {
		if m.off < end {
			return nil, nil // members overlap
		}
		end = m.off + m.size
	}
	return members, nil
}

// maxDirectory bounds what is read of a zip's directory and headers, in bytes.
const maxDirectory = 256 << 20

// boundedReader fails when more is read than it should be.
type boundedReader struct {
	r    io.ReaderAt
	left int64
}

var errDirectory = errors.New("too large a directory")

func (b *boundedReader) ReadAt(p []byte, off int64) (int, error) {
	if b.left -= int64(len(p)); b.left < 0 {
		return 0, errDirectory
	}
	return b.r.ReadAt(p, off)
}

// gzipMembers finds the members of a gzip file. RFC 1952.
func gzipMembers(ctx context.Context, s *splitter, r io.ReaderAt, size int64, p place) ([]member, error) {
	begin := func(at int64) (int64, bool) {
		n, err := gzipHeader(io.NewSectionReader(r, at, size-at))
		return at + n, err == nil
	}
	end := func(at int64) (int64, error) { return at + 8, nil } // CRC-32 and size
	return s.streams(ctx, r, size, p, decodeDeflate, begin, end)
}

// xzMembers finds the streams of an xz file, between which there may be zeros. The .xz File
// Format 1.2.1, section 2.
func xzMembers(ctx context.Context, s *splitter, r io.ReaderAt, size int64, p place) ([]member, error) {
	begin := func(at int64) (int64, bool) { return at, true }
	end := func(at int64) (int64, error) { return skipZeros(ctx, r, at, size) }
	return s.streams(ctx, r, size, p, decodeXZ, begin, end)
}

// lz4Members finds the LZ4 frames, in the legacy format, that a file begins with: an initial file
// system of Linux is one.
func lz4Members(ctx context.Context, s *splitter, r io.ReaderAt, size int64, p place) ([]member, error) {
	begin := func(at int64) (int64, bool) {
		head := make([]byte, len(lz4.Magic))
		n, _ := r.ReadAt(head, at)
		return at, string(head[:n]) == lz4.Magic
	}
	end := func(at int64) (int64, error) { return at, nil }
	return s.streams(ctx, r, size, p, decodeLZ4, begin, end)
}

// streams takes coded streams apart that stand one behind the other: begin returns where the
// one begins whose header is at a place, and end what is behind one.
func (s *splitter) streams(ctx context.Context, r io.ReaderAt, size int64, p place, decode decoder, begin func(at int64) (int64, bool), end func(at int64) (int64, error)) ([]member, error) {
	var members []member
	for at := int64(0); at < size; {
		from, ok := begin(at)
		if !ok {
			break
		}
		n, err := s.coded(ctx, io.NewSectionReader(r, from, size-from), p.inside(""), decode)
		if err != nil {
			return nil, err
		}
		if n.reconstruction == nil {
			break
		}
		for _, inner := range n.inner {
			p.budget -= inner.size
		}
		members = append(members, member{off: from, size: n.size, done: true, node: n})
		if at, err = end(from + n.size); err != nil {
			return nil, err
		}
		if k := int64(len(members)); k > manyMembers && at < k*minMember {
			break // it is not worth the time
		}
	}
	return members, nil
}

// manyMembers is from where on the members of a gzip or xz must be of some size.
const manyMembers = 1000

var errNoGzip = errors.New("not gzip")

// gzipHeader returns how long the header is that r begins with.
func gzipHeader(r io.Reader) (int64, error) {
	br := bufio.NewReaderSize(r, 512)
	var head [10]byte
	if _, err := io.ReadFull(br, head[:]); err != nil {
		return 0, err
	}
	flags := head[3]
	if head[0] != 0x1f || head[1] != 0x8b || head[2] != 8 || flags&0xe0 != 0 {
		return 0, errNoGzip
	}
	n := int64(len(head))
	skip := func(m int) error {
		k, err := br.Discard(m)
		n += int64(k)
		return err
	}
	if flags&4 != 0 { // FEXTRA
		var size [2]byte
		if _, err := io.ReadFull(br, size[:]); err != nil {
			return 0, err
		}
		n += 2
		if err := skip(int(size[0]) | int(size[1])<<8); err != nil {
			return 0, err
		}
	}
	for _, flag := range []byte{8, 16} { // FNAME, FCOMMENT
		if flags&flag == 0 {
			continue
		}
		for c := byte(1); c != 0; n++ {
			var err error
			if c, err = br.ReadByte(); err != nil || n > maxName {
				return 0, errNoGzip
			}
		}
	}
	if flags&2 != 0 { // FHCRC
		return n, skip(2)
	}
	return n, nil
}

const arMagic = "!<arch>\n"

// arMembers finds the members of an ar file, such as a .deb. ar(5).
func arMembers(ctx context.Context, _ *splitter, r io.ReaderAt, size int64, _ place) ([]member, error) {
	var members []member
	for at := int64(len(arMagic)); at+arHeaderSize <= size && len(members) < maxMembers; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		name, n, ok, err := arHeader(r, at)
		if at += arHeaderSize; err != nil || !ok || n > size-at {
			return members, err
		}
		if n > 0 {
			members = append(members, member{off: at, size: n, name: name})
		}
		at += n + n&1
	}
	return members, nil
}

// isTar reports whether a file begins with a tar header: its checksum is right.
// POSIX.1-2017, pax, "ustar Interchange Format".
func isTar(head []byte) bool {
	if len(head) < 512 || head[0] == 0 {
		return false
	}
	field := bytes.Trim(head[148:156], " \x00")
	want, err := strconv.ParseUint(string(field), 8, 32)
	if err != nil {
		return false
	}
	sum := uint64(0)
	for i, b := range head[:512] {
		if i >= 148 && i < 156 {
			b = ' '
		}
		sum += uint64(b)
	}
	return sum == want
}

// tarMembers finds the members of a tar. What is sparse stays between them.
func tarMembers(ctx context.Context, _ *splitter, r io.ReaderAt, size int64, _ place) ([]member, error) {
	section := io.NewSectionReader(r, 0, size)
	source := &contextReader{ctx: ctx, r: section}
	tr := tar.NewReader(&seekingReader{source, section})
	var members []member
	for len(members) < maxMembers {
		h, err := tr.Next()
		if err != nil {
			return members, source.err
		}
		if h.Typeflag != tar.TypeReg || h.Size == 0 || Sparse(h) {
			continue
		}
		off, err := section.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		if n := len(members); h.Size > size-off || n > 0 && off < members[n-1].off+members[n-1].size {
			break
		}
		members = append(members, member{off: off, size: h.Size, name: strings.TrimPrefix(h.Name, "./")})
	}
	return members, nil
}

// seekingReader lets the tar reader skip members.
type seekingReader struct {
	io.Reader
	io.Seeker
}

// Sparse reports whether a member of a tar is stored as a map of pieces: GNU's old
// format by its type, the PAX formats by their records.
func Sparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// diskMembers finds the streams of a disk image: see package disk. What stands in one
// place is a member like any other, and may be a container itself.
func diskMembers(ctx context.Context, _ *splitter, r io.ReaderAt, size int64, at place) ([]member, error) {
	streams, err := disk.Split(ctx, r, size)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, nil // no image that we know; what reading says is kept apart
	}
	members, err := deletedDebs(ctx, r, streams)
	if err != nil {
		return nil, err
	}
	for _, s := range streams {
		if len(s.Ranges) == 0 {
			continue
		}
		if len(s.Ranges) == 1 {
			// What is left of deleted files may begin like a container, and is none.
			members = append(members, member{off: s.Ranges[0].Off, size: s.Ranges[0].Size, name: s.Name, opaque: disk.IsFree(s.Name)})
			continue
		}
		whole := &scattered{name: at.inside(s.Name).name}
		for _, g := range s.Ranges {
			n := node{size: g.Size, scattered: whole, off: whole.size}
			members = append(members, member{off: g.Off, size: g.Size, done: true, node: n})
			whole.size += g.Size
		}
	}
	slices.SortFunc(members, func(a, b member) int { return cmp.Compare(a.off, b.off) })
	end := int64(0)
	var all []member
	for _, m := range members {
		if m.off > end {
			all = append(all, zeros(end, m.off))
		}
		all = append(all, m)
		end = m.off + m.size
	}
	if end < size {
		all = append(all, zeros(end, size))
	}
	return all, nil
}

// deletedDebs takes whole Debian packages out of the streams of free blocks, where an upgrade
// leaves many: they are members, too. Streams may have no ranges then.
func deletedDebs(ctx context.Context, r io.ReaderAt, streams []disk.Stream) ([]member, error) {
	type run struct {
		disk.Range
		stream string
	}
	var free []run
	for _, s := range streams {
		if disk.IsFree(s.Name) {
			for _, g := range s.Ranges {
				free = append(free, run{g, s.Name})
			}
		}
	}
	slices.SortFunc(free, func(a, b run) int { return cmp.Compare(a.Off, b.Off) })
	var debs []member
	for i := 0; i < len(free); {
		g := free[i]
		for i++; i < len(free) && free[i].Off == g.Off+g.Size; i++ {
			g.Size += free[i].Size
		}
		found, err := debsIn(ctx, r, g.Range, g.stream)
		if err != nil {
			return nil, err
		}
		debs = append(debs, found...)
	}
	for i, s := range streams {
		if !disk.IsFree(s.Name) || len(debs) == 0 {
			continue
		}
		var left []disk.Range
		for _, g := range s.Ranges {
			k := sort.Search(len(debs), func(i int) bool { return debs[i].off+debs[i].size > g.Off })
			for ; k < len(debs) && debs[k].off < g.Off+g.Size; k++ {
				if n := debs[k].off - g.Off; n > 0 {
					left = append(left, disk.Range{Off: g.Off, Size: n})
				}
				end := debs[k].off + debs[k].size
				g.Off, g.Size = end, g.Off+g.Size-end
			}
			if g.Size > 0 {
				left = append(left, g)
			}
		}
		streams[i].Ranges = left
	}
	return debs, nil
}

// debsIn finds whole Debian packages at the starts of blocks in g, which begins in a stream of
// that name.
func debsIn(ctx context.Context, r io.ReaderAt, g disk.Range, stream string) ([]member, error) {
	const block, ahead = 1 << 10, 1 << 20 // the smallest block, and what is read at a time
	var debs []member
	buf := make([]byte, min(ahead, g.Size))
	for at, end := g.Off, g.Off+g.Size; at < end; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n, err := r.ReadAt(buf[:min(ahead, end-at)], at)
		if err != nil && !errors.Is(err, io.EOF) || n == 0 {
			return nil, err
		}
		next := at + int64(n)
		for i := 0; i < n; i += block {
			if !bytes.HasPrefix(buf[i:n], []byte(arMagic)) {
				continue
			}
			from := at + int64(i)
			size, err := debSize(io.NewSectionReader(r, from, end-from))
			if err != nil {
				return nil, err
			}
			if size > 0 {
				debs = append(debs, member{off: from, size: size, name: fmt.Sprintf("%s, package at %#x", stream, from)})
				next = from + (size+block-1)/block*block
				break
			}
		}
		at = next
	}
	return debs, nil
}

// debSize returns how long the Debian package is that r begins with; 0 if there is none, or
// not all of it. deb(5).
func debSize(r *io.SectionReader) (int64, error) {
	at := int64(len(arMagic))
	end := at
	for _, want := range []string{"debian-binary", "control.tar", "data.tar"} {
		name, size, ok, err := arHeader(r, at)
		if at += arHeaderSize; err != nil || !ok || !strings.HasPrefix(name, want) || size > r.Size()-at {
			return 0, err
		}
		end = at + size
		at = end + size&1
	}
	return end, nil
}

// arHeaderSize is that of what is before each member of an ar file.
const arHeaderSize = 60

// arHeader reads a header, if there is one: the name of the member behind it, and its size.
func arHeader(r io.ReaderAt, at int64) (name string, size int64, ok bool, err error) {
	var head [arHeaderSize]byte
	if n, err := r.ReadAt(head[:], at); n < len(head) {
		return "", 0, false, ignoreEnd(err)
	}
	size, err = strconv.ParseInt(strings.TrimRight(string(head[48:58]), " "), 10, 64)
	if head[58] != '`' || head[59] != '\n' || err != nil || size < 0 {
		return "", 0, false, nil
	}
	return strings.TrimRight(strings.TrimRight(string(head[:16]), " "), "/"), size, true, nil
}

// zeros returns the member that stands for zeros in [off, end).
func zeros(off, end int64) member {
	return member{off: off, size: end - off, done: true, node: node{size: end - off, zero: true}}
}
