package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/spf13/cobra"

	"ferry/cas"
	"ferry/chunking/disk"
	"ferry/delta"
	"ferry/manifest"
	"ferry/manifest/place"
	"ferry/manifest/tree"
)

type verifyOptions struct {
	against     string
	ignoreExtra bool
}

func newVerifyCommand(a *app) *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify PATH|REF|DELTA|IMAGE [--against REF|MANIFEST|DELTA]",
		Short: "Compare a folder, package, delta or version with what it should be",
		Long: `Compares every path and every byte of a folder or archive with a version in the
store, a manifest file (ferry show --manifest) or the target of a delta: what is
missing, changed, extra. Where the store knows how a changed file should be cut,
the damaged byte ranges are listed.

Without --against, verifies a delta, a version in the store, or a disk image in
itself: of an image, the checksums and allocation tables of VHDX or VHD, partition
table and file systems.
Nothing is changed. Any finding gives exit status 4.` + "\n" + exitHelp,
		Example: `  ferry verify C:\k2s --against k2s@1.5.0
  ferry verify k2s-1.5.0.zip --against k2s-1.5.0.manifest
  ferry verify C:\k2s --against upgrade.ferry
  ferry verify upgrade.ferry
  ferry verify k2s@1.5.0
  ferry verify Kubemaster-Base.vhdx`,
		Args: exactly(1, "PATH, REF, DELTA or IMAGE"),
		RunE: func(cmd *cobra.Command, args []string) error { return runVerify(cmd.Context(), a, o, args[0]) },
	}
	cmd.Flags().StringVar(&o.against, "against", "", "what it should be: a version, a manifest file or a delta")
	cmd.Flags().BoolVar(&o.ignoreExtra, "ignore-extra", false, "do not mind files that the version does not have")
	return cmd
}

func runVerify(ctx context.Context, a *app, o verifyOptions, arg string) error {
	switch {
	case !isPath(arg) && o.against == "":
		return verifyStored(ctx, a, arg)
	case o.against == "" && wasDelta(arg):
		return verifyDelta(ctx, a, arg)
	case !isPath(arg):
		return usagef("%s is a version in the store, which is verified in itself; ferry diff %s %s compares the two", arg, arg, o.against)
	case o.against == "":
		if found, err := verifyImage(ctx, a, arg); found || err != nil {
			return err
		}
		return usagef("say with --against what %s should be", arg)
	}
	want, err := a.expected(ctx, o.against)
	if err != nil {
		return err
	}
	defer want.close()
	t, err := tree.Open(arg, tree.Options{})
	if err != nil {
		return err
	}
	defer t.Close()
	if err := want.complete(ctx, t); err != nil {
		return err
	}
	report, err := manifest.Verify(ctx, t, want.manifest, manifest.VerifyOptions{
		Chunks: want.chunks, Members: want.members, Progress: a.progress("verifying "+arg, want.manifest.Size()),
		IgnoreModes: runtime.GOOS == "windows" && t.Format() == "directory",
	})
	if err != nil {
		return err
	}
	report.Findings = append(report.Findings, want.missing...)
	if want.delta != nil {
		for i, f := range report.Findings {
			if _, named := want.delta.Target.Find(f.Path); !named && f.Kind == manifest.FindChanged {
				report.Findings[i].Detail = "has other content" // of what length it was, the delta does not say
			}
		}
	}
	if len(report.Findings) == 0 && want.partial {
		return fmt.Errorf("%s: %w: its manifest cannot be put together from these files, though each looks right", o.against, delta.ErrInvalid)
	}
	if o.ignoreExtra {
		report.Findings = withoutExtra(report.Findings)
	}
	if want.delta != nil {
		if err := a.withoutPreserved(want.delta, report); err != nil {
			return err
		}
	}
	return a.printFindings(arg, want.label, report)
}

// withoutPreserved takes findings out that a delta's rules leave to a site, and warns of
// them.
func (a *app) withoutPreserved(d *delta.Delta, report *manifest.VerifyReport) error {
	if len(d.Info.Preserve) == 0 {
		return nil
	}
	preserved, err := matchRules(d.Info.IgnoreCase)(d.Info.Preserve)
	if err != nil {
		return err
	}
	report.Findings = slices.DeleteFunc(report.Findings, func(f manifest.Finding) bool {
		own := preserved(f.Path) && (f.Kind == manifest.FindExtra || f.Kind == manifest.FindChanged)
		if own {
			a.warn(manifest.Warning{Path: f.Path, Text: "is the site's own, which the delta leaves to it"})
		}
		return own
	})
	return nil
}

func withoutExtra(all []manifest.Finding) []manifest.Finding {
	kept := []manifest.Finding{}
	for _, f := range all {
		if f.Kind != manifest.FindExtra {
			kept = append(kept, f)
		}
	}
	return kept
}

// printFindings prints a report, and returns errFindings if there are any.
func (a *app) printFindings(what, against string, report *manifest.VerifyReport) error {
	err := a.print(struct {
		What    string `json:"what"`
		Against string `json:"against"`
		*manifest.VerifyReport
	}{what, against, report}, func(w io.Writer) {
		for _, f := range report.Findings {
			fmt.Fprintf(w, "%s: %s: %s\n", f.Kind, f.Path, f.Detail)
			for _, r := range f.Ranges {
				fmt.Fprintf(w, "  damaged: bytes %d to %d (%s)\n", r.Off, r.End, size(r.End-r.Off))
			}
			for _, name := range f.Members {
				fmt.Fprintf(w, "  damaged: member %s\n", name)
			}
		}
		if len(report.Findings) == 0 {
			fmt.Fprintf(w, "%s is %s: %s, %s, all as they should be\n", what, against, count(report.Files, "file"), size(report.Size))
		} else {
			fmt.Fprintf(w, "%s is not %s: %s in %s\n", what, against, count(len(report.Findings), "finding"), count(report.Files, "file"))
		}
	})
	if err == nil && len(report.Findings) > 0 {
		err = fmt.Errorf("%s: %w", what, errFindings)
	}
	return err
}

// expectation is what something is verified against.
type expectation struct {
	label    string
	manifest *manifest.Manifest
	chunks   func(ctx context.Context, e manifest.Entry) ([]manifest.Chunk, error)
	members  func(ctx context.Context, e manifest.Entry, damaged io.Reader) ([]string, error)
	close    func()
	// delta is where the manifest comes from, if it does: then it is not whole. partial
	// says that completing it did not succeed: then some file is wrong. missing are files
	// that it has no names of.
	delta   *delta.Delta
	partial bool
	missing []manifest.Finding
}

// complete makes the manifest whole by the tree to be verified.
func (want *expectation) complete(ctx context.Context, t tree.Tree) error {
	if want.delta == nil {
		return nil
	}
	d, missing, err := want.delta.Resolve(ctx, delta.TreeBase{Tree: t})
	if err != nil {
		return err
	}
	for _, what := range missing {
		want.missing = append(want.missing, manifest.Finding{Kind: manifest.FindMissing, Path: what, Detail: "the delta does not say its name"})
	}
	m, whole, err := d.Complete(ctx, func(ctx context.Context, e manifest.Entry) (cas.Digest, error) {
		c, err := t.OpenAt(ctx, e.Path)
		if err != nil {
			return cas.Digest{}, ctx.Err() // missing: that is what verifying is to say
		}
		defer c.Close()
		digest, err := place.Digest(ctx, io.NewSectionReader(c, 0, c.Size()))
		if err != nil {
			return cas.Digest{}, ctx.Err()
		}
		return digest, nil
	})
	want.manifest, want.partial = m, !whole
	return err
}

// expected opens a version, a manifest file or a delta.
func (a *app) expected(ctx context.Context, arg string) (*expectation, error) {
	var want *expectation
	switch {
	case !isPath(arg):
	case wasDelta(arg):
		d, err := delta.Open(arg)
		if err != nil {
			return nil, err
		}
		want = &expectation{label: arg, manifest: d.Target, delta: d, close: func() { d.Close() }}
	default:
		m, err := readManifest(arg)
		if err != nil {
			return nil, err
		}
		if m != nil {
			want = &expectation{label: arg, manifest: m, close: func() {}}
		}
	}
	if want == nil {
		v, err := a.openVersion(ctx, arg, nil)
		if err != nil {
			return nil, err
		}
		want = &expectation{label: v.label, manifest: v.manifest, chunks: v.Chunks, close: v.close}
		if archive, ok := v.files.(*manifest.Archive); ok {
			want.members = archive.DamagedMembers
		}
		return want, nil
	}
	// Where a store is at hand that knows a file, it knows how it is cut.
	if archive, err := a.openArchive(ctx, false); err == nil {
		closeFile := want.close
		want.chunks, want.members = archive.Chunks, archive.DamagedMembers
		want.close = func() { archive.Close(); closeFile() }
	}
	return want, nil
}

// wasDelta reports whether a file, or an unpacked folder, is a delta, or a file is
// called one and so damaged that it cannot be told.
func wasDelta(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && (fi.Mode().IsRegular() && filepath.Ext(path) == ".ferry" || delta.IsDelta(path))
}

// readManifest reads a manifest file; nil for anything else.
func readManifest(path string) (*manifest.Manifest, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if fi.IsDir() {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, 12)
	if _, err := io.ReadFull(f, head); err != nil || !bytes.HasPrefix(head, []byte(`{"entries":[`)) {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	m, err := manifest.Decode(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

// verifyStored reads every file of a version in the store.
func verifyStored(ctx context.Context, a *app, ref string) error {
	v, err := a.openVersion(ctx, ref, nil)
	if err != nil {
		return err
	}
	defer v.close()
	report := &manifest.VerifyReport{Findings: []manifest.Finding{}}
	progress := a.progress("verifying "+ref, v.manifest.Size())
	for _, e := range v.manifest.Entries {
		if e.Type != manifest.TypeFile {
			continue
		}
		report.Files++
		report.Size += e.Size
		err := v.WriteFile(ctx, io.Discard, e)
		progress.Add(e.Size)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, cas.ErrNotFound) || errors.Is(err, cas.ErrCorrupt) || errors.Is(err, manifest.ErrInvalid) {
			report.Findings = append(report.Findings, manifest.Finding{Kind: manifest.FindUnreadable, Path: e.Path, Detail: err.Error()})
		} else if err != nil {
			return err
		}
	}
	return a.printFindings(ref, "whole in the store", report)
}

func verifyDelta(ctx context.Context, a *app, path string) error {
	d, err := delta.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	findings := []delta.Finding{}
	if err := d.Verify(ctx, func(f delta.Finding) { findings = append(findings, f) }); err != nil {
		return err
	}
	err = a.print(struct {
		What     string          `json:"what"`
		Findings []delta.Finding `json:"findings"`
	}{path, findings}, func(w io.Writer) {
		for _, f := range findings {
			fmt.Fprintf(w, "%s: %s\n", f.Object, f.Detail)
		}
		if len(findings) == 0 {
			fmt.Fprintf(w, "%s is sound: %s to %s\n", path, d.Info.BaseVersion, d.Info.TargetVersion)
		}
	})
	if err == nil && len(findings) > 0 {
		err = fmt.Errorf("%s: %w", path, errFindings)
	}
	return err
}

// shownFindings is how many findings in an image are listed.
const shownFindings = 1000

// verifyImage looks for damage in a disk image; found is false of any other file.
func verifyImage(ctx context.Context, a *app, path string) (found bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() {
		return false, err
	}
	head := make([]byte, min(disk.Head, fi.Size()))
	if _, err := io.ReadFull(f, head); err != nil || !disk.Recognise(head) && !looksLikeImage(path) {
		return false, err
	}
	findings := []disk.Finding{}
	more := 0
	err = disk.Check(ctx, f, fi.Size(), func(f disk.Finding) {
		if len(findings) < shownFindings {
			findings = append(findings, f)
		} else {
			more++
		}
	})
	if errors.Is(err, disk.ErrFormat) {
		return false, nil
	}
	if err != nil {
		return true, fmt.Errorf("%s: %w", path, err)
	}
	err = a.print(struct {
		What     string         `json:"what"`
		Findings []disk.Finding `json:"findings"`
		More     int            `json:"more_findings,omitempty"`
	}{path, findings, more}, func(w io.Writer) {
		for _, f := range findings {
			fmt.Fprintf(w, "%s: at %d: %s\n", f.Where, f.Off, f.Text)
		}
		if more > 0 {
			fmt.Fprintf(w, "and %d findings more\n", more)
		}
		if len(findings) == 0 {
			fmt.Fprintf(w, "%s is sound: what its own checksums and tables cover, not the content of its files\n", path)
		}
	})
	if err == nil && len(findings) > 0 {
		err = fmt.Errorf("%s: %w", path, errFindings)
	}
	return true, err
}
