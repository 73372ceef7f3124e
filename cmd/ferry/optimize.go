package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"runtime/debug"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"ferry/cas"
	"ferry/delta"
	"ferry/delta/codec"
	"ferry/manifest"
)

func newOptimizeCommand(a *app) *cobra.Command {
	var effort effortFlag
	cmd := &cobra.Command{
		Use:   "optimize [NAME…]",
		Short: "Store releases of a file as patches of earlier ones",
		Long: `Looks at the releases of each package in the store, or of those named, oldest first, and codes files
that change from release to release against an earlier release of the same file,
where that takes half the space or less: rebuilt programs, above all. A release that
has become too different stays as it is, and those behind it are coded against that. Everything
can be read as before, from the store alone and verified; files that are made of
patches take longer to read.

What the files took before is freed by "ferry prune". Interrupted, the same call
goes on. Removing a version does not free what others are made of.` + "\n" + exitHelp,
		Example: "  ferry optimize && ferry prune\n  ferry optimize k2s --effort max --json",
		Args:    cobra.ArbitraryArgs,
		RunE:    func(cmd *cobra.Command, args []string) error { return runOptimize(cmd.Context(), a, effort, args) },
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

func runOptimize(ctx context.Context, a *app, o effortFlag, names []string) error {
	effort, err := o.parse()
	if err != nil {
		return err
	}
	archive, err := a.openArchive(ctx, false)
	if err != nil {
		return err
	}
	defer archive.Close()
	begun := time.Now()
	r := optimizeResult{Store: archive.Store().Backend().URL()}
	if err := known(ctx, archive, names); err != nil {
		return err
	}
	if r.OptimizeReport, err = optimize(ctx, a, archive, effort, names); err != nil {
		return err
	}
	r.Seconds = time.Since(begun).Seconds()
	return a.print(r, func(w io.Writer) {
		printOptimized(w, r.OptimizeReport)
	})
}

// known returns an error if the archive has no version of a package.
func known(ctx context.Context, archive *manifest.Archive, names []string) error {
	versions, err := archive.Versions(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !slices.ContainsFunc(versions, func(v manifest.Version) bool { return v.Ref.Name == name }) {
			return &cas.NotFoundError{What: "package", Name: name}
		}
	}
	return nil
}

// optimize stores releases of packages as patches, with progress.
func optimize(ctx context.Context, a *app, archive *manifest.Archive, effort codec.Effort, names []string) (delta.OptimizeReport, error) {
	debug.SetMemoryLimit(createMemoryGoal)
	var progress lateCounter
	return delta.Optimize(ctx, archive, delta.OptimizeOptions{
		Names: names, Effort: effort, Progress: &progress,
		Total: func(total int64) {
			progress.c = a.progress("optimizing "+filepath.Base(archive.Store().Backend().URL()), total)
		},
	})
}

func printOptimized(w io.Writer, r delta.OptimizeReport) {
	fmt.Fprintf(w, "%s of %s looked at are patches now: %s written in place of about %s\n",
		count(r.Derived, "release"), count(r.Files, "file release"), size(r.Added), size(r.Replaced))
	if r.Derived > 0 {
		fmt.Fprintln(w, `"ferry prune" frees what they took before`)
	}
}
