package export

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"ferry/cas/durable"
	"ferry/manifest"
	"ferry/manifest/place"
)

// Files gives the content of entries; both a manifest.Archive and a
// manifest.Scan do.
type Files interface {
	// WriteFile writes an entry's content, and fails unless it has its digest.
	WriteFile(ctx context.Context, w io.Writer, e manifest.Entry) error
}

// Format is a form in which a version can be exported.
type Format string

// The formats.
const (
	FormatZip     Format = "zip"
	FormatTar     Format = "tar"
	FormatTarGzip Format = "tar.gz"
	FormatTarZstd Format = "tar.zst"
	FormatDir     Format = "dir"
)

// FormatOf tells by its name what a target should be.
func FormatOf(target string) Format {
	name := strings.ToLower(filepath.Base(target))
	for _, f := range []struct {
		end    string
		format Format
	}{
		{".zip", FormatZip}, {".tar", FormatTar}, {".tar.gz", FormatTarGzip}, {".tgz", FormatTarGzip},
		{".tar.zst", FormatTarZstd}, {".tzst", FormatTarZstd},
	} {
		if strings.HasSuffix(name, f.end) {
			return f.format
		}
	}
	return FormatDir
}

// Method is how a zip compresses its entries.
type Method string

// The methods. Zstd needs a reader that knows method 93, such as 7-Zip.
const (
	MethodDeflate Method = "deflate"
	MethodStore   Method = "store"
	MethodZstd    Method = "zstd"
)

// Options say how to export.
type Options struct {
	// Method is that of a zip; empty means MethodDeflate.
	Method Method
	// Force replaces an archive that stands at the target.
	Force bool
	// Place holds what concerns directories, and progress for all formats.
	Place place.Options
}

// ErrMethod says that a method is unknown, or does not go with the format.
var ErrMethod = errors.New("unknown compression method")

// Export writes m to target in the given format. Errors are those of the files,
// [place.ErrExists] when something is in the way, and of the disk.
func Export(ctx context.Context, files Files, m *manifest.Manifest, target string, format Format, opts Options) (place.Stats, error) {
	if opts.Method == "" {
		opts.Method = MethodDeflate
	}
	if format != FormatZip && opts.Method != MethodDeflate {
		return place.Stats{}, fmt.Errorf("%w: only a zip has methods", ErrMethod)
	}
	if format == FormatDir {
		return place.Tree(ctx, target, m, func(ctx context.Context, e manifest.Entry, w io.Writer) error {
			return files.WriteFile(ctx, w, e)
		}, opts.Place)
	}
	return exportFile(ctx, files, m, target, format, opts)
}

func exportFile(ctx context.Context, files Files, m *manifest.Manifest, target string, format Format, opts Options) (stats place.Stats, err error) {
	if _, err := os.Lstat(target); err == nil && !opts.Force {
		return stats, fmt.Errorf("%s: %w; --force replaces it", target, place.ErrExists)
	}
	f, err := durable.Create(target)
	if err != nil {
		return stats, err
	}
	defer f.Abort()
	if err := f.Chmod(0o644); err != nil {
		return stats, err
	}
	x := &exporter{ctx: ctx, files: files, opts: opts}
	if err := x.write(f, m, format); err != nil {
		return stats, err
	}
	if opts.Force {
		return x.stats, f.Commit()
	}
	err = f.CommitNew()
	if errors.Is(err, os.ErrExist) {
		err = fmt.Errorf("%s: %w; --force replaces it", target, place.ErrExists) // since we looked
	}
	return x.stats, err
}

// exporter writes one archive.
type exporter struct {
	ctx   context.Context // of the one call that it lives for
	files Files
	opts  Options
	stats place.Stats
}

func (x *exporter) write(w io.Writer, m *manifest.Manifest, format Format) error {
	switch format {
	case FormatZip:
		return x.zip(w, m)
	case FormatTar:
		return x.tar(w, m)
	case FormatTarGzip:
		return x.packedTar(w, m, newGzip(x.ctx, w))
	case FormatTarZstd:
		return x.packedTar(w, m, newZstd(x.ctx, w))
	default:
		return fmt.Errorf("unknown export format %q", format)
	}
}

// done counts a file that was written.
func (x *exporter) done(e manifest.Entry) {
	x.stats.Files++
	x.stats.Size += e.Size
}
