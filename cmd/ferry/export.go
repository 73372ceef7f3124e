package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"ferry/export"
	"ferry/manifest/place"
)

type exportOptions struct {
	output string
	format string
	method string
	links  string
	force  bool
}

func newExportCommand(a *app) *cobra.Command {
	var o exportOptions
	cmd := &cobra.Command{
		Use:   "export REF|PATH -o TARGET",
		Short: "Write a version out as a zip, tar or directory",
		Long: `Writes a version as a zip, tar, tar.gz, tar.zst or directory: TARGET's name says
which. The same version gives the same bytes on every system. Every file is
verified while it is written, and TARGET appears only when it is whole.

A directory must be new or empty; interrupted, the same command goes on with it.
Files are never written outside TARGET.` + "\n" + exitHelp,
		Example: `  ferry export k2s@1.5.0 -o k2s-1.5.0.zip
  ferry export k2s@1.5.0 -o C:\k2s-1.5.0
  ferry export k2s@1.5.0 -o k2s.zip --method zstd --force`,
		Args: exactly(1, "REF or PATH"),
		RunE: func(cmd *cobra.Command, args []string) error { return runExport(cmd.Context(), a, o, args[0]) },
	}
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "where to write: X.zip, X.tar, X.tar.gz, X.tar.zst or a directory")
	cmd.Flags().StringVar(&o.format, "format", "", "zip, tar, tar.gz, tar.zst or dir, whatever TARGET's name says")
	cmd.Flags().StringVar(&o.method, "method", string(export.MethodDeflate), "how a zip compresses: deflate, store or zstd")
	cmd.Flags().StringVar(&o.links, "links", "keep", "symbolic links in a directory: keep or skip")
	cmd.Flags().BoolVar(&o.force, "force", false, "replace an archive that stands at TARGET")
	return cmd
}

// exportResult is what export prints.
type exportResult struct {
	Output  string      `json:"output"`
	Format  string      `json:"format"`
	Stats   place.Stats `json:"stats"`
	Seconds float64     `json:"seconds"`
}

func runExport(ctx context.Context, a *app, o exportOptions, arg string) error {
	if o.output == "" {
		return usagef("say where to write with -o")
	}
	if o.links != "keep" && o.links != "skip" {
		return usagef("--links is keep or skip, not %q", o.links)
	}
	format := export.Format(o.format)
	if o.format == "" {
		format = export.FormatOf(o.output)
	}
	switch format {
	case export.FormatZip, export.FormatTar, export.FormatTarGzip, export.FormatTarZstd, export.FormatDir:
	default:
		return usagef("--format is zip, tar, tar.gz, tar.zst or dir, not %q", o.format)
	}
	v, err := a.openVersion(ctx, arg, nil)
	if err != nil {
		return err
	}
	defer v.close()
	begun := time.Now()
	stats, err := export.Export(ctx, v, v.manifest, o.output, format, export.Options{
		Method: export.Method(o.method), Force: o.force,
		Place: place.Options{Progress: a.progress("writing "+filepath.Base(o.output), v.manifest.Size()), SkipLinks: o.links == "skip", Warn: a.warn},
	})
	if err != nil {
		return err
	}
	r := exportResult{Output: o.output, Format: string(format), Stats: stats, Seconds: time.Since(begun).Seconds()}
	return a.print(r, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %s, %s (%s)\n", r.Output, count(stats.Files, "file"), size(stats.Size), rate(stats.Size, r.Seconds))
		if stats.Resumed > 0 {
			fmt.Fprintf(w, "%s stood from the interrupted try\n", count(stats.Resumed, "file"))
		}
	})
}
