package deflate

import "io"

// NewReader returns a reader of the plain bytes of the stream at the front of r. It may
// read further than the stream. Errors match [ErrStream], or come from r.
func NewReader(r io.Reader) io.Reader { return &reader{in: newInflater(r)} }

type reader struct {
	in    *inflater
	plain []byte // of the segment, not yet given
	err   error  // sticky
}

func (r *reader) Read(p []byte) (int, error) {
	for len(r.plain) == 0 && len(p) > 0 {
		if r.err != nil {
			return 0, r.err
		}
		var s segment
		if r.err = r.in.next(&s); r.err == nil {
			r.plain = s.plain
		}
	}
	n := copy(p, r.plain)
	r.plain = r.plain[n:]
	return n, nil
}
