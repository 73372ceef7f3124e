// Package deb tells what Debian package files are: from their control file, or from their
// names.
package deb

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"ferry/chunking/xz"
	"ferry/manifest/tree"
)

// Info is what a Debian package says of itself.
type Info struct{ Name, Version, Arch string }

// ErrInvalid says that a file is no Debian package.
var ErrInvalid = errors.New("invalid Debian package")

func invalidf(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...)
}

// decodeError tells what is wrong with a package from what is wrong with reading it.
func decodeError(what string, err error) error {
	var disk *fs.PathError
	if errors.As(err, &disk) || errors.Is(err, ErrInvalid) || errors.Is(err, context.Canceled) {
		return err
	}
	return invalidf("%s: %v", what, err)
}

// Named returns what the name of a package file tells: name_version_arch.deb. The colon behind
// an epoch is written %3a in it.
func Named(file string) (Info, bool) {
	file, ok := strings.CutSuffix(path.Base(file), ".deb")
	parts := strings.Split(file, "_")
	if !ok || len(parts) != 3 || slices.Contains(parts, "") {
		return Info{}, false
	}
	return Info{parts[0], strings.NewReplacer("%3a", ":", "%3A", ":").Replace(parts[1]), parts[2]}, true
}

// A Debian package is an ar archive (deb(5)): a magic, then members of a header of
// 60 bytes and data, padded to even offsets. The second member is a tar with the
// file "control".
const (
	arMagic    = "!<arch>\n"
	arHeader   = 60
	arSizeOff  = 48 // offset and length of the size, in decimal
	arSizeLen  = 10
	maxControl = 16 << 20 // bytes of the control tar, unpacked
)

// Read reads the control file of a package, which r begins with. Errors match
// [ErrInvalid] unless reading failed.
func Read(ctx context.Context, r io.Reader) (Info, error) {
	b := bufio.NewReader(tree.UntilDone(ctx, r))
	magic := make([]byte, len(arMagic))
	if _, err := io.ReadFull(b, magic); err != nil {
		return Info{}, decodeError("no ar archive", err)
	}
	if string(magic) != arMagic {
		return Info{}, invalidf("no ar archive")
	}
	for {
		header := make([]byte, arHeader)
		if _, err := io.ReadFull(b, header); err != nil {
			return Info{}, decodeError("no control file", err)
		}
		size, err := strconv.ParseInt(strings.TrimSpace(string(header[arSizeOff:arSizeOff+arSizeLen])), 10, 64)
		if err != nil || size < 0 || header[58] != '`' || header[59] != '\n' {
			return Info{}, invalidf("malformed member header")
		}
		name := strings.TrimRight(string(header[:16]), " /")
		if strings.HasPrefix(name, "control.tar") {
			return readControlTar(name, io.LimitReader(b, size))
		}
		if _, err := io.CopyN(io.Discard, b, size+size%2); err != nil {
			return Info{}, decodeError("no control file", err)
		}
	}
}

func readControlTar(name string, r io.Reader) (Info, error) {
	plain, err := controlReader(name, r)
	if err != nil {
		return Info{}, decodeError(name, err)
	}
	tr := tar.NewReader(io.LimitReader(plain, maxControl))
	for {
		h, err := tr.Next()
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return Info{}, decodeError(name, err)
		}
		if strings.TrimPrefix(h.Name, "./") != "control" {
			continue
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			return Info{}, decodeError(name, err)
		}
		return parseControl(data)
	}
}

func controlReader(name string, r io.Reader) (io.Reader, error) {
	switch strings.TrimPrefix(name, "control.tar") {
	case "":
		return r, nil
	case ".gz":
		return gzip.NewReader(r)
	case ".xz":
		return xz.NewReader(r), nil
	case ".zst":
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	default:
		return nil, invalidf("%s: unknown compression", name)
	}
}

// parseControl reads the fields that are of interest (deb-control(5)).
func parseControl(data []byte) (Info, error) {
	var info Info
	for line := range bytes.Lines(data) {
		key, value, _ := strings.Cut(strings.TrimRight(string(line), "\r\n"), ":")
		value = strings.TrimSpace(value)
		switch strings.ToLower(key) {
		case "package":
			info.Name = value
		case "version":
			info.Version = value
		case "architecture":
			info.Arch = value
		}
	}
	if info.Name == "" {
		return Info{}, invalidf("control file without Package")
	}
	return info, nil
}
