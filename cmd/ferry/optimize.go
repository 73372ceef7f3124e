package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"ferry/delta"
)

func newOptimizeCommand(a *app) *cobra.Command {
	var effort effortFlag
	cmd := &cobra.Command{
		Use:   "optimize",
		Short: "Store releases of a file as patches of earlier ones",
		Long: `Looks at the releases of each package in the store, oldest first, and codes files
that change from release to release against an earlier release of the same file,
where that takes half the space or less: rebuilt programs, above all. A release that
has become too different stays as it is, and those behind it are coded against that. Everything
can be read as before, from the store alone and verified; files that are made of
patches take longer to read.

What the files took before is freed by "ferry prune". Interrupted, the same call
goes on. Removing a version does not free what others are made of.` + "\n" + exitHelp,
		Example: "  ferry optimize && ferry prune\n  ferry optimize --effort max --json",
		Args:    exactly(0, "no arguments"),
		RunE:    func(cmd *cobra.Command, _ []string) error { return runOptimize(cmd.Context(), a, effort) },
	}
	effort.register(cmd, "how long to search for smaller patches")
	return cmd
}

// optimizeResult is what optimize prints.
type optimizeResult struct {
	Store string `json:"store"`
	delta.OptimizeReport
	Seconds float64 `json:"seconds"`
}

func runOptimize(ctx context.Context, a *app, o effortFlag) error {
	effort, err := o.parse()
	if err != nil {
		return err
	}
	debug.SetMemoryLimit(createMemoryGoal)
	archive, err := a.openArchive(ctx, false)
	if err != nil {
		return err
	}
	defer archive.Close()
	begun := time.Now()
	r := optimizeResult{Store: archive.Store().Backend().URL()}
	var progress lateCounter
	r.OptimizeReport, err = delta.Optimize(ctx, archive, delta.OptimizeOptions{
		Effort: effort, Progress: &progress,
		Total: func(total int64) { progress.c = a.progress("optimizing "+filepath.Base(r.Store), total) },
	})
	if err != nil {
		return err
	}
	r.Seconds = time.Since(begun).Seconds()
	return a.print(r, func(w io.Writer) {
		fmt.Fprintf(w, "%s of %s looked at are patches now: %s written in place of about %s\n",
			count(r.Derived, "release"), count(r.Files, "file release"), size(r.Added), size(r.Replaced))
		if r.Derived > 0 {
			fmt.Fprintln(w, `"ferry prune" frees what they took before`)
		}
	})
}
