package tree

import (
	"archive/zip"
	"compress/bzip2"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/text/encoding/charmap"
)

// Compression methods of zip beyond those of archive/zip (APPNOTE 4.4.5).
const (
	methodBzip2 = 12
	methodZstd  = 93
)

const (
	extraUnicodePath = 0x7075 // APPNOTE 4.6.9
	flagEncrypted    = 0x1
	flagUTF8         = 0x800
	maxLinkTarget    = 16 << 10
)

// zipTree is a zip archive.
type zipTree struct {
	f     *os.File
	r     *zip.Reader
	files map[string]*zip.File
	nodes []Node // in the order of the central directory
	from  []*zip.File
}

func openZip(f *os.File, size int64) (Tree, error) {
	r, err := zip.NewReader(f, size)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	r.RegisterDecompressor(zip.Deflate, flate.NewReader)
	r.RegisterDecompressor(methodBzip2, func(r io.Reader) io.ReadCloser { return io.NopCloser(bzip2.NewReader(r)) })
	r.RegisterDecompressor(methodZstd, zstd.ZipDecompressor(zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20)))
	t := &zipTree{f: f, r: r, files: map[string]*zip.File{}}
	packed := uint64(0)
	for _, zf := range r.File {
		packed += zf.CompressedSize64
		if packed > uint64(size) || zf.CompressedSize64 > uint64(size) {
			return nil, fmt.Errorf("%w: entries overlap: they claim more bytes than the file has", ErrFormat)
		}
		if err := t.add(zf); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// add takes up an entry of the central directory.
func (t *zipTree) add(zf *zip.File) error {
	name := strings.ReplaceAll(entryName(zf), `\`, "/")
	isDir := strings.HasSuffix(name, "/")
	name = cleanName(name)
	if name == "" {
		return nil
	}
	if err := CheckPath(name); err != nil {
		return err
	}
	n := Node{Path: name, Kind: File, Size: int64(zf.UncompressedSize64), ModTime: zf.Modified.Unix(), Exec: zf.Mode()&0o111 != 0 && unixMade(zf)}
	switch {
	case zf.Flags&flagEncrypted != 0:
		return fmt.Errorf("%w: %s: encrypted entries are not read", ErrFormat, name)
	case zf.UncompressedSize64 > 1<<62:
		return fmt.Errorf("%w: %s: claims %d bytes", ErrFormat, name, zf.UncompressedSize64)
	case isDir || zf.Mode().IsDir():
		n = Node{Path: name, Kind: Dir}
	case zf.Mode()&fs.ModeSymlink != 0:
		target, err := readLink(zf)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		n = Node{Path: name, Kind: Link, Link: target}
	case !zf.Mode().IsRegular():
		n = Node{Path: name, Kind: Special}
	}
	if n.Kind == File {
		if t.files[name] != nil {
			return fmt.Errorf("%w: %s: stands twice in the archive", ErrFormat, name)
		}
		t.files[name] = zf
	}
	t.nodes, t.from = append(t.nodes, n), append(t.from, zf)
	return nil
}

// unixMade reports whether the entry's mode was written by a system that has
// execute bits (APPNOTE 4.4.2: 3 is Unix, 19 is OS X).
func unixMade(zf *zip.File) bool {
	made := zf.CreatorVersion >> 8
	return made == 3 || made == 19
}

// entryName returns the name in UTF-8: from the flag or the extra field that say
// so, else as it is when it reads as UTF-8, else from CP437 (APPNOTE appendix D).
func entryName(zf *zip.File) string {
	if name, ok := unicodePath(zf); ok && zf.Flags&flagUTF8 == 0 {
		return name
	}
	if !zf.NonUTF8 {
		return zf.Name
	}
	if utf8.ValidString(zf.Name) {
		return zf.Name
	}
	name, err := charmap.CodePage437.NewDecoder().String(zf.Name)
	if err != nil {
		return zf.Name
	}
	return name
}

// unicodePath reads the Unicode path extra field; it counts only when its CRC
// says that it belongs to the name.
func unicodePath(zf *zip.File) (string, bool) {
	extra := zf.Extra
	for len(extra) >= 4 {
		id, n := binary.LittleEndian.Uint16(extra), int(binary.LittleEndian.Uint16(extra[2:]))
		extra = extra[4:]
		if n > len(extra) {
			return "", false
		}
		field := extra[:n]
		extra = extra[n:]
		if id == extraUnicodePath && n > 5 && field[0] == 1 &&
			binary.LittleEndian.Uint32(field[1:]) == crc32.ChecksumIEEE([]byte(zf.Name)) && utf8.Valid(field[5:]) {
			return string(field[5:]), true
		}
	}
	return "", false
}

func readLink(zf *zip.File) (string, error) {
	r, err := openEntry(zf)
	if err != nil {
		return "", err
	}
	defer r.Close()
	target, err := io.ReadAll(io.LimitReader(r, maxLinkTarget+1))
	if err == nil && len(target) > maxLinkTarget {
		err = fmt.Errorf("%w: symbolic link of more than %d bytes", ErrFormat, maxLinkTarget)
	}
	return string(target), err
}

// openEntry opens an entry; reading fails when it holds other than the declared
// number of bytes, or other bytes than its CRC says.
func openEntry(zf *zip.File) (io.ReadCloser, error) {
	r, err := zf.Open()
	if errors.Is(err, zip.ErrAlgorithm) {
		return nil, fmt.Errorf("%w: %s: compression method %d is not read", ErrFormat, zf.Name, zf.Method)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrFormat, zf.Name, err)
	}
	return &entryReader{ReadCloser: r, name: zf.Name, left: int64(zf.UncompressedSize64)}, nil
}

type entryReader struct {
	io.ReadCloser
	name string
	left int64
}

func (r *entryReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.left -= int64(n)
	if r.left < 0 {
		return 0, fmt.Errorf("%w: %s: holds more bytes than it declares", ErrFormat, r.name)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: %s: %w", ErrFormat, r.name, err)
	}
	return n, err
}

func (t *zipTree) Format() string   { return formatZip }
func (t *zipTree) Sequential() bool { return false }
func (t *zipTree) Close() error     { return t.f.Close() }

func (t *zipTree) Walk(ctx context.Context, fn func(Node, func() (io.ReadCloser, error)) error) error {
	for i, n := range t.nodes {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := fn(n, func() (io.ReadCloser, error) { return openEntry(t.from[i]) }); err != nil {
			return err
		}
	}
	return nil
}

func (t *zipTree) find(path string) (*zip.File, error) {
	zf := t.files[path]
	if zf == nil {
		return nil, fmt.Errorf("%s: %w", path, fs.ErrNotExist)
	}
	return zf, nil
}

func (t *zipTree) Open(ctx context.Context, path string) (io.ReadCloser, error) {
	zf, err := t.find(path)
	if err != nil {
		return nil, err
	}
	return openEntry(zf)
}

func (t *zipTree) OpenAt(ctx context.Context, path string) (Content, error) {
	zf, err := t.find(path)
	if err != nil {
		return nil, err
	}
	if off, err := zf.DataOffset(); zf.Method == zip.Store && zf.CompressedSize64 == zf.UncompressedSize64 && err == nil {
		return &section{io.NewSectionReader(t.f, off, int64(zf.UncompressedSize64)), int64(zf.UncompressedSize64)}, nil
	}
	r, err := openEntry(zf)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return Spool(r, int64(zf.UncompressedSize64))
}
