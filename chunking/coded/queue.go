package coded

import (
	"errors"
	"io"
	"sync"
)

// queue holds bytes that were written and not yet sent on, up to a limit, above which
// writers wait.
type queue struct {
	mu     sync.Mutex
	change sync.Cond
	held   []byte
	ended  bool // nothing more will be written
	gone   bool // nobody sends what is written
}

// maxQueue is the limit in bytes.
const maxQueue = 8 << 20

var errGone = errors.New("nobody reads")

func newQueue() *queue {
	q := &queue{}
	q.change.L = &q.mu
	return q
}

func (q *queue) Write(p []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.held) > 0 && len(q.held)+len(p) > maxQueue && !q.gone {
		q.change.Wait()
	}
	if q.gone {
		return 0, errGone
	}
	q.held = append(q.held, p...)
	q.change.Broadcast()
	return len(p), nil
}

// end says that all is written, and leave that nobody will send it.
func (q *queue) end()   { q.set(&q.ended) }
func (q *queue) leave() { q.set(&q.gone) }

func (q *queue) set(flag *bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	*flag = true
	q.change.Broadcast()
}

// send writes to w what is held, and if wait is set, all up to the end.
func (q *queue) send(w io.Writer, wait bool) error {
	var spare []byte
	for {
		q.mu.Lock()
		for len(q.held) == 0 && wait && !q.ended {
			q.change.Wait()
		}
		out := q.held
		q.held = spare[:0]
		ended := q.ended
		q.change.Broadcast()
		q.mu.Unlock()
		if len(out) > 0 {
			if _, err := w.Write(out); err != nil {
				return err
			}
		}
		if ended || !wait {
			return nil
		}
		spare = out
	}
}
