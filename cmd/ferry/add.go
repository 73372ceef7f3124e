package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"ferry/cas"
	"ferry/delta"
	"ferry/delta/codec"
	"ferry/manifest"
	"ferry/manifest/tree"
)

type addOptions struct {
	filterFlags
	asFile   bool
	original bool
	replace  bool
	optimize bool
}

// originalSuffix is what the version of an archive itself has behind that of the tree
// in it.
const originalSuffix = "+archive"

// filterFlags are --exclude and --include, in the order they were given.
type filterFlags struct{ filter *tree.Filter }

func (f *filterFlags) register(cmd *cobra.Command) {
	cmd.Flags().Var(&rule{f, (*tree.Filter).Exclude}, "exclude", "leave out what this gitignore `PATTERN` matches (again and again)")
	cmd.Flags().Var(&rule{f, (*tree.Filter).Include}, "include", "keep what this `PATTERN` matches though excluded before; given first, keep only that")
	cmd.Flags().Var(&ruleFile{f}, "exclude-from", "read patterns from this ignore `FILE`, one a line")
}

func (f *filterFlags) get() *tree.Filter {
	if f.filter == nil {
		f.filter = &tree.Filter{}
	}
	return f.filter
}

// rule is a flag that adds one rule to a filter.
type rule struct {
	flags *filterFlags
	add   func(*tree.Filter, string)
}

func (r *rule) String() string { return "" }
func (r *rule) Type() string   { return "PATTERN" }
func (r *rule) Set(pattern string) error {
	r.add(r.flags.get(), pattern)
	return nil
}

// ruleFile is a flag that adds the rules of a file.
type ruleFile struct{ flags *filterFlags }

func (r *ruleFile) String() string { return "" }
func (r *ruleFile) Type() string   { return "FILE" }
func (r *ruleFile) Set(name string) error {
	text, err := os.ReadFile(name)
	if err == nil {
		r.flags.get().AddLines(string(text))
	}
	return err
}

func newAddCommand(a *app) *cobra.Command {
	var o addOptions
	cmd := &cobra.Command{
		Use:   "add PATH NAME@VERSION",
		Short: "Take a package into the store as a version",
		Long: `Reads a directory, zip, tar (also .gz, .zst, .xz) or any other file and keeps it
in the store as NAME@VERSION. An archive counts as the tree that is in it. What
the store has already costs nothing again. PATH is only read.

With --original, the archive itself is kept, too, as NAME@VERSION+archive: it shares all
that is in it with the tree, and "ferry export --original" gives it back, bit for bit.

The version is in the store when the command has ended well, and not before;
interrupted, the same command goes on with what was stored so far.` + "\n" + exitHelp,
		Example: `  ferry add ./k2s-1.4.0 k2s@1.4.0 --exclude .git --exclude '*.log'
  ferry add k2s-1.5.0.zip k2s@1.5.0 --original
  ferry add Kubemaster-Base.vhdx base-image@1.5.0`,
		Args: exactly(2, "PATH and NAME@VERSION"),
		RunE: func(cmd *cobra.Command, args []string) error { return runAdd(cmd.Context(), a, o, args) },
	}
	o.register(cmd)
	cmd.Flags().BoolVar(&o.asFile, "as-file", false, "keep an archive as one file, not as the tree in it")
	cmd.Flags().BoolVar(&o.original, "original", false, "keep the archive itself, too, to give it back as it is")
	cmd.Flags().BoolVar(&o.optimize, "optimize", false, "then store files of it as patches of earlier versions of NAME, as ferry optimize NAME does")
	cmd.Flags().BoolVar(&o.replace, "replace", false, "let the version stand for this tree from now on, if it exists with another")
	return cmd
}

// addResult is what add prints.
type addResult struct {
	Ref      string             `json:"ref"`
	Manifest cas.Digest         `json:"manifest"`
	Stats    manifest.AddStats  `json:"stats"`
	Seconds  float64            `json:"seconds"`
	Version  manifest.Version   `json:"version"`
	Warnings []manifest.Warning `json:"warnings,omitempty"`
	Original *manifest.AddStats `json:"original,omitempty"` // of the archive itself

	Optimized *delta.OptimizeReport `json:"optimized,omitempty"`
}

func runAdd(ctx context.Context, a *app, o addOptions, args []string) error {
	ref, err := manifest.ParseRef(args[1])
	if err != nil {
		return err
	}
	t, err := tree.Open(args[0], tree.Options{Filter: o.filter, AsFile: o.asFile})
	if err != nil {
		return err
	}
	defer t.Close()
	if o.original && (o.asFile || t.Format() == "directory" || t.Format() == "file") {
		return usagef("--original is for archives that are taken as trees, and %s is none", args[0])
	}
	store, err := a.storeDir()
	if err != nil {
		return err
	}
	if err := outside(args[0], store); err != nil { // before a store is made there
		return err
	}
	archive, err := a.openArchive(ctx, true)
	if err != nil {
		return err
	}
	defer archive.Close()
	begun := time.Now()
	r := addResult{Ref: ref.String()}
	m, stats, err := archive.Add(ctx, t, manifest.AddOptions{
		Members: true, Progress: a.progress("adding "+ref.String(), a.treeSize(ctx, t)),
		Warn: func(w manifest.Warning) {
			r.Warnings = append(r.Warnings, w)
			a.warn(w)
		},
	})
	if err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	if r.Version, err = archive.Tag(ctx, ref, m, filepath.Base(args[0])+" ("+t.Format()+")", begun, o.replace); err != nil {
		return err
	}
	if o.original {
		if r.Original, err = addOriginal(ctx, a, archive, args[0], ref, begun, o.replace); err != nil {
			return err
		}
	}
	r.Manifest, r.Stats, r.Seconds = m.ID(), stats, time.Since(begun).Seconds()
	if o.optimize {
		report, err := optimize(ctx, a, archive, codec.Default, []string{ref.Name})
		if err != nil {
			return fmt.Errorf("%s is in the store; optimizing it: %w", r.Ref, err)
		}
		r.Optimized = &report
	}
	return a.print(r, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %s, %s; %s new in %s, %s stored (%s)\n", r.Ref, count(stats.Files, "file"), size(stats.Size),
			size(stats.New.Size), count(int(stats.New.Chunks), "chunk"), size(stats.New.StoredBytes), rate(stats.Size, r.Seconds))
		if r.Original != nil {
			fmt.Fprintf(w, "the archive itself: %s new, %s stored\n", size(r.Original.New.Size), size(r.Original.New.StoredBytes))
		}
		if r.Optimized != nil {
			printOptimized(w, *r.Optimized)
		}
		fmt.Fprintf(w, "manifest %s\n", r.Manifest)
	})
}

// originalOf returns what the archive itself is called that a version came from.
func originalOf(ref manifest.Ref) manifest.Ref {
	return manifest.Ref{Name: ref.Name, Version: ref.Version + originalSuffix}
}

// addOriginal keeps an archive as one file.
func addOriginal(ctx context.Context, a *app, archive *manifest.Archive, path string, ref manifest.Ref, now time.Time, replace bool) (*manifest.AddStats, error) {
	ref, err := manifest.ParseRef(originalOf(ref).String())
	if err != nil {
		return nil, err
	}
	t, err := tree.Open(path, tree.Options{AsFile: true})
	if err != nil {
		return nil, err
	}
	defer t.Close()
	m, stats, err := archive.Add(ctx, t, manifest.AddOptions{Members: true, Progress: a.progress("adding "+ref.String(), a.treeSize(ctx, t)), Warn: a.warn})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	_, err = archive.Tag(ctx, ref, m, filepath.Base(path)+" (file)", now, replace)
	return &stats, err
}

// rate writes bytes a second.
func rate(n int64, seconds float64) string {
	if seconds <= 0 {
		return "at once"
	}
	return fmt.Sprintf("%.1f s, %s/s", seconds, size(int64(float64(n)/seconds)))
}

// outside refuses to add a folder that holds the store itself.
func outside(path, store string) error {
	absPath, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	absStore, err := filepath.Abs(store)
	if err != nil {
		return err
	}
	rel, err := filepath.Rel(absPath, absStore)
	if err == nil && filepath.IsLocal(rel) {
		return usagef("the store %s lies inside %s; name another with --store", store, path)
	}
	return nil
}
