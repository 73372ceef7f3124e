package coded

import (
	"bytes"
	"io"
	"runtime"
)

// Pipeline writes pieces of a file in order; streams among them are encoded on all
// cores. It is for one goroutine. Close it.
type Pipeline struct {
	w    io.Writer
	jobs []*job // in order; what was written since is behind the last
	held int64  // bytes of them
	err  error  // sticky
}

// job is a stream being encoded, and the bytes behind it.
type job struct {
	done   chan struct{}
	coded  bytes.Buffer
	err    error
	behind []byte
	held   int64
}

const (
	// heldStream is the size in plain bytes up to which a stream is held in memory while
	// it is encoded; larger ones are encoded as they come.
	heldStream = 16 << 20
	// heldBytes bounds what a Pipeline holds, and aheadJobs how many streams wait in it for a
	// core: who gives them has other work, too.
	heldBytes = 32 << 20
	aheadJobs = 8
)

// running are the streams held in memory that are being encoded: one a core, of all
// Pipelines.
var running = make(chan struct{}, runtime.GOMAXPROCS(0))

// NewPipeline returns a Pipeline into w.
func NewPipeline(w io.Writer) *Pipeline { return &Pipeline{w: w} }

// Write adds bytes.
func (p *Pipeline) Write(b []byte) (int, error) {
	if p.err != nil {
		return 0, p.err
	}
	if err := p.drainDone(); err != nil {
		return 0, err
	}
	if len(p.jobs) == 0 {
		return p.w.Write(b)
	}
	last := p.jobs[len(p.jobs)-1]
	last.behind = append(last.behind, b...)
	last.held += int64(len(b))
	p.held += int64(len(b))
	if err := p.drain(len(p.jobs), heldBytes); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Encode adds the stream of size bytes that the reconstruction makes of the plain
// bytes that write writes. Errors are those of Encode, from this call or a later one.
func (p *Pipeline) Encode(size, plain int64, reconstruction []byte, write func(io.Writer) error) error {
	if p.err != nil {
		return p.err
	}
	if plain > heldStream || size > heldStream {
		if err := p.drain(0, 0); err != nil {
			return err
		}
		p.err = encodeFrom(p.w, size, reconstruction, write)
		return p.err
	}
	var from bytes.Buffer
	if p.err = write(&limitedWriter{&from, plain}); p.err != nil {
		return p.err
	}
	j := &job{done: make(chan struct{}), held: size + plain}
	go func() {
		defer close(j.done)
		running <- struct{}{}
		defer func() { <-running }()
		limited := &limitedWriter{&j.coded, size}
		if j.err = Encode(limited, &from, reconstruction); j.err == nil {
			j.err = limited.ended()
		}
	}()
	p.jobs = append(p.jobs, j)
	p.held += j.held
	return p.drain(runtime.GOMAXPROCS(0)+aheadJobs, heldBytes)
}

// drainDone writes the oldest jobs out that need not be waited for.
func (p *Pipeline) drainDone() error {
	for p.err == nil && len(p.jobs) > 0 {
		select {
		case <-p.jobs[0].done:
			p.drain(len(p.jobs)-1, heldBytes)
		default:
			return nil
		}
	}
	return p.err
}

// drain writes the oldest jobs out until there are few enough, of few enough bytes.
func (p *Pipeline) drain(jobs int, held int64) error {
	for p.err == nil && len(p.jobs) > 0 && (len(p.jobs) > jobs || p.held > held) {
		j := p.jobs[0]
		p.jobs = p.jobs[1:]
		p.held -= j.held
		<-j.done
		if p.err = j.err; p.err != nil {
			break
		}
		if _, p.err = p.w.Write(j.coded.Bytes()); p.err == nil && len(j.behind) > 0 {
			_, p.err = p.w.Write(j.behind)
		}
	}
	return p.err
}

// Close writes out what is left, and waits for all that was begun.
func (p *Pipeline) Close() error {
	err := p.drain(0, 0)
	for _, j := range p.jobs {
		<-j.done
	}
	return err
}
