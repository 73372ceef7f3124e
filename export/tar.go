package export

import (
	"archive/tar"
	"fmt"
	"io"
	"time"

	"ferry/cas"
	"ferry/manifest"
)

// tar writes a POSIX tar: ustar headers, PAX records only where needed.
func (x *exporter) tar(w io.Writer, m *manifest.Manifest) error {
	tw := tar.NewWriter(w)
	for _, e := range m.Entries {
		if err := x.ctx.Err(); err != nil {
			return err
		}
		if err := tw.WriteHeader(TarHeader(e)); err != nil {
			return fmt.Errorf("%s: %w", e.Path, err)
		}
		if e.Type != manifest.TypeFile {
			continue
		}
		if err := x.files.WriteFile(x.ctx, cas.CountWrites(tw, x.opts.Place.Progress), e); err != nil {
			return err
		}
		x.done(e)
	}
	return tw.Close()
}

// TarHeader returns the header of an entry in a tar.
func TarHeader(e manifest.Entry) *tar.Header {
	h := &tar.Header{Name: e.Path, ModTime: time.Unix(e.ModTime, 0), Mode: 0o644, Size: e.Size, Typeflag: tar.TypeReg}
	switch {
	case e.Type == manifest.TypeDir:
		h.Typeflag, h.Name, h.Mode = tar.TypeDir, e.Path+"/", 0o755
	case e.Type == manifest.TypeLink:
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, e.Link, 0o777
	case e.Exec:
		h.Mode = 0o755
	}
	return h
}

// packedTar writes a tar through a compressor.
func (x *exporter) packedTar(w io.Writer, m *manifest.Manifest, c io.WriteCloser) error {
	if err := x.tar(c, m); err != nil {
		c.Close() // ends its goroutines; the archive is thrown away
		return err
	}
	return c.Close()
}
