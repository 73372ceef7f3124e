package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"ferry/cas"
	"ferry/cas/durable"
	"ferry/delta"
	"ferry/manifest/place"
)

type inventoryOptions struct {
	filterFlags
	output      string
	force       bool
	versionFile string
}

func newInventoryCommand(a *app) *cobra.Command {
	var o inventoryOptions
	cmd := &cobra.Command{
		Use:   "inventory DIR -o FILE",
		Short: "List what a site has, for a delta that is made elsewhere",
		Long: `Reads a folder, or an archive, and writes a small file that says what is in it:
paths, digests, and of which pieces each file is, also within containers and disk
images. No content is in it. Sent to where the packages are, it lets "ferry delta
create --inventory FILE TARGET" make the smallest delta for just this site, files
that were changed here included, with no old package at hand.

DIR is only read. FILE appears when it is whole.` + "\n" + exitHelp,
		Example: `  ferry inventory C:\k2s -o site.inv
  ferry inventory C:\k2s -o site.inv --exclude '*.log' --exclude bin/downloads/`,
		Args: exactly(1, "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error { return runInventory(cmd.Context(), a, o, args[0]) },
	}
	o.register(cmd)
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "where to write the inventory")
	cmd.Flags().BoolVar(&o.force, "force", false, "replace a file that stands there")
	cmd.Flags().StringVar(&o.versionFile, "version-file", "VERSION", "the `PATH` in DIR of the file that says its version, if there is one")
	return cmd
}

// inventoryResult is what inventory prints.
type inventoryResult struct {
	Output   string     `json:"output"`
	Size     int64      `json:"inventory_bytes"`
	Label    string     `json:"label"`
	Version  string     `json:"version,omitempty"`
	Manifest cas.Digest `json:"manifest"`
	Files    int        `json:"files"`
	FileSize int64      `json:"size_bytes"`
	Seconds  float64    `json:"seconds"`
}

func runInventory(ctx context.Context, a *app, o inventoryOptions, dir string) error {
	if o.output == "" {
		return usagef("say where to write with -o")
	}
	if _, err := os.Lstat(o.output); err == nil && !o.force {
		return fmt.Errorf("%s: %w; --force replaces it", o.output, place.ErrExists)
	}
	begun := time.Now()
	v, err := a.openSide(ctx, dir, o.filter, true)
	if err != nil {
		return err
	}
	defer v.close()
	inv, err := delta.NewInventory(ctx, v.manifest, v.params, v.Recipe)
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	inv.Label = labelOf(dir)
	if inv.Number, err = delta.ReadNumber(ctx, v.manifest, v, o.versionFile); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	size, err := writeInventory(inv, o.output, o.force)
	if err != nil {
		return err
	}
	r := inventoryResult{
		Output: o.output, Size: size, Label: inv.Label, Version: inv.Number, Manifest: v.manifest.ID(),
		Files: v.manifest.Files(), FileSize: v.manifest.Size(), Seconds: time.Since(begun).Seconds(),
	}
	return a.print(r, func(w io.Writer) { printInventory(w, r) })
}

func writeInventory(inv *delta.Inventory, name string, force bool) (int64, error) {
	f, err := durable.Create(name)
	if err != nil {
		return 0, err
	}
	defer f.Abort()
	if err := f.Chmod(0o644); err != nil {
		return 0, err
	}
	n, err := inv.WriteTo(f)
	if err != nil {
		return 0, err
	}
	if force {
		return n, f.Commit()
	}
	return n, f.CommitNew()
}

func printInventory(w io.Writer, r inventoryResult) {
	what := r.Label
	if r.Version != "" {
		what += " (" + r.Version + ")"
	}
	fmt.Fprintf(w, "%s: %s: what %s has: %s, %s; no content\n", r.Output, size(r.Size), what, count(r.Files, "file"), size(r.FileSize))
}

// openInventory reads an inventory as a base of a delta. The store, if there is one, is
// its library, which is closed by the function returned.
func (a *app) openInventory(ctx context.Context, name string) (delta.Version, func(), error) {
	f, err := os.Open(name)
	if err != nil {
		return delta.Version{}, nil, err
	}
	defer f.Close()
	inv, err := delta.ReadInventory(f, 0)
	if err != nil {
		return delta.Version{}, nil, fmt.Errorf("%s: %w", name, err)
	}
	closeLibrary := func() {}
	archive, err := a.openArchive(ctx, false)
	switch {
	case err == nil:
		inv.SetLibrary(archive)
		closeLibrary = func() { archive.Close() }
	case !errors.Is(err, cas.ErrNotFound):
		return delta.Version{}, nil, err
	}
	return delta.Version{Label: inv.Label, Manifest: inv.Manifest, Files: inv, Number: inv.Number, Params: inv.Params}, closeLibrary, nil
}
