package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"ferry/cas"
	"ferry/manifest"
)

func newCheckCommand(a *app) *cobra.Command {
	var readData bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Test the store's health",
		Long: `Compares packs, indexes and versions of the store with each other: whether every
chunk of every version is there. With --read-data, also reads every byte of every
pack and compares it with the pack's digest. Nothing is changed. Problems give
exit status 4; hints do not.` + "\n" + exitHelp,
		Example: "  ferry check\n  ferry check --read-data --json",
		Args:    exactly(0, "no arguments"),
		RunE:    func(cmd *cobra.Command, _ []string) error { return runCheck(cmd.Context(), a, readData) },
	}
	cmd.Flags().BoolVar(&readData, "read-data", false, "read and hash all bytes")
	return cmd
}

// checkResult is what check prints.
type checkResult struct {
	Store    string             `json:"store"`
	Sum      cas.CheckReport    `json:"sum"`
	Problems []manifest.Problem `json:"problems"`
	Seconds  float64            `json:"seconds"`
}

func runCheck(ctx context.Context, a *app, readData bool) error {
	archive, err := a.openArchive(ctx, false)
	if err != nil {
		return err
	}
	defer archive.Close()
	begun := time.Now()
	r := checkResult{Store: archive.Store().Backend().URL(), Problems: []manifest.Problem{}}
	var progress cas.Counter = nothing{}
	if readData && a.showsProgress() {
		st, err := archive.Store().Stats(ctx)
		if err != nil {
			return err
		}
		progress = a.progress("reading packs", st.PackBytes)
	}
	r.Sum, err = archive.Check(ctx, readData, progress, func(p manifest.Problem) { r.Problems = append(r.Problems, p) })
	if err != nil {
		return err
	}
	r.Seconds = time.Since(begun).Seconds()
	err = a.print(r, func(w io.Writer) {
		for _, p := range r.Problems {
			printProblem(w, p)
		}
		if r.Sum.Problems > 0 {
			fmt.Fprintf(w, "%s: %s\n", r.Store, count(r.Sum.Problems, "problem"))
			return
		}
		fmt.Fprintf(w, "%s is sound: %s, %s", r.Store, count(r.Sum.Packs, "pack"), count(int(r.Sum.Blobs), "blob"))
		if readData {
			fmt.Fprintf(w, ", %s read (%s)", size(r.Sum.ReadBytes), rate(r.Sum.ReadBytes, r.Seconds))
		}
		fmt.Fprintln(w)
	})
	if err == nil && r.Sum.Problems > 0 {
		err = fmt.Errorf("store %s: %w", r.Store, errFindings)
	}
	return err
}

func printProblem(w io.Writer, p manifest.Problem) {
	kind := p.Kind
	if p.Hint {
		kind = "hint: " + kind
	}
	what := p.Object
	if p.Version != "" {
		what = p.Version + " " + p.Path
	}
	fmt.Fprintf(w, "%s: %s: %s\n", kind, what, p.Detail)
}

func newRepairCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "repair",
		Short:   "Mend the store",
		Long:    "Mends what check finds and the store itself can mend." + "\n" + exitHelp,
		Example: "  ferry repair index",
		Args: func(_ *cobra.Command, args []string) error {
			return usagef("say what to repair: ferry repair index")
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(&cobra.Command{
		Use:     "index",
		Short:   "Build the store's index anew from its packs",
		Long:    "Reads the directories of all packs, writes a new index and drops the old one. Packs are not changed." + "\n" + exitHelp,
		Example: "  ferry repair index",
		Args:    exactly(0, "no arguments"),
		RunE:    func(cmd *cobra.Command, _ []string) error { return runRepairIndex(cmd.Context(), a) },
	})
	return cmd
}

func runRepairIndex(ctx context.Context, a *app) error {
	dir, err := a.storeDir()
	if err != nil {
		return err
	}
	r := struct {
		Store    string        `json:"store"`
		Blobs    int64         `json:"blobs"`
		Problems []cas.Problem `json:"problems"`
	}{Store: dir, Problems: []cas.Problem{}}
	r.Blobs, err = cas.RepairIndex(ctx, localBackend(dir), func(p cas.Problem) { r.Problems = append(r.Problems, p) })
	if err != nil {
		return err
	}
	err = a.print(r, func(w io.Writer) {
		for _, p := range r.Problems {
			printProblem(w, manifest.Problem{Problem: p})
		}
		fmt.Fprintf(w, "%s: %s indexed\n", r.Store, count(int(r.Blobs), "blob"))
	})
	if err == nil && len(r.Problems) > 0 {
		err = fmt.Errorf("store %s: %w", r.Store, errFindings)
	}
	return err
}

func newRemoveCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "remove NAME@VERSION…",
		Short: "Take versions out of the store",
		Long: `Takes versions out of the catalogue. The bytes that only they needed stay until
"ferry prune". The archive that a version came from, if it was kept, goes with it. Other
versions are not touched.` + "\n" + exitHelp,
		Example: "  ferry remove k2s@1.3.0 && ferry prune",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("name the versions to remove")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return runRemove(cmd.Context(), a, args) },
	}
}

func runRemove(ctx context.Context, a *app, args []string) error {
	archive, err := a.openArchive(ctx, false)
	if err != nil {
		return err
	}
	defer archive.Close()
	var refs []manifest.Ref
	for _, arg := range args { // all must be there before any goes
		ref, err := manifest.ParseRef(arg)
		if err != nil {
			return err
		}
		if _, err := archive.Version(ctx, ref); err != nil {
			return err
		}
		refs = append(refs, ref)
		if original := originalOf(ref); !slices.Contains(args, original.String()) {
			if _, err := archive.Version(ctx, original); err == nil {
				refs = append(refs, original)
			} else if !errors.Is(err, cas.ErrNotFound) {
				return err
			}
		}
	}
	for _, ref := range refs {
		if err := archive.Remove(ctx, ref, time.Now()); err != nil {
			return err
		}
	}
	return a.print(map[string]any{"removed": args}, func(w io.Writer) {
		fmt.Fprintf(w, "removed %s; ferry prune frees the space\n", count(len(args), "version"))
	})
}

func newPruneCommand(a *app) *cobra.Command {
	var o cas.PruneOptions
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Delete what no version needs",
		Long: `Deletes chunks that no version needs, in two steps, so that adds and exports may
run at the same time: packs are marked first, and deleted by a later prune, when
the grace time is over and no command runs that began before the mark. With
--grace 0 they are deleted at once if no other command uses the store.` + "\n" + exitHelp,
		Example: "  ferry prune --dry-run\n  ferry prune --grace 0",
		Args:    exactly(0, "no arguments"),
		RunE:    func(cmd *cobra.Command, _ []string) error { return runPrune(cmd.Context(), a, o) },
	}
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "say what would be done, and do nothing")
	cmd.Flags().DurationVar(&o.Grace, "grace", cas.DefaultGrace, "how long a marked pack stays")
	cmd.Flags().Float64Var(&o.MaxUnused, "max-unused", 0.25, "share of a pack that may be dead before it is written anew")
	return cmd
}

func runPrune(ctx context.Context, a *app, o cas.PruneOptions) error {
	if o.Grace < 0 || o.MaxUnused <= 0 || o.MaxUnused > 1 {
		return usagef("--grace must not be negative, --max-unused must be above 0 and at most 1")
	}
	archive, err := a.openArchive(ctx, false)
	if err != nil {
		return err
	}
	defer archive.Close()
	r, err := archive.Store().Prune(ctx, o, archive.Live)
	if err != nil {
		return err
	}
	return a.print(r, func(w io.Writer) {
		verb := ""
		if r.DryRun {
			verb = "would be "
		}
		fmt.Fprintf(w, "%s live, %s dead in %s\n", size(r.LiveSize), size(r.DeadSize), count(r.Packs, "pack"))
		fmt.Fprintf(w, "%s of %s %smarked for deletion", count(r.Marked, "pack"), size(r.Marking), verb)
		if r.Moved > 0 {
			fmt.Fprintf(w, ", %s of live chunks %smoved out of them", size(r.Moved), verb)
		}
		fmt.Fprintln(w)
		if r.Rescued > 0 {
			fmt.Fprintf(w, "%s needed again, unmarked\n", count(r.Rescued, "pack"))
		}
		if r.Deleted > 0 {
			fmt.Fprintf(w, "%s deleted, %s freed\n", count(r.Deleted, "pack"), size(r.Freed))
		}
		if r.Waiting > 0 {
			fmt.Fprintf(w, "%s of %s wait to be deleted by a later prune", count(r.Waiting, "pack"), size(r.WaitingB))
			if r.InUseBy > 0 {
				fmt.Fprintf(w, " (%s running)", count(r.InUseBy, "command"))
			}
			fmt.Fprintln(w)
		}
	})
}
