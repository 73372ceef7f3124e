package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"ferry/cas"
)

func newStatsCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "stats",
		Short:   "Say what the store holds, and what it saves",
		Long:    "Counts versions, chunks and bytes, and compares the store with the versions kept apart." + "\n" + exitHelp,
		Example: "  ferry stats\n  ferry stats --json",
		Args:    exactly(0, "no arguments"),
		RunE:    func(cmd *cobra.Command, args []string) error { return runStats(cmd.Context(), a) },
	}
}

// statsResult is what stats prints.
type statsResult struct {
	Store    string    `json:"store"`
	Versions int       `json:"versions"`
	Files    int       `json:"files"`
	Size     int64     `json:"size_bytes"` // of all versions, each counted whole
	Stats    cas.Stats `json:"objects"`
}

func runStats(ctx context.Context, a *app) error {
	archive, err := a.openArchive(ctx, false)
	if err != nil {
		return err
	}
	defer archive.Close()
	versions, err := archive.Versions(ctx)
	if err != nil {
		return err
	}
	r := statsResult{Store: archive.Store().Backend().URL(), Versions: len(versions)}
	for _, v := range versions {
		r.Files += v.Files
		r.Size += v.Size
	}
	if r.Stats, err = archive.Store().Stats(ctx); err != nil {
		return err
	}
	return a.print(r, func(w io.Writer) {
		st := r.Stats
		fmt.Fprintf(w, "store      %s\nversions   %d with %d files, %s in all\n", r.Store, r.Versions, r.Files, size(r.Size))
		fmt.Fprintf(w, "chunks     %d, %s plain\nrecipes    %d, %s\n", st.Chunks, size(st.ChunkBytes), st.Records, size(st.RecordBytes))
		fmt.Fprintf(w, "packs      %d, %s on disk\nindexes    %d, %s on disk\n", st.Packs, size(st.PackBytes), st.Indexes, size(st.IndexBytes))
		if st.DoomedPacks > 0 {
			fmt.Fprintf(w, "doomed     %d packs wait to be deleted by prune\n", st.DoomedPacks)
		}
		if stored := st.PackBytes + st.IndexBytes; stored > 0 {
			fmt.Fprintf(w, "ratio      %.2f (versions ÷ store)\n", float64(r.Size)/float64(stored))
		}
	})
}

func newVersionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Say which program this is",
		Long:    "Prints the program's version, what it was built with, and for which system." + "\n" + exitHelp,
		Example: "  ferry version --json",
		Args:    exactly(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			r := map[string]string{"go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH, "version": "devel"}
			if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
				r["version"] = info.Main.Version
			}
			return a.print(r, func(w io.Writer) {
				fmt.Fprintf(w, "ferry %s (%s, %s/%s)\n", r["version"], r["go"], r["os"], r["arch"])
			})
		},
	}
}
