package xz

import "io"

// NewReader returns a reader of the plain bytes of the stream at the front of r. It may
// read further than the stream. Errors are those of [Decode]; at the end, all sums of
// the stream were compared.
func NewReader(r io.Reader) io.Reader { return &reader{stream: newStream(r)} }

type reader struct {
	stream *stream
	err    error // sticky
}

func (r *reader) Read(p []byte) (int, error) {
	w := &r.stream.window
	for w.pos == len(w.buf) && len(p) > 0 {
		if r.err != nil {
			return 0, r.err
		}
		if _, r.err = r.stream.next(); r.err != nil {
			w.buf = w.buf[:w.pos] // bytes of a damaged chunk
		}
	}
	n := copy(p, w.buf[w.pos:])
	w.pos += n
	return n, nil
}
