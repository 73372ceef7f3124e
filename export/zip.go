package export

import (
	"archive/zip"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"runtime"
	"time"

	"ferry/cas"
	"ferry/manifest"
)

const (
	// zipSmall is the size in bytes up to which an entry is compressed in memory,
	// several at once, and has its sizes in its local header. Larger ones are
	// compressed block by block, and have them behind their data.
	zipSmall = 4 << 20

	methodZstd     = 93
	versionDeflate = 20 // APPNOTE 4.4.3.2
	versionZip64   = 45
	versionZstd    = 63
	madeOnUnix     = 3 << 8 // APPNOTE 4.4.2
	flagUTF8       = 0x800
	flagDescriptor = 0x8
	extraTimestamp = 0x5455 // Info-ZIP's extended timestamp
	unixFile       = 0o100000
	unixLink       = 0o120000
	unixDir        = 0o040000
	msdosDir       = 0x10
	dosEpoch       = 315532800  // 1980-01-01
	dosEnd         = 4354819198 // 2107-12-31 23:59:58
	maxTimestamp   = math.MaxInt32
)

// zip writes entries sorted by path. Small files are compressed on all cores
// ahead of the writing, large ones in blocks.
func (x *exporter) zip(w io.Writer, m *manifest.Manifest) error {
	switch x.opts.Method {
	case MethodDeflate, MethodStore, MethodZstd:
	default:
		return fmt.Errorf("%w: %q", ErrMethod, x.opts.Method)
	}
	zw := zip.NewWriter(w)
	ctx, cancel := context.WithCancel(x.ctx)
	defer cancel()
	for job := range x.zipJobs(ctx, m) {
		<-job.ready
		err := job.err
		if err == nil {
			err = x.zipEntry(zw, job)
		}
		if err != nil {
			return err
		}
	}
	if err := x.ctx.Err(); err != nil {
		return err
	}
	return zw.Close()
}

// zipJob is an entry on its way into a zip.
type zipJob struct {
	e     manifest.Entry
	h     *zip.FileHeader
	data  []byte // compressed; of small files, links and directories
	small bool
	ready chan struct{}
	err   error
}

// zipJobs prepares entries ahead, in order.
func (x *exporter) zipJobs(ctx context.Context, m *manifest.Manifest) <-chan *zipJob {
	n := runtime.GOMAXPROCS(0)
	jobs := make(chan *zipJob, 4*n)
	slots := make(chan struct{}, n)
	go func() {
		defer close(jobs)
		for _, e := range m.Entries {
			job := &zipJob{e: e, h: x.zipHeader(e), small: e.Size <= zipSmall, ready: make(chan struct{})}
			select {
			case jobs <- job:
			case <-ctx.Done():
				return
			}
			if !job.small {
				close(job.ready)
				continue
			}
			slots <- struct{}{}
			go func() {
				defer func() { <-slots }()
				defer close(job.ready)
				job.err = x.compress(ctx, job)
			}()
		}
	}()
	return jobs
}

func (x *exporter) zipHeader(e manifest.Entry) *zip.FileHeader {
	h := &zip.FileHeader{Name: e.Path, Method: zip.Store, CreatorVersion: madeOnUnix | versionDeflate, ReaderVersion: versionDeflate}
	for i := range len(e.Path) {
		if e.Path[i] >= 0x80 {
			h.Flags |= flagUTF8
		}
	}
	mode := uint32(unixFile | 0o644)
	switch {
	case e.Type == manifest.TypeDir:
		h.Name += "/"
		mode = unixDir | 0o755
		h.ExternalAttrs = msdosDir
	case e.Type == manifest.TypeLink:
		mode = unixLink | 0o777
	case e.Exec:
		mode = unixFile | 0o755
	}
	h.ExternalAttrs |= mode << 16
	if e.Type == manifest.TypeFile && e.Size > 0 {
		switch x.opts.Method {
		case MethodDeflate:
			h.Method = zip.Deflate
		case MethodZstd:
			h.Method, h.ReaderVersion = methodZstd, versionZstd
		}
	}
	setTime(h, e.ModTime)
	return h
}

// setTime sets the DOS time, in UTC, which is all that old readers know, and the
// extended timestamp, which says it exactly.
func setTime(h *zip.FileHeader, seconds int64) {
	t := time.Unix(min(max(seconds, dosEpoch), dosEnd), 0).UTC()
	//lint:ignore SA1019 with CreateRaw these fields are what is written
	h.ModifiedDate = uint16(t.Day() + int(t.Month())<<5 + (t.Year()-1980)<<9)
	//lint:ignore SA1019 as above
	h.ModifiedTime = uint16(t.Second()/2 + t.Minute()<<5 + t.Hour()<<11)
	if seconds < 0 || seconds > maxTimestamp {
		return // the field has 32 bits
	}
	h.Extra = binary.LittleEndian.AppendUint16(nil, extraTimestamp)
	h.Extra = binary.LittleEndian.AppendUint16(h.Extra, 5)
	h.Extra = append(h.Extra, 1) // modification time only
	h.Extra = binary.LittleEndian.AppendUint32(h.Extra, uint32(seconds))
}

// compress prepares a small entry whole.
func (x *exporter) compress(ctx context.Context, job *zipJob) error {
	plain := []byte(job.e.Link)
	if job.e.Type == manifest.TypeFile {
		buf := &sliceBuffer{b: make([]byte, 0, job.e.Size)}
		if err := x.files.WriteFile(ctx, buf, job.e); err != nil {
			return err
		}
		plain = buf.b
	}
	job.h.CRC32 = crc32.ChecksumIEEE(plain)
	job.data = plain
	var err error
	switch job.h.Method {
	case zip.Deflate:
		c := deflateCoders.Get().(coder)
		job.data, err = c.code(plain, nil, true)
		deflateCoders.Put(c)
	case methodZstd:
		c := zstdCoders.Get().(coder)
		job.data, err = c.code(plain, nil, true)
		zstdCoders.Put(c)
	}
	if len(job.data) >= len(plain) {
		job.data, job.h.Method, job.h.ReaderVersion = plain, zip.Store, versionDeflate
	}
	setSizes(job.h, int64(len(job.data)), int64(len(plain)))
	return err
}

// setSizes sets both forms of the sizes, as zip.Writer.CreateRaw wants them.
func setSizes(h *zip.FileHeader, packed, plain int64) {
	h.CompressedSize64, h.UncompressedSize64 = uint64(packed), uint64(plain)
	//lint:ignore SA1019 the data descriptor is written from these fields
	h.CompressedSize = uint32(min(h.CompressedSize64, math.MaxUint32))
	//lint:ignore SA1019 as above
	h.UncompressedSize = uint32(min(h.UncompressedSize64, math.MaxUint32))
}

func (x *exporter) zipEntry(zw *zip.Writer, job *zipJob) error {
	if !job.small {
		return x.zipLarge(zw, job)
	}
	w, err := zw.CreateRaw(job.h)
	if err != nil {
		return fmt.Errorf("%s: %w", job.e.Path, err)
	}
	if _, err := w.Write(job.data); err != nil {
		return err
	}
	if job.e.Type == manifest.TypeFile {
		x.done(job.e)
		if x.opts.Place.Progress != nil {
			x.opts.Place.Progress.Add(job.e.Size)
		}
	}
	return nil
}

// zipLarge compresses an entry while it is read. Its sizes and CRC come in a
// data descriptor (APPNOTE 4.3.9), which the writer takes from the header when
// the next entry begins; the sizes set before say whether it needs 64 bits.
func (x *exporter) zipLarge(zw *zip.Writer, job *zipJob) error {
	h := job.h
	h.Flags |= flagDescriptor
	if job.e.Size > math.MaxUint32/2 {
		h.ReaderVersion = max(h.ReaderVersion, versionZip64)
	}
	raw, err := zw.CreateRaw(h)
	if err != nil {
		return fmt.Errorf("%s: %w", job.e.Path, err)
	}
	counted := &sizeWriter{w: raw}
	crc := crc32.NewIEEE()
	var packed io.Writer = counted
	var blocks *blockWriter
	switch h.Method {
	case zip.Deflate:
		blocks = newBlockWriter(x.ctx, counted, deflateBlock, deflateCoders)
	case methodZstd:
		blocks = newBlockWriter(x.ctx, counted, zstdBlock, zstdCoders)
	}
	if blocks != nil {
		packed = blocks
	}
	if err := x.files.WriteFile(x.ctx, cas.CountWrites(io.MultiWriter(packed, crc), x.opts.Place.Progress), job.e); err != nil {
		if blocks != nil {
			blocks.stop()
		}
		return err
	}
	if blocks != nil {
		if err := blocks.Close(); err != nil {
			return err
		}
	}
	h.CRC32 = crc.Sum32()
	setSizes(h, counted.n, job.e.Size)
	x.done(job.e)
	return nil
}

type sizeWriter struct {
	w io.Writer
	n int64
}

func (s *sizeWriter) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.n += int64(n)
	return n, err
}
