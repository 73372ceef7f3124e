package bundle

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/klauspost/compress/gzip"

	"ferry/chunking/container"
	"ferry/manifest"
	"ferry/manifest/tree"
)

// span is a file of a tar, by where its bytes stand.
type span struct {
	name      string // canonical
	typ       manifest.Type
	off, size int64
	exec      bool
	mtime     int64
	link      string
}

// eachMember calls fn for the files, links and folders of a plain tar. Names that
// could lead outside, and kinds of members that have no place in a bundle, are
// errors.
func eachMember(ctx context.Context, r io.ReaderAt, size int64, fn func(span) error) error {
	section := io.NewSectionReader(r, 0, size)
	tr := tar.NewReader(section)
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return decodeError("tar", err)
		}
		if n == maxMembers {
			return invalidf("tar: more than %d members", maxMembers)
		}
		off, err := section.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		m, ok, err := member(h)
		if err != nil {
			return err
		}
		m.off = off
		if m.typ == manifest.TypeFile && (m.size < 0 || m.size > size-off) {
			return invalidf("tar: %s: cut off", m.name)
		}
		if ok {
			if err := fn(m); err != nil {
				return err
			}
		}
	}
}

// member translates a header; ok is false for what is no member, such as the
// root itself.
func member(h *tar.Header) (m span, ok bool, err error) {
	m = span{name: cleanName(h.Name), exec: h.Mode&0o111 != 0, mtime: h.ModTime.Unix()}
	if m.name == "" || h.Typeflag == tar.TypeXGlobalHeader {
		return m, false, nil
	}
	if err := tree.CheckPath(m.name); err != nil {
		return m, false, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont:
		if container.Sparse(h) {
			return m, false, invalidf("tar: %s: a sparse file has no place in a bundle", m.name)
		}
		m.typ, m.size = manifest.TypeFile, h.Size
	case tar.TypeDir:
		m.typ = manifest.TypeDir
	case tar.TypeSymlink:
		m.typ, m.link = manifest.TypeLink, h.Linkname
	case tar.TypeLink: // within image archives of docker
		m.typ, m.link = "hard link", h.Linkname
	default:
		return m, false, invalidf("tar: %s: a member of type %q has no place in a bundle", m.name, h.Typeflag)
	}
	return m, true, nil
}

// cleanName takes off what tars and zips put around names.
func cleanName(name string) string {
	name = strings.ReplaceAll(name, `\`, "/")
	for strings.HasPrefix(name, "./") {
		name = strings.TrimLeft(name[2:], "/")
	}
	name = strings.TrimRight(name, "/")
	if name == "." {
		return ""
	}
	return name
}

// checkLink refuses a symbolic link that leads out of the folder that path is
// relative to, or could on another system: a backslash separates folders there.
func checkLink(p, target string) error {
	to := path.Join(path.Dir(p), target)
	if target == "" || path.IsAbs(target) || to == ".." || strings.HasPrefix(to, "../") || strings.ContainsAny(target, `:\`) {
		return fmt.Errorf("%w: %w", ErrInvalid, &tree.UnsafePathError{Path: p, Reason: fmt.Sprintf("a symbolic link to %.100q leads outside", target)})
	}
	return nil
}

// isGzip reports whether r starts like gzip.
func isGzip(r io.ReaderAt) bool {
	var magic [2]byte
	_, err := r.ReadAt(magic[:], 0)
	return err == nil && magic == [2]byte{0x1f, 0x8b}
}

// unpack returns what a gzip file holds, at most limit bytes.
func unpack(ctx context.Context, r io.Reader, size, limit int64) (tree.Content, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, decodeError("gzip", err)
	}
	defer z.Close()
	return tree.Spool(&bounded{ctx: ctx, r: z, left: limit}, size)
}

// decodeError says that what a decoder found wrong is the bundle's fault, unless
// it is the disk that failed.
func decodeError(what string, err error) error {
	var disk *fs.PathError
	if errors.As(err, &disk) || errors.Is(err, ErrInvalid) || errors.Is(err, context.Canceled) {
		return err
	}
	return invalidf("%s: %v", what, err)
}

// bounded is a reader that fails beyond a limit, and when its context ends.
type bounded struct {
	ctx  context.Context // of the one call that it lives for
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, invalidf("gzip: unpacks to more than is allowed")
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = decodeError("gzip", err)
	}
	return n, err
}

// readSpan returns the bytes of a small file in an archive.
func readSpan(r io.ReaderAt, s span, limit int64) ([]byte, error) {
	if s.size > limit {
		return nil, invalidf("%s: %d bytes, at most %d", s.name, s.size, limit)
	}
	data := make([]byte, s.size)
	if n, err := r.ReadAt(data, s.off); int64(n) < s.size {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	return data, nil
}

// copyContext copies r to w until its end or that of ctx.
func copyContext(ctx context.Context, w io.Writer, r io.Reader) error {
	_, err := io.Copy(w, tree.UntilDone(ctx, r))
	return err
}
