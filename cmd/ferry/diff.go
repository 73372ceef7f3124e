package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"ferry/cas"
	"ferry/chunking/disk"
	"ferry/delta"
	"ferry/manifest"
	"ferry/manifest/guest"
)

func newDiffCommand(a *app) *cobra.Command {
	var all, deep bool
	cmd := &cobra.Command{
		Use:   "diff BASE TARGET",
		Short: "List what changed between two versions",
		Long: `Lists the files that were added, removed, changed, renamed or copied between two
versions, with sizes. Renames and copies are recognised by content. Files of
which only time or mode differ ("meta") are counted, and listed with --all. With
--deep, members of container files (zip, tar, cpio, gzip, xz, ar, in one another) and the files of
disk images are listed, too, behind a "!"; of images that hold a Linux system, Debian
packages, container images, kernels, units and configuration as well.` + "\n" + exitHelp,
		Example: "  ferry diff k2s@1.4.0 k2s@1.5.0\n  ferry diff k2s@1.4.0 ./k2s-working-tree --json\n  ferry diff --deep old.zip new.zip",
		Args:    exactly(2, "BASE and TARGET"),
		RunE:    func(cmd *cobra.Command, args []string) error { return runDiff(cmd.Context(), a, args, all, deep) },
	}
	cmd.Flags().BoolVar(&all, "all", false, "list files whose content is the same, too")
	cmd.Flags().BoolVar(&deep, "deep", false, "look into container files")
	return cmd
}

// diffResult is what diff prints.
type diffResult struct {
	Base    string            `json:"base"`
	Target  string            `json:"target"`
	Counts  map[string]int    `json:"counts"`
	Changes []diffLine        `json:"changes"`
	Guests  []delta.GuestDiff `json:"guests,omitempty"` // of disk images, with --deep
}

type diffLine struct {
	Kind       manifest.ChangeKind `json:"change"`
	Path       string              `json:"path"`
	From       string              `json:"from,omitempty"`
	BaseSize   int64               `json:"base_size_bytes"`
	TargetSize int64               `json:"target_size_bytes"`
}

func runDiff(ctx context.Context, a *app, args []string, all, deep bool) error {
	base, err := a.openSide(ctx, args[0], nil, deep)
	if err != nil {
		return err
	}
	defer base.close()
	target, err := a.openSide(ctx, args[1], nil, deep)
	if err != nil {
		return err
	}
	defer target.close()
	r := diffResult{Base: base.label, Target: target.label, Counts: map[string]int{}, Changes: []diffLine{}}
	if deep {
		if r.Guests, err = guestDiffs(ctx, a, base, target); err != nil {
			return err
		}
		for _, v := range []*version{base, target} {
			if v.manifest, err = manifest.Deep(ctx, v.manifest, v, a.warn); err != nil {
				return fmt.Errorf("%s: %w", v.label, err)
			}
		}
	}
	for _, c := range manifest.Diff(base.manifest, target.manifest) {
		r.Counts[string(c.Kind)]++
		if (c.Kind == manifest.Same || c.Kind == manifest.Meta && !a.json) && !all {
			continue
		}
		l := diffLine{Kind: c.Kind, Path: c.Target.Path, BaseSize: c.Base.Size, TargetSize: c.Target.Size}
		if c.Kind == manifest.Removed {
			l.Path = c.Base.Path
		} else if c.Base.Path != "" && c.Base.Path != l.Path {
			l.From = c.Base.Path
		}
		r.Changes = append(r.Changes, l)
	}
	return a.print(r, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		for _, l := range r.Changes {
			switch {
			case l.From != "":
				fmt.Fprintf(t, "%s\t%s\t%s <- %s\n", l.Kind, size(l.TargetSize), l.Path, l.From)
			case l.Kind == manifest.Changed:
				fmt.Fprintf(t, "%s\t%s\t%s (%s)\n", l.Kind, size(l.TargetSize), l.Path, signed(l.TargetSize-l.BaseSize))
			case l.Kind == manifest.Removed:
				fmt.Fprintf(t, "%s\t%s\t%s\n", l.Kind, size(l.BaseSize), l.Path)
			default:
				fmt.Fprintf(t, "%s\t%s\t%s\n", l.Kind, size(l.TargetSize), l.Path)
			}
		}
		t.Flush()
		for _, k := range []manifest.ChangeKind{manifest.Added, manifest.Removed, manifest.Changed, manifest.Renamed, manifest.Copied, manifest.Meta, manifest.Same} {
			if n := r.Counts[string(k)]; n > 0 {
				fmt.Fprintf(w, "%d %s  ", n, k)
			}
		}
		fmt.Fprintln(w)
		for _, g := range r.Guests {
			fmt.Fprintf(w, "\nin the system of %s:\n", g.Path)
			printGuestDiff(w, g.Diff)
		}
	})
}

// guestDiffs compares the Linux systems of disk images that changed.
func guestDiffs(ctx context.Context, a *app, base, target *version) ([]delta.GuestDiff, error) {
	var diffs []delta.GuestDiff
	for _, e := range target.manifest.Entries {
		b, ok := base.manifest.Find(e.Path)
		if !ok && len(base.manifest.Entries) == 1 && len(target.manifest.Entries) == 1 {
			b, ok = base.manifest.Entries[0], true // two files, of any names
		}
		if !ok || e.Type != manifest.TypeFile || b.Type != manifest.TypeFile || b.Digest == e.Digest || !looksLikeImage(e.Path) {
			continue
		}
		var states [2]*guest.State
		for i, side := range []struct {
			v *version
			e manifest.Entry
		}{{base, b}, {target, e}} {
			m, err := storedImage(ctx, side.v, side.e.Path)
			if err == nil {
				states[i], err = guestState(ctx, m.Image, nil)
				m.close()
			}
			switch {
			case err == nil, errors.Is(err, disk.ErrFormat), errors.Is(err, cas.ErrNotFound):
			case disk.Malformed(err), errors.Is(err, manifest.ErrInvalid):
				a.warn(manifest.Warning{Path: side.e.Path, Text: "its system cannot be read: " + err.Error()})
			default:
				return nil, err
			}
		}
		if states[0] != nil && states[1] != nil {
			diffs = append(diffs, delta.GuestDiff{Path: e.Path, Diff: guest.Compare(states[0], states[1])})
		}
	}
	return diffs, nil
}

func signed(n int64) string {
	if n >= 0 {
		return "+" + size(n)
	}
	return size(n)
}
