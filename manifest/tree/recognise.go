package tree

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Formats, as Tree.Format names them.
const (
	formatFile    = "file"
	formatZip     = "zip"
	formatTar     = "tar"
	formatTarGzip = "tar.gz"
	formatTarZstd = "tar.zst"
	formatTarXz   = "tar.xz"
)

const tarBlock = 512

// recognise tells by its first bytes what a file is. A compressed file counts as
// an archive only when a tar is in it.
func recognise(f io.ReaderAt) (string, error) {
	head := make([]byte, tarBlock)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	head = head[:n]
	switch {
	case bytes.HasPrefix(head, []byte("PK\x03\x04")), bytes.HasPrefix(head, []byte("PK\x05\x06")):
		return formatZip, nil
	case isTar(head):
		return formatTar, nil
	}
	for format, magic := range map[string]string{
		formatTarGzip: "\x1f\x8b\x08", formatTarZstd: "\x28\xb5\x2f\xfd", formatTarXz: "\xfd7zXZ\x00",
	} {
		if bytes.HasPrefix(head, []byte(magic)) && holdsTar(f, format) {
			return format, nil
		}
	}
	return formatFile, nil
}

// isTar reports whether a block is a tar header: "ustar" at offset 257 (POSIX
// 1003.1, pax), with both POSIX's and GNU's ending.
func isTar(block []byte) bool {
	return len(block) == tarBlock && bytes.Equal(block[257:262], []byte("ustar"))
}

func holdsTar(f io.ReaderAt, format string) bool {
	r, err := decompress(io.NewSectionReader(f, 0, 1<<62), format)
	if err != nil {
		return false
	}
	defer r.Close()
	block := make([]byte, tarBlock)
	_, err = io.ReadFull(r, block)
	return err == nil && isTar(block)
}

// decompress returns the plain bytes of a compressed tar.
func decompress(src io.Reader, format string) (io.ReadCloser, error) {
	r := bufio.NewReaderSize(src, 256<<10) // xz reads a byte at a time
	switch format {
	case formatTarGzip:
		return gzip.NewReader(r)
	case formatTarZstd:
		d, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(128<<20), zstd.WithDecoderMaxMemory(256<<20))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	case formatTarXz:
		x, err := xz.NewReader(r)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(x), nil
	default:
		return nil, fmt.Errorf("%w: format %s", ErrFormat, format)
	}
}
