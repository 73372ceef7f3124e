package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"ferry/cas"
	"ferry/cas/durable"
	"ferry/delta"
	"ferry/delta/codec"
	"ferry/manifest"
	"ferry/manifest/place"
	"ferry/manifest/profile"
	"ferry/manifest/tree"
)

func newDeltaCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "delta",
		Short: "Make, explain, apply and take back deltas",
		Long: `A delta is a file that turns a base version into a target version, byte-exact.
It is a plain zip: any tool can list it.` + "\n" + exitHelp,
		Example: "  ferry delta create k2s@1.4.0 k2s@1.5.0 -o upgrade.ferry",
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q for delta", args[0])
			}
			return nil
		},
	}
	cmd.AddCommand(newDeltaCreateCommand(a), newDeltaInspectCommand(a), newDeltaApplyCommand(a), newDeltaUndoCommand(a))
	return cmd
}

func newDeltaCreateCommand(a *app) *cobra.Command {
	var o createOptions
	cmd := &cobra.Command{
		Use:   "create [BASE…] TARGET -o FILE",
		Short: "Make a delta from one or more bases to a target",
		Long: `Makes a delta that turns any of the bases into the target. Bases and target are
versions in the store, or plain paths: two zips on disk do, with no store set up.

What the bases have already, wherever it stands in them, is not in the delta.
New bytes of changed files are coded against the files that they come from.
FILE appears when it is whole.

With --inventory, a base is what "ferry inventory" found at a site: the delta then
is for just that site, files that it changed included, and no old package is
needed. What the store has of the site's files is used to code against. Files of
the site that neither the target nor another base knows stay, in place, unless
--remove-unknown is given.

Rules, as profiles have them, go with the delta and say what happens at a site: files
that --preserve matches are kept where the site has its own; what --wholesale
matches becomes just the target's, in place (with --carry-wholesale, whatever a site has
changed there, and at the price of carrying it whole); the target must have what --mandatory
matches. With --version-file, only a tree of the right version is changed. --profile
takes all of these from a package profile.

--addons takes some addons along, by name ("ingress nginx,monitoring"), or none: the
others are left out on both sides, and stay at a site as they are there.` + "\n" + exitHelp,
		Example: `  ferry delta create k2s@1.4.0 k2s@1.5.0 -o upgrade.ferry
  ferry delta create old.zip new.zip -o upgrade.ferry
  ferry delta create k2s@1.3.0 k2s@1.4.0 k2s@1.5.0 -o from-1.3-or-1.4.ferry
  ferry delta create --inventory site.inv k2s@1.5.0 -o for-that-site.ferry
  ferry delta create k2s@1.4.0 k2s@1.5.0 -o upgrade.ferry --profile k2s --addons none --with-tool ferry.exe`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 || len(args)+len(o.inventories) < 2 {
				return usagef("name at least one base, and the target")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return runDeltaCreate(cmd.Context(), a, o, args) },
	}
	o.register(cmd)
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "where to write the delta")
	cmd.Flags().BoolVar(&o.force, "force", false, "replace a file that stands there")
	cmd.Flags().StringArrayVar(&o.inventories, "inventory", nil, "take what this inventory `FILE` lists as a base (again and again)")
	cmd.Flags().BoolVar(&o.removeUnknown, "remove-unknown", false, "in place, also take away files that only an inventory knows")
	cmd.Flags().StringArrayVar(&o.tools, "with-tool", nil, "carry this ferry program `FILE`, for sites that have none (again and again)")
	cmd.Flags().StringArrayVar(&o.rules.Preserve, "preserve", nil, "keep a site's own files that this `RULE` matches (again and again)")
	cmd.Flags().StringArrayVar(&o.rules.Wholesale, "wholesale", nil, "make folders that this `RULE` matches just the target's (again and again)")
	cmd.Flags().BoolVar(&o.rules.CarryWholesale, "carry-wholesale", false, "carry whole what is in folders that --wholesale or the profile's rules match")
	cmd.Flags().StringArrayVar(&o.rules.Mandatory, "mandatory", nil, "fail unless the target has what this `RULE` matches (again and again)")
	cmd.Flags().StringVar(&o.rules.VersionFile, "version-file", "", "the `PATH` in the package of a file that says its version, such as VERSION")
	cmd.Flags().StringVar(&o.profile, "profile", "", "take the rules of a built-in profile, or of a `FILE.yaml`")
	cmd.Flags().StringVar(&o.addons, "addons", "all", "addons to take along, with commas between, or all, or none")
	o.effort.register(cmd, "how long to search for a smaller delta")
	return cmd
}

type createOptions struct {
	filterFlags
	effort        effortFlag
	output        string
	force         bool
	inventories   []string
	removeUnknown bool
	tools         []string
	rules         delta.Rules
	profile       string
	addons        string
}

// effortFlag is --effort.
type effortFlag struct{ name string }

func (f *effortFlag) register(cmd *cobra.Command, usage string) {
	cmd.Flags().StringVar(&f.name, "effort", codec.Default.String(), usage+": fast, default or max")
	_ = cmd.RegisterFlagCompletionFunc("effort", cobra.FixedCompletions([]string{"fast", "default", "max"}, cobra.ShellCompDirectiveNoFileComp))
}

func (f effortFlag) parse() (codec.Effort, error) {
	effort, err := codec.ParseEffort(f.name)
	if err != nil {
		err = usagef("%v", err)
	}
	return effort, err
}

// createResult is what delta create prints.
type createResult struct {
	Output  string           `json:"output"`
	Size    int64            `json:"delta_bytes"`
	Full    int64            `json:"full_bytes"`
	FullEst bool             `json:"full_is_estimated"`
	Ratio   float64          `json:"ratio"` // delta ÷ full
	Seconds float64          `json:"seconds"`
	Dearest []delta.InfoFile `json:"dearest"`
	Info    *delta.Info      `json:"delta"`
}

func runDeltaCreate(ctx context.Context, a *app, o createOptions, args []string) error {
	if o.output == "" {
		return usagef("say where to write with -o")
	}
	effort, err := o.effort.parse()
	if err != nil {
		return err
	}
	if _, err := os.Lstat(o.output); err == nil && !o.force {
		return fmt.Errorf("%s: %w; --force replaces it", o.output, place.ErrExists)
	}
	p, err := o.takeProfile()
	if err != nil {
		return err
	}
	if o.rules.CarryWholesale && len(o.rules.Wholesale) == 0 {
		return usagef("--carry-wholesale carries what --wholesale or the rules of a profile match, and there are none")
	}
	debug.SetMemoryLimit(createMemoryGoal)
	begun := time.Now()
	var versions []delta.Version
	var opened []*version
	var packed int64
	for _, name := range o.inventories {
		v, closeLibrary, err := a.openInventory(ctx, name)
		if err != nil {
			return err
		}
		defer closeLibrary()
		versions = append(versions, v)
	}
	for _, arg := range args {
		v, err := a.openSide(ctx, arg, o.filter, true)
		if err != nil {
			return err
		}
		defer v.close()
		number, err := delta.ReadNumber(ctx, v.manifest, v, o.rules.VersionFile)
		if err != nil {
			return fmt.Errorf("%s: %w", arg, err)
		}
		versions = append(versions, delta.Version{Label: labelOf(arg), Manifest: v.manifest, Files: v, Number: number, Params: v.params})
		opened = append(opened, v)
		packed = v.packed
	}
	if o.profile != "" {
		if err := withoutExcluded(p, versions); err != nil {
			return err
		}
	}
	guests, err := changedGuests(ctx, a, opened)
	if err != nil {
		return err
	}
	if o.addons != "all" {
		packed = 0 // of the whole package
		if err := o.chooseAddons(ctx, p, opened, versions); err != nil {
			return err
		}
	}
	f, err := durable.Create(o.output)
	if err != nil {
		return err
	}
	defer f.Abort()
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	n := len(versions) - 1
	var progress lateCounter
	info, err := delta.Create(ctx, f, versions[:n], versions[n], delta.CreateOptions{
		FullSize: packed, Effort: effort, Progress: &progress,
		Rules: o.rules, Match: matchRules(o.rules.IgnoreCase), Guests: guests, RemoveUnknown: o.removeUnknown, Tools: o.tools,
		Total: func(total int64) { progress.c = a.progress("coding "+filepath.Base(o.output), total) },
	})
	if err != nil {
		return err
	}
	commit := f.CommitNew
	if o.force {
		commit = f.Commit
	}
	if err := commit(); err != nil {
		return err
	}
	r := createResult{
		Output: o.output, Size: info.DeltaSize, Full: info.FullSize, FullEst: info.FullEstimated,
		Ratio: float64(info.DeltaSize) / float64(max(info.FullSize, 1)), Seconds: time.Since(begun).Seconds(),
		Dearest: info.Dearest(10), Info: info,
	}
	return a.print(r, func(w io.Writer) { printCreate(w, r) })
}

// labelOf is what a delta calls a version: the reference, or the file's name.
func labelOf(arg string) string {
	if isPath(arg) {
		return filepath.Base(filepath.Clean(arg))
	}
	return arg
}

// lateCounter counts once it knows where.
type lateCounter struct{ c cas.Counter }

func (l *lateCounter) Add(n int64) { l.c.Add(n) }

func printCreate(w io.Writer, r createResult) {
	about := ""
	if r.FullEst {
		about = "about "
	}
	fmt.Fprintf(w, "%s: %s, %.2f %% of the full package (%s%s), made in %.1f s\n", r.Output, size(r.Size), 100*r.Ratio, about, size(r.Full), r.Seconds)
	fmt.Fprintf(w, "%s added, %d changed, %d removed, %d unchanged\n", count(len(r.Info.Added), "file"), len(r.Info.Changed), len(r.Info.Removed), r.Info.Unchanged+r.Info.Meta)
	if n := r.Info.Leftovers(); n > 1<<20 && n > r.Size/100 {
		fmt.Fprintf(w, "%s of it is what is left of deleted files in disk images: ferry image compact, before packaging, drops that\n", size(n))
	}
	if r.Size >= r.Full {
		fmt.Fprintf(w, "the full package is not larger: ship that instead\n")
	}
	printDearest(w, r.Dearest)
}

// shownMembers is how many members of a container file are listed.
const shownMembers = 20

func printDearest(w io.Writer, files []delta.InfoFile) {
	if len(files) == 0 {
		return
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "COST\tSIZE\tCHANGE\tHOW\tFILE")
	for _, f := range files {
		from := ""
		if f.From != "" {
			from = " <- " + f.From
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s%s\n", size(f.Cost), size(f.Size), f.Change, f.How, f.Path, from)
		for i, m := range f.Members {
			if i == shownMembers {
				fmt.Fprintf(t, "\t\t\t\t  and %d members more\n", len(f.Members)-i)
				break
			}
			name, from := m.Name, ""
			if name == "" {
				name = "(what stands between members)"
			}
			if m.From != "" {
				from = " <- " + m.From
			}
			fmt.Fprintf(t, "%s\t%s\t\t%s\t  !%s%s\n", size(m.Cost), size(m.Size), m.How, name, from)
		}
	}
	t.Flush()
}

// matchRules returns what knows the rules of a delta.
func matchRules(ignoreCase bool) delta.Matcher {
	return func(rules []string) (func(path string) bool, error) {
		compiled, err := profile.Compile(rules)
		if err != nil {
			return nil, err
		}
		if ignoreCase {
			compiled = compiled.IgnoreCase()
		}
		return compiled.Match, nil
	}
}

func newDeltaInspectCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "inspect FILE",
		Short:   "Explain a delta: every file, what it costs, and why",
		Long:    "Lists what a delta changes and what each file costs. The payload is not read." + "\n" + exitHelp,
		Example: "  ferry delta inspect upgrade.ferry\n  ferry delta inspect upgrade.ferry --json",
		Args:    exactly(1, "FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			d, err := delta.Open(args[0])
			if err != nil {
				return err
			}
			defer d.Close()
			return a.print(d.Info, func(w io.Writer) { printInspect(w, d.Info) })
		},
	}
}

func printInspect(w io.Writer, info *delta.Info) {
	for _, b := range info.Bases {
		fmt.Fprintf(w, "from    %s  %s, %s, manifest %s\n", b.Label, count(b.Files, "file"), size(b.Size), b.Manifest.Short())
	}
	t := info.Target
	fmt.Fprintf(w, "to      %s  %s, %s, manifest %s\n", t.Label, count(t.Files, "file"), size(t.Size), t.Manifest.Short())
	fmt.Fprintf(w, "delta   %s, payload %s; full %s\n", size(info.DeltaSize), size(info.PayloadSize), size(info.FullSize))
	for _, rule := range []struct {
		does  string
		texts []string
	}{{"kept    as the site has it: ", info.Preserve}, {"unit    just as the target has it: ", info.WholeDirectories}, {"must    be in the target: ", info.Mandatory}} {
		if len(rule.texts) > 0 {
			fmt.Fprintf(w, "%s%s\n", rule.does, strings.Join(rule.texts, ", "))
		}
	}
	if info.VersionFile != "" {
		fmt.Fprintf(w, "version told by %s\n", info.VersionFile)
	}
	fmt.Fprintf(w, "changes %d added, %d changed, %d removed, %d unchanged\n", len(info.Added), len(info.Changed), len(info.Removed), info.Unchanged+info.Meta)
	printDearest(w, slices.DeleteFunc(slices.Clone(info.Files), func(f delta.InfoFile) bool { return f.Change == manifest.Meta }))
	for _, p := range info.Removed {
		fmt.Fprintf(w, "removed %s\n", p)
	}
}

type applyOptions struct {
	base, to, inPlace string
	links             string
	force             bool
}

func newDeltaApplyCommand(a *app) *cobra.Command {
	var o applyOptions
	cmd := &cobra.Command{
		Use:   "apply FILE --base DIR|ZIP|REF --to DIR",
		Short: "Make the target from a base, in a new folder or in place",
		Long: `With --base and --to, makes the target in a new folder; the base is only read.
With --in-place, changes a folder where it stands, and keeps what "ferry delta
undo" needs to take that back.

The base is verified where it is read, and every file of the result against the
target's manifest before any of it becomes visible. Killed at any moment, either
the old tree or the new one stands once the same command has run again.

In place, files that the package does not know are kept. Files that were changed
at the site are listed and kept too, unless --force is given. What the delta's own
rules preserve is always kept, also in a new folder, and listed.

FILE may be the folder that a delta was unpacked to.` + "\n" + exitHelp,
		Example: `  ferry delta apply upgrade.ferry --base C:\k2s-1.4.0 --to C:\k2s-1.5.0
  ferry delta apply upgrade.ferry --base k2s-1.4.0.zip --to k2s-1.5.0
  ferry delta apply upgrade.ferry --in-place C:\k2s`,
		Args: exactly(1, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error { return runDeltaApply(cmd.Context(), a, o, args[0]) },
	}
	cmd.Flags().StringVar(&o.base, "base", "", "the version that stands: a folder, an archive or a version in the store")
	cmd.Flags().StringVar(&o.to, "to", "", "the folder to make; new or empty")
	cmd.Flags().StringVar(&o.inPlace, "in-place", "", "the folder to change where it stands")
	cmd.Flags().StringVar(&o.links, "links", "keep", "symbolic links in a new folder: keep or skip")
	cmd.Flags().BoolVar(&o.force, "force", false, "go on with a tree of another version; in place: replace files that were changed at the site")
	return cmd
}

func runDeltaApply(ctx context.Context, a *app, o applyOptions, file string) error {
	switch {
	case o.inPlace == "" && (o.base == "" || o.to == ""):
		return usagef("name --base and --to, or --in-place")
	case o.inPlace != "" && (o.base != "" || o.to != ""):
		return usagef("--in-place goes with neither --base nor --to")
	case o.links != "keep" && o.links != "skip":
		return usagef("--links is keep or skip, not %q", o.links)
	}
	debug.SetMemoryLimit(applyMemoryGoal)
	d, err := delta.Open(file)
	if err != nil {
		return err
	}
	defer d.Close()
	if o.inPlace != "" {
		return a.applyInPlace(ctx, d, o)
	}
	base, closeBase, err := a.openBase(ctx, o.base)
	if err != nil {
		return err
	}
	defer closeBase()
	begun := time.Now()
	report, err := delta.ApplyRules(ctx, d, base, o.to, delta.ApplyOptions{
		Options: place.Options{
			Progress: a.progress("making "+filepath.Base(o.to), d.Target.Size()), SkipLinks: o.links == "skip", Warn: a.warn,
		},
		Match: matchRules(d.Info.IgnoreCase), Name: o.base, Force: o.force,
	})
	if err != nil {
		return err
	}
	a.warnForced(o.base, report.Forced)
	for _, m := range report.Preserved {
		if !m.Kept {
			a.warn(manifest.Warning{Path: m.Path, Text: m.Reason, Skipped: true})
		}
	}
	stats := report.Stats
	r := struct {
		Target  string      `json:"target"`
		To      string      `json:"to"`
		Stats   place.Stats `json:"stats"`
		Seconds float64     `json:"seconds"`

		Preserved []delta.Modified `json:"preserved,omitempty"`
		Forced    string           `json:"forced,omitempty"`
	}{d.Info.TargetVersion, o.to, stats, time.Since(begun).Seconds(), report.Preserved, report.Forced}
	return a.print(r, func(w io.Writer) {
		fmt.Fprintf(w, "%s is %s: %s, %s, verified (%s)\n", r.To, r.Target, count(stats.Files, "file"), size(stats.Size), rate(stats.Size, r.Seconds))
		if stats.Resumed > 0 {
			fmt.Fprintf(w, "%s stood from the interrupted try\n", count(stats.Resumed, "file"))
		}
		printPreserved(w, report.Preserved)
	})
}

// warnForced tells what was passed over by force.
func (a *app) warnForced(dir, text string) {
	if text != "" {
		a.warn(manifest.Warning{Path: dir, Text: text})
	}
}

func printPreserved(w io.Writer, files []delta.Modified) {
	for _, m := range files {
		if m.Kept {
			fmt.Fprintf(w, "preserved: %s: %s\n", m.Path, m.Reason)
		}
	}
}

// openBase opens what a delta is applied to.
func (a *app) openBase(ctx context.Context, arg string) (delta.Base, func(), error) {
	if isPath(arg) {
		t, err := tree.Open(arg, tree.Options{})
		if err != nil {
			return nil, nil, err
		}
		return delta.TreeBase{Tree: t}, func() { t.Close() }, nil
	}
	v, err := a.openVersion(ctx, arg, nil)
	if err != nil {
		return nil, nil, err
	}
	return delta.StoredBase{Manifest: v.manifest, Files: v}, v.close, nil
}

func (a *app) applyInPlace(ctx context.Context, d *delta.Delta, o applyOptions) error {
	report, err := delta.ApplyInPlace(ctx, d, o.inPlace, delta.InPlaceOptions{
		Force: o.force, Match: matchRules(d.Info.IgnoreCase), Progress: a.progress("updating "+o.inPlace, d.Target.Size()),
	})
	if err != nil {
		return err
	}
	a.warnForced(o.inPlace, report.Forced)
	for _, m := range report.Modified {
		if m.Kept {
			a.skipped++
		}
	}
	return a.print(report, func(w io.Writer) {
		if report.Already {
			fmt.Fprintf(w, "%s is %s already\n", o.inPlace, d.Info.TargetVersion)
			printPreserved(w, report.Preserved)
			return
		}
		fmt.Fprintf(w, "%s is %s: %s replaced, %d added, %d removed; ferry delta undo %s takes it back\n",
			o.inPlace, d.Info.TargetVersion, count(report.Replaced, "file"), report.Added, report.Removed, o.inPlace)
		printModified(w, report.Modified)
		printPreserved(w, report.Preserved)
	})
}

func printModified(w io.Writer, modified []delta.Modified) {
	for _, m := range modified {
		what := "replaced"
		if m.Kept {
			what = "kept"
		}
		fmt.Fprintf(w, "%s: %s: %s\n", what, m.Path, m.Reason)
	}
}

func newDeltaUndoCommand(a *app) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "undo DIR",
		Short: "Take the last in-place apply back",
		Long: `Brings a folder back to what it was before the last "ferry delta apply
--in-place", from what that kept; nothing is shipped. Also takes back one that
was interrupted. When files were changed since, nothing is done unless --force.` + "\n" + exitHelp,
		Example: `  ferry delta undo C:\k2s`,
		Args:    exactly(1, "DIR"),
		RunE:    func(cmd *cobra.Command, args []string) error { return runDeltaUndo(cmd.Context(), a, args[0], force) },
	}
	cmd.Flags().BoolVar(&force, "force", false, "also drop changes made since the apply")
	return cmd
}

func runDeltaUndo(ctx context.Context, a *app, dir string, force bool) error {
	report, err := delta.Undo(ctx, dir, force)
	if report != nil && errors.Is(err, delta.ErrModified) {
		for _, m := range report.Modified {
			a.warn(manifest.Warning{Path: m.Path, Text: m.Reason})
		}
	}
	if err != nil {
		return err
	}
	return a.print(report, func(w io.Writer) {
		fmt.Fprintf(w, "%s is %s again: %s restored, %d removed\n", dir, report.Base, count(report.Restored, "file"), report.Removed)
	})
}
