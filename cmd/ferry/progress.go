package main

import (
	"fmt"
	"os"
	"time"

	"github.com/jedib0t/go-pretty/v6/progress"
	"github.com/jedib0t/go-pretty/v6/text"
	"golang.org/x/term"

	"ferry/cas"
)

// quietFor is how long work may take before progress is shown.
const quietFor = time.Second

// bar shows how far work has come, on a terminal.
type bar struct {
	tracker *progress.Tracker
	writer  progress.Writer
	start   *time.Timer
	started chan struct{}
}

// nothing counts where nobody looks.
type nothing struct{}

func (nothing) Add(int64) {}

// progress starts to show work of total bytes, 0 when unknown, once it has
// taken a second. It is silent unless standard error is a terminal.
func (a *app) progress(what string, total int64) cas.Counter {
	a.endProgress()
	if !a.showsProgress() {
		return nothing{}
	}
	w := progress.NewWriter()
	w.SetOutputWriter(a.stderr)
	w.SetUpdateFrequency(200 * time.Millisecond)
	w.SetStyle(progress.StyleBlocks)
	w.SetTrackerLength(24)
	w.SetTrackerPosition(progress.PositionRight)
	w.Style().Visibility.Speed = true
	w.Style().Visibility.ETA = total > 0
	w.Style().Visibility.Time = true
	w.Style().Visibility.TrackerOverall = false
	w.Style().Options.TimeInProgressPrecision = time.Second
	b := &bar{writer: w, started: make(chan struct{})}
	b.tracker = &progress.Tracker{Message: what, Total: total, Units: progress.Units{Formatter: size}}
	b.start = time.AfterFunc(quietFor, func() {
		defer close(b.started)
		w.AppendTracker(b.tracker)
		go w.Render()
		for !w.IsRenderInProgress() {
			time.Sleep(time.Millisecond)
		}
	})
	a.bar = b
	return b
}

// showsProgress reports whether anybody would see progress.
func (a *app) showsProgress() bool {
	f, ok := a.stderr.(*os.File)
	return ok && !a.quiet && !a.json && term.IsTerminal(int(f.Fd()))
}

// Add implements cas.Counter.
func (b *bar) Add(n int64) { b.tracker.Increment(n) }

// endProgress takes the progress off the screen.
func (a *app) endProgress() {
	b := a.bar
	if b == nil {
		return
	}
	a.bar = nil
	if b.start.Stop() {
		return // never shown
	}
	<-b.started
	b.tracker.MarkAsDone()
	b.writer.Stop()
	for b.writer.IsRenderInProgress() {
		time.Sleep(time.Millisecond)
	}
	fmt.Fprint(a.stderr, text.CursorUp.Sprint(), text.EraseLine.Sprint())
}
