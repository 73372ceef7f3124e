package cas

import "io"

// Counter is told how far work has come. Its methods may be called concurrently.
type Counter interface {
	// Add counts n more bytes done.
	Add(n int64)
}

// CountWrites returns w, telling c of what goes through it; just w if c is nil.
func CountWrites(w io.Writer, c Counter) io.Writer {
	if c == nil {
		return w
	}
	return &countingWriter{w, c}
}

type countingWriter struct {
	w io.Writer
	c Counter
}

func (w *countingWriter) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	w.c.Add(int64(n))
	return n, err
}
