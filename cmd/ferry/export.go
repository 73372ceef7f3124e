package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ferry/cas"
	"ferry/cas/durable"
	"ferry/chunking/disk"
	"ferry/export"
	"ferry/manifest"
	"ferry/manifest/place"
)

type exportOptions struct {
	output string
	format string
	method string
	links  string
	path   string
	as     string
	force  bool

	original bool
}

func newExportCommand(a *app) *cobra.Command {
	var o exportOptions
	cmd := &cobra.Command{
		Use:   "export REF|PATH -o TARGET",
		Short: "Write a version out as a zip, tar or directory",
		Long: `Writes a version as a zip, tar, tar.gz, tar.zst or directory: TARGET's name says
which. The same version gives the same bytes on every system. Every file is
verified while it is written, and TARGET appears only when it is whole.

With --path, one file of the version is written, as it is; with --as raw or --as vhdx,
a disk image in that form: its disk is the same, byte for byte.

With --original, the archive is written that the version was added from: the very same
bytes, if "ferry add --original" kept it.

A directory must be new or empty; interrupted, the same command goes on with it.
Files are never written outside TARGET.` + "\n" + exitHelp,
		Example: `  ferry export k2s@1.5.0 -o k2s-1.5.0.zip
  ferry export k2s@1.5.0 -o C:\k2s-1.5.0
  ferry export k2s@1.5.0 --original -o k2s-1.5.0.zip
  ferry export k2s@1.5.0 -o k2s.zip --method zstd --force
  ferry export k2s@1.5.0 --path bin/Kubemaster-Base.vhdx --as raw -o disk.raw`,
		Args: exactly(1, "REF or PATH"),
		RunE: func(cmd *cobra.Command, args []string) error { return runExport(cmd.Context(), a, o, args[0]) },
	}
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "where to write: X.zip, X.tar, X.tar.gz, X.tar.zst or a directory")
	cmd.Flags().StringVar(&o.format, "format", "", "zip, tar, tar.gz, tar.zst or dir, whatever TARGET's name says")
	cmd.Flags().StringVar(&o.method, "method", string(export.MethodDeflate), "how a zip compresses: deflate, store or zstd")
	cmd.Flags().StringVar(&o.links, "links", "keep", "symbolic links in a directory: keep or skip")
	cmd.Flags().StringVar(&o.path, "path", "", "write this file of the version only")
	cmd.Flags().StringVar(&o.as, "as", "", "write the disk image at --path as raw or vhdx")
	cmd.Flags().BoolVar(&o.original, "original", false, "write the archive that the version came from, bit for bit")
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
	if o.original {
		ref, err := manifest.ParseRef(arg)
		if err != nil {
			return err
		}
		if o.path != "" || o.as != "" || o.format != "" {
			return usagef("--original is of the archive as it was, and goes with no --path, --as or --format")
		}
		return runExportFile(ctx, a, o, originalOf(ref).String())
	}
	if o.path != "" || o.as != "" {
		return runExportFile(ctx, a, o, arg)
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

// runExportFile writes one file of a version, or a disk image in another form.
func runExportFile(ctx context.Context, a *app, o exportOptions, arg string) error {
	if o.as != "" && o.as != string(disk.FormRaw) && o.as != string(disk.FormVHDX) {
		return usagef("--as is raw or vhdx, not %q", o.as)
	}
	v, err := a.openVersion(ctx, arg, nil)
	if err != nil {
		return err
	}
	defer v.close()
	path := strings.ReplaceAll(o.path, `\`, "/")
	if path == "" && len(v.manifest.Entries) == 1 {
		path = v.manifest.Entries[0].Path
	}
	e, ok := v.manifest.Find(path)
	if !ok || e.Type != manifest.TypeFile {
		return fmt.Errorf("%s: %w", v.label, &cas.NotFoundError{What: "file", Name: path})
	}
	begun := time.Now()
	r := exportResult{Output: o.output, Format: "file", Stats: place.Stats{Files: 1, Size: e.Size}}
	if o.as == "" {
		err = exportOne(ctx, a, v, e, o)
	} else {
		r.Format = o.as
		r.Stats.Size, err = exportImage(ctx, a, v, e, o)
	}
	if err != nil {
		return err
	}
	r.Seconds = time.Since(begun).Seconds()
	return a.print(r, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %s, %s (%s)\n", r.Output, e.Path, size(r.Stats.Size), rate(r.Stats.Size, r.Seconds))
	})
}

// exportImage writes a disk image in another form.
func exportImage(ctx context.Context, a *app, v *version, e manifest.Entry, o exportOptions) (int64, error) {
	c, err := v.OpenAt(ctx, e)
	if err != nil {
		return 0, err
	}
	m, err := asImage(c, e.Path)
	if err != nil {
		return 0, err
	}
	defer m.close()
	return writeImage(ctx, a, m.Contents(), disk.Form(o.as), o.output, o.force)
}

// exportOne writes a file.
func exportOne(ctx context.Context, a *app, v *version, e manifest.Entry, o exportOptions) error {
	return writeOutput(o.output, o.force, func(f *os.File) error {
		if e.Exec {
			if err := f.Chmod(0o755); err != nil {
				return err
			}
		}
		progress := a.progress("writing "+filepath.Base(o.output), e.Size)
		defer a.endProgress()
		return v.WriteFile(ctx, cas.CountWrites(f, progress), e)
	})
}

// writeOutput makes a file that appears under its name when fn has written it whole,
// and replaces one only by force.
func writeOutput(path string, force bool, fn func(f *os.File) error) error {
	if _, err := os.Lstat(path); err == nil && !force {
		return fmt.Errorf("%s: %w; --force replaces it", path, place.ErrExists)
	}
	f, err := durable.Create(path)
	if err != nil {
		return err
	}
	defer f.Abort()
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := fn(f.File); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if force {
		return f.Commit()
	}
	return f.CommitNew()
}
