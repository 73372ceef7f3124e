package bundle

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// debInfo is what a Debian package says of itself.
type debInfo struct{ name, version string }

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

// readDebian reads name and version of a package. Errors match ErrInvalid unless
// reading failed.
func readDebian(ctx context.Context, r io.Reader) (debInfo, error) {
	b := bufio.NewReader(&untilDone{ctx, r})
	magic := make([]byte, len(arMagic))
	if _, err := io.ReadFull(b, magic); err != nil || string(magic) != arMagic {
		return debInfo{}, invalidf("no Debian package")
	}
	for {
		header := make([]byte, arHeader)
		if _, err := io.ReadFull(b, header); err != nil {
			return debInfo{}, decodeError("Debian package without control file", err)
		}
		size, err := strconv.ParseInt(strings.TrimSpace(string(header[arSizeOff:arSizeOff+arSizeLen])), 10, 64)
		if err != nil || size < 0 || header[58] != '`' || header[59] != '\n' {
			return debInfo{}, invalidf("Debian package: malformed member header")
		}
		name := strings.TrimRight(string(header[:16]), " /")
		if strings.HasPrefix(name, "control.tar") {
			return readControlTar(name, io.LimitReader(b, size))
		}
		if _, err := io.CopyN(io.Discard, b, size+size%2); err != nil {
			return debInfo{}, decodeError("Debian package", err)
		}
	}
}

func readControlTar(name string, r io.Reader) (debInfo, error) {
	plain, err := controlReader(name, r)
	if err != nil {
		return debInfo{}, decodeError(name, err)
	}
	tr := tar.NewReader(io.LimitReader(plain, maxControl))
	for {
		h, err := tr.Next()
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return debInfo{}, decodeError(name, err)
		}
		if cleanName(h.Name) != "control" {
			continue
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			return debInfo{}, decodeError(name, err)
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
		return xz.NewReader(r)
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
func parseControl(data []byte) (debInfo, error) {
	var info debInfo
	for line := range bytes.Lines(data) {
		key, value, _ := strings.Cut(strings.TrimRight(string(line), "\r\n"), ":")
		switch strings.ToLower(key) {
		case "package":
			info.name = strings.TrimSpace(value)
		case "version":
			info.version = strings.TrimSpace(value)
		}
	}
	if info.name == "" {
		return debInfo{}, invalidf("control file without Package")
	}
	return info, nil
}
