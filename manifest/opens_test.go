package manifest

import (
	"io"
	"sync/atomic"
)

// opens counts, from any goroutine.
type opens struct{ n atomic.Int64 }

func (o *opens) add(n int64)  { o.n.Add(n) }
func (o *opens) count() int64 { return o.n.Load() }

// closeNoting notes when it is closed.
type closeNoting struct {
	io.Reader
	open *opens
}

func (r *closeNoting) Close() error {
	r.open.add(-1)
	return nil
}
