// Command ferry moves software across bandwidth-poor and air-gapped links: a
// content-addressed store of package versions, and verified minimal deltas
// between them.
//
// What goes where: the result of a command goes to standard output and nothing
// else does; progress, warnings and errors go to standard error. Exit codes are
// in exit.go. Every other file of this folder is one command, without logic of
// its own: flags, a call, a printed result.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"syscall"

	"github.com/spf13/cobra"
)

func main() { os.Exit(realMain()) }

// memoryGoal is the heap size in bytes from which garbage is collected more
// often: commands stay under 512 MiB in all (docs/benchmarks.md).
const memoryGoal = 320 << 20

// createMemoryGoal is the same for making a delta, which indexes whole files: it
// stays under 1 GiB.
const createMemoryGoal = 880 << 20

// applyMemoryGoal is the same for applying one: it stays under 256 MiB.
const applyMemoryGoal = 208 << 20

// realMain is main for programs that want the exit code, such as tests.
func realMain() int {
	debug.SetMemoryLimit(memoryGoal)
	debug.SetGCPercent(400) // most heaps are small: the goal bounds the others
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		<-ctx.Done()
		stop() // a second Ctrl-C ends the program at once
	}()
	return run(ctx, os.Args[1:], os.Stdout, os.Stderr)
}

// run executes one command line and returns its exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	app := newApp(stdout, stderr)
	root := newRootCommand(app)
	root.SetArgs(args)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		app.json = app.json || slices.Contains(args, "--json") // a flag after the wrong one counts, too
		return &usageError{err}
	})
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	app.endProgress()
	if err == nil && app.skipped > 0 {
		return exitSkipped
	}
	if err == nil {
		return exitDone
	}
	return app.fail(ctx, err)
}
