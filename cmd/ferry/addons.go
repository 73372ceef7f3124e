package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"ferry/cas"
	"ferry/cas/durable"
	"ferry/export/bundle"
	"ferry/manifest"
	"ferry/manifest/place"
	"ferry/manifest/profile"
	"ferry/manifest/tree"
)

func newAddonsCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "addons",
		Short: "List, export and import the addons of a package",
		Long: `Addons are selectable parts of an offline package: folders below "addons" with a
file addon.manifest.yaml. A bundle carries some of them, with the container
images, Debian packages and downloads that they need.

An addon has one or more implementations. "ingress" means all of them, 'ingress
nginx' one; it may be written as one argument or as two.` + "\n" + exitHelp,
		Example: "  ferry addons export 'ingress nginx' monitoring --from k2s@1.8.0 -d out",
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q for addons", args[0])
			}
			return nil
		},
	}
	cmd.AddCommand(newAddonsListCommand(a), newAddonsExportCommand(a), newAddonsImportCommand(a))
	return cmd
}

// addonsProfile gives a command the flag --profile.
func addonsProfile(cmd *cobra.Command, name *string) {
	cmd.Flags().StringVar(name, "profile", defaultProfile, "the product: a built-in profile, or a FILE.yaml")
}

// openAddonsProfile opens the profile of a product that has addons.
func openAddonsProfile(name string) (*profile.Profile, error) {
	p, err := openProfile(name)
	if err == nil && p.Addons.Root == "" {
		err = usagef("profile %s has no addons", p.Name)
	}
	return p, err
}

func newAddonsListCommand(a *app) *cobra.Command {
	var long bool
	var profileName string
	cmd := &cobra.Command{
		Use:   "list [REF|DIR|BUNDLE]",
		Short: "List the addons of a package or a bundle",
		Long: `Lists the addons of a version, a folder (by default this one) or a bundle, with
the number of images and packages that each needs or that the bundle has for it.
Bundles that K2s made are read, too. With --long, every one of those is listed.` + "\n" + exitHelp,
		Example: `  ferry addons list
  ferry addons list k2s@1.8.0 --long
  ferry addons list K2s-1.8.0-addons-all.oci.tar --json`,
		Args: between(0, 1, "at most one REF, DIR or BUNDLE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := openAddonsProfile(profileName)
			if err != nil {
				return err
			}
			return runAddonsList(cmd.Context(), a, append(args, ".")[0], p, long)
		},
	}
	cmd.Flags().BoolVarP(&long, "long", "l", false, "list every image and package")
	addonsProfile(cmd, &profileName)
	return cmd
}

// addonsListed is what addons list prints.
type addonsListed struct {
	What    string           `json:"what"`
	Format  string           `json:"format,omitempty"` // of a bundle
	Version string           `json:"version,omitempty"`
	Addons  []bundle.Listed  `json:"addons"`
	Missing []bundle.Missing `json:"missing,omitempty"`
}

func runAddonsList(ctx context.Context, a *app, arg string, p *profile.Profile, long bool) error {
	r, err := a.listAddons(ctx, arg, p)
	if err != nil {
		return err
	}
	return a.print(r, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		fmt.Fprintln(t, "ADDON\tVERSION\tFILES\tSIZE\tIMAGES\tPACKAGES\tDESCRIPTION")
		for _, l := range r.Addons {
			fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%d\t%d\t%s\n", l.Title, l.Version, l.Files, size(l.Size+l.ImageSize+l.PackageSize), len(l.Images), len(l.Packages), l.Description)
		}
		t.Flush()
		for _, l := range r.Addons {
			for _, image := range l.Images {
				if long {
					fmt.Fprintf(w, "%s: image %s\n", l.Title, image)
				}
			}
			for _, name := range l.Packages {
				if long {
					fmt.Fprintf(w, "%s: package %s\n", l.Title, name)
				}
			}
		}
		for _, m := range r.Missing {
			fmt.Fprintf(w, "not in the bundle: %s\n", m)
		}
	})
}

func (a *app) listAddons(ctx context.Context, arg string, p *profile.Profile) (addonsListed, error) {
	r := addonsListed{What: arg}
	if fi, err := os.Stat(arg); err == nil && fi.Mode().IsRegular() {
		b, closeBundle, err := a.openBundle(ctx, arg)
		if err == nil {
			defer closeBundle()
			r.Format, r.Version, r.Addons, r.Missing = string(b.Format), b.Version, b.List(), b.Missing
			return r, nil
		}
		if !errors.Is(err, bundle.ErrNotBundle) {
			return r, err
		}
	}
	v, err := a.openVersion(ctx, arg, nil)
	if err != nil {
		return r, err
	}
	defer v.close()
	r.Addons, err = bundle.List(ctx, v.manifest, v, bundle.Options{Root: p.Addons.Root, ManifestName: p.Addons.Manifest})
	return r, err
}

// openBundle opens a bundle and verifies it.
func (a *app) openBundle(ctx context.Context, name string) (*bundle.Bundle, func(), error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s: %w", name, bundle.ErrNotBundle)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	progress := a.progress("verifying "+filepath.Base(name), fi.Size())
	b, err := bundle.Open(ctx, &countedReaderAt{f, progress}, fi.Size())
	a.endProgress()
	if err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	return b, func() { b.Close(); f.Close() }, nil
}

// countedReaderAt counts what is read.
type countedReaderAt struct {
	io.ReaderAt
	c cas.Counter
}

func (r *countedReaderAt) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.ReaderAt.ReadAt(p, off)
	r.c.Add(int64(n))
	return n, err
}

type addonsExportOptions struct {
	from, dir, format        string
	profile                  string
	omitImages, omitPackages bool
	images, packages         []string
	allowMissing, force      bool
}

func newAddonsExportCommand(a *app) *cobra.Command {
	var o addonsExportOptions
	cmd := &cobra.Command{
		Use:   "export [NAME…] -d DIR",
		Short: "Write addons of a package into a bundle",
		Long: `Writes the named addons, all for none, of a version or folder into a bundle in DIR:
K2s-VERSION-addons-NAMES.oci.tar, an OCI image layout that K2s imports, or
addons.zip. No cluster and no network is needed.

The container images that the addons name are looked for in archives (*.tar) of
the folders given with --images and of the package itself, by the names inside; by
the digests, where the addons name those. Debian packages and downloads are looked
for in --packages and the package. The first folder that has it gives it. What is
not found is an error that lists all of it, or a warning with --allow-missing.

Both forms hold a README.txt, and SHA256SUMS to check them without ferry.

The same version gives the same bytes on every system. The bundle's date is that of
its newest file, or SOURCE_DATE_EPOCH. It appears when it is whole and verified.` + "\n" + exitHelp,
		Example: `  ferry addons export --from k2s@1.8.0 -d out --images ./images --packages ./packages
  ferry addons export ingress nginx monitoring --from C:\k2s -d . --format zip
  ferry addons export 'ingress nginx' -d out --omit-images --omit-packages`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return runAddonsExport(cmd.Context(), a, o, args) },
	}
	f := cmd.Flags()
	f.StringVar(&o.from, "from", ".", "the package: a version in the store, a folder or an archive")
	f.StringVarP(&o.dir, "directory", "d", "", "folder to write the bundle to")
	f.StringVar(&o.format, "format", string(bundle.FormatOCI), "oci or zip")
	f.BoolVar(&o.omitImages, "omit-images", false, "leave container images out")
	f.BoolVar(&o.omitPackages, "omit-packages", false, "leave Debian packages and downloads out")
	f.StringArrayVar(&o.images, "images", nil, "look for image archives in this `DIR` (again and again)")
	f.StringArrayVar(&o.packages, "packages", nil, "look for packages and downloads in this `DIR` (again and again)")
	f.BoolVar(&o.allowMissing, "allow-missing", false, "make the bundle though something is missing, and say so in it")
	f.BoolVar(&o.force, "force", false, "replace a bundle that stands there")
	addonsProfile(cmd, &o.profile)
	return cmd
}

// addonsExported is what addons export prints.
type addonsExported struct {
	Output  string  `json:"output"`
	Format  string  `json:"format"`
	Size    int64   `json:"size_bytes"`
	Seconds float64 `json:"seconds"`
	bundle.Summary
}

// productOf returns what a bundle calls the product of a profile, and the annotations
// that it has besides: for K2s, those that K2s itself writes.
func productOf(p *profile.Profile) (name string, notes map[string]string) {
	if p.Name != defaultProfile {
		return p.Name, nil
	}
	return bundle.DefaultProduct, map[string]string{
		"org.opencontainers.image.vendor":   "Siemens Healthineers AG",
		"org.opencontainers.image.licenses": "MIT",
	}
}

func runAddonsExport(ctx context.Context, a *app, o addonsExportOptions, args []string) error {
	if o.dir == "" {
		return usagef("say where to write with -d")
	}
	if o.format != string(bundle.FormatOCI) && o.format != string(bundle.FormatZip) {
		return usagef("--format is oci or zip, not %q", o.format)
	}
	p, err := openAddonsProfile(o.profile)
	if err != nil {
		return err
	}
	made, err := sourceDate()
	if err != nil {
		return err
	}
	v, err := a.openVersion(ctx, o.from, nil)
	if err != nil {
		return err
	}
	defer v.close()
	begun := time.Now()
	var progress lateCounter
	product, notes := productOf(p)
	plan, err := bundle.NewPlan(ctx, v.manifest, v, bundle.Options{
		Format: bundle.Format(o.format), Addons: args, Time: made, OmitImages: o.omitImages, OmitPackages: o.omitPackages,
		Images: o.images, Packages: o.packages, AllowMissing: o.allowMissing, Annotations: notes, Progress: &progress,
		Root: p.Addons.Root, ManifestName: p.Addons.Manifest, VersionFile: p.VersionFile, Product: product,
	})
	if err != nil {
		return fmt.Errorf("%s: %w", o.from, err)
	}
	defer plan.Close()
	r := addonsExported{Output: filepath.Join(o.dir, plan.Name()), Format: o.format, Summary: plan.Summary()}
	progress.c = a.progress("writing "+plan.Name(), plan.Size())
	if r.Size, err = a.writeBundle(ctx, plan, r.Output, o.force); err != nil {
		return err
	}
	for _, m := range plan.Missing {
		a.warn(manifest.Warning{Path: r.Output, Text: "without " + m.String(), Skipped: true})
	}
	for _, f := range r.Foreign {
		a.warn(manifest.Warning{Path: f.Path, Text: f.String()})
	}
	r.Seconds = time.Since(begun).Seconds()
	return a.print(r, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %s, %s, %s, %s, %s (%.1f s)\n", r.Output, count(len(r.Addons), "addon"), count(r.Files, "file"),
			count(r.Images, "image archive"), count(r.Packages, "package"), size(r.Size), r.Seconds)
		for _, title := range r.Addons {
			fmt.Fprintf(w, "  %s\n", title)
		}
	})
}

// sourceDate is the date that SOURCE_DATE_EPOCH gives (reproducible-builds.org), 0
// when it gives none.
func sourceDate() (int64, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		return 0, nil
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seconds <= 0 {
		return 0, usagef("SOURCE_DATE_EPOCH is seconds since 1970, not %q", text)
	}
	return seconds, nil
}

// writeBundle writes a bundle, reads it as its reader will, and then lets it appear.
func (a *app) writeBundle(ctx context.Context, plan *bundle.Plan, name string, force bool) (int64, error) {
	if _, err := os.Lstat(name); err == nil && !force {
		return 0, fmt.Errorf("%s: %w; --force replaces it", name, place.ErrExists)
	}
	f, err := durable.Create(name)
	if err != nil {
		return 0, err
	}
	defer f.Abort()
	if err := f.Chmod(0o644); err != nil {
		return 0, err
	}
	buffered := bufio.NewWriterSize(f, 1<<20)
	if err := plan.Write(ctx, buffered); err != nil {
		return 0, err
	}
	if err := buffered.Flush(); err != nil {
		return 0, err
	}
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	b, err := bundle.Open(ctx, f, fi.Size())
	if err != nil {
		return 0, fmt.Errorf("%s: reading it again: %w", name, err)
	}
	b.Close()
	commit := f.CommitNew
	if force {
		commit = f.Commit
	}
	err = commit()
	if errors.Is(err, os.ErrExist) {
		err = fmt.Errorf("%s: %w; --force replaces it", name, place.ErrExists) // since we looked
	}
	return fi.Size(), err
}

type addonsImportOptions struct {
	file, zip                string
	to, into, base, profile  string
	imagesTo, packagesTo     string
	omitImages, omitPackages bool
	keep                     []string
	force                    bool
}

func newAddonsImportCommand(a *app) *cobra.Command {
	var o addonsImportOptions
	cmd := &cobra.Command{
		Use:   "import [NAME…] -f BUNDLE --to DIR",
		Short: "Bring addons of a bundle into a folder or a version",
		Long: `Brings the named addons, all for none, of a bundle into the installed folder DIR,
or over the version --base as the new version --into of the store. Reads what
"ferry addons export" and K2s write: *.oci.tar, addons.zip and the zips of K2s
before 1.7. All of the bundle is verified first.

An addon that stands there is updated; what was changed is listed. Files that belong
to the site by the profile's "preserve", or by --keep, stay. So do files that were
changed here, which an earlier import or --base tells: they are listed, and the exit
status is 3. Where nothing is known of a file, it is replaced, and what stood there
is kept in .ferry/addons/replaced, until an import replaces other such files. A file
that the bundle does not have is removed when it is known to be the product's; else
it stays and is listed. Nothing is changed unless all can be: killed at any moment,
the same command puts it right.

Images and packages go to .imported in the folder of the addons, where the next
export finds them, or to --images-to and --packages-to, where nothing is replaced. With
--to, downloads for Windows are also put where the addon's manifest says that they
belong (offline_usage, destination), taken out of a zip if need be.` + "\n" + exitHelp,
		Example: `  ferry addons import -f K2s-1.8.0-addons-all.oci.tar --to C:\k2s
  ferry addons import ingress nginx -z addons.zip --to C:\k2s --images-to C:\images
  ferry addons import monitoring -f addons.zip --base k2s@1.8.0 --into k2s@1.8.0-monitoring`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return runAddonsImport(cmd.Context(), a, o, args) },
	}
	f := cmd.Flags()
	f.StringVarP(&o.file, "file", "f", "", "the bundle")
	f.StringVarP(&o.zip, "zip", "z", "", "the bundle; the same as --file")
	f.StringVar(&o.to, "to", "", "the installed folder, or the package's folder")
	f.StringVar(&o.into, "into", "", "the version to make: NAME@VERSION")
	f.StringVar(&o.base, "base", "", "the version that --into starts from, or that DIR was made from")
	f.StringVar(&o.imagesTo, "images-to", "", "folder for image archives")
	f.StringVar(&o.packagesTo, "packages-to", "", "folder for Debian packages and downloads")
	f.BoolVar(&o.omitImages, "omit-images", false, "leave container images in the bundle")
	f.BoolVar(&o.omitPackages, "omit-packages", false, "leave Debian packages and downloads in the bundle")
	f.StringArrayVar(&o.keep, "keep", nil, "keep files that differ if this gitignore `PATTERN` matches (again and again)")
	f.BoolVar(&o.force, "force", false, "replace all such files, too; with --into, replace the version")
	addonsProfile(cmd, &o.profile)
	return cmd
}

// addonsImported is what addons import prints.
type addonsImported struct {
	Bundle string `json:"bundle"`
	To     string `json:"to"`
	*bundle.Report
	Manifest *cas.Digest `json:"manifest,omitempty"` // of the version made
}

func (o addonsImportOptions) check() error {
	switch {
	case (o.file == "") == (o.zip == ""):
		return usagef("name one bundle with -f")
	case (o.to == "") == (o.into == ""):
		return usagef("say where to import: --to DIR or --into NAME@VERSION")
	case o.into != "" && o.base == "":
		return usagef("say with --base which version %s starts from", o.into)
	case o.into != "" && (o.imagesTo != "" || o.packagesTo != ""):
		return usagef("--images-to and --packages-to go with --to, not with --into")
	}
	return nil
}

func runAddonsImport(ctx context.Context, a *app, o addonsImportOptions, args []string) error {
	if err := o.check(); err != nil {
		return err
	}
	p, err := openAddonsProfile(o.profile)
	if err != nil {
		return err
	}
	name := o.file + o.zip
	b, closeBundle, err := a.openBundle(ctx, name)
	if err != nil {
		return err
	}
	defer closeBundle()
	keep := &tree.Filter{}
	for _, pattern := range o.keep {
		keep.Exclude(pattern)
	}
	opts := bundle.ImportOptions{
		OmitImages: o.omitImages, OmitPackages: o.omitPackages, ImagesTo: o.imagesTo, PackagesTo: o.packagesTo, Force: o.force,
		Root: p.Addons.Root, ManifestName: p.Addons.Manifest, VersionFile: p.VersionFile,
		Preserve: func(path string) bool { return p.Preserves(path) || keep.Excludes(path, false) },
	}
	r := addonsImported{Bundle: name, To: o.to + o.into}
	if o.into != "" {
		err = a.importIntoVersion(ctx, b, o, args, opts, &r)
	} else {
		err = a.importIntoFolder(ctx, b, o, args, opts, &r)
	}
	if err != nil {
		return err
	}
	for _, m := range r.Missing {
		a.warn(manifest.Warning{Path: name, Text: "is without " + m.String()})
	}
	for _, k := range r.Kept {
		if k.Edited {
			a.skipped++
		}
	}
	return a.print(r, func(w io.Writer) { printImported(w, r) })
}

func (a *app) importIntoFolder(ctx context.Context, b *bundle.Bundle, o addonsImportOptions, names []string, opts bundle.ImportOptions, r *addonsImported) error {
	if _, err := os.Stat(o.to); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s: %w: no such folder; name the product's folder", o.to, cas.ErrNotFound)
	}
	if o.base != "" {
		base, err := a.openVersion(ctx, o.base, nil)
		if err != nil {
			return err
		}
		opts.Base = base.manifest
		base.close()
	}
	opts.Progress = a.progress("importing", 0)
	var err error
	r.Report, err = bundle.Import(ctx, b, names, o.to, opts)
	return err
}

func (a *app) importIntoVersion(ctx context.Context, b *bundle.Bundle, o addonsImportOptions, names []string, opts bundle.ImportOptions, r *addonsImported) error {
	ref, err := manifest.ParseRef(o.into)
	if err != nil {
		return err
	}
	base, err := a.openVersion(ctx, o.base, nil)
	if err != nil {
		return err
	}
	defer base.close()
	t, report, err := bundle.Overlay(ctx, base.manifest, base, b, names, opts)
	if err != nil {
		return err
	}
	defer t.Close()
	archive, err := a.openArchive(ctx, true)
	if err != nil {
		return err
	}
	defer archive.Close()
	m, _, err := archive.Add(ctx, t, manifest.AddOptions{Members: true, Progress: a.progress("adding "+o.into, base.manifest.Size()), Warn: a.warn})
	if err != nil {
		return err
	}
	source := o.base + " with addons of " + filepath.Base(r.Bundle)
	if _, err := archive.Tag(ctx, ref, m, source, time.Now(), o.force); err != nil {
		return err
	}
	id := m.ID()
	r.Report, r.Manifest = report, &id
	return nil
}

func printImported(w io.Writer, r addonsImported) {
	for _, l := range r.Addons {
		version := l.TargetVersion
		if l.BaseVersion != "" && l.BaseVersion != version {
			version = l.BaseVersion + " -> " + version
		}
		fmt.Fprintf(w, "%s: %s %s\n", l.State, l.Title(), version)
	}
	for _, list := range []struct {
		what  string
		paths []string
	}{{"added", r.Added}, {"changed", r.Changed}, {"removed", r.Removed}} {
		for _, p := range list.paths {
			fmt.Fprintf(w, "  %s %s\n", list.what, p)
		}
	}
	for _, k := range r.Kept {
		fmt.Fprintf(w, "  kept %s: %s\n", k.Path, k.Reason)
	}
	for _, p := range r.Replaced {
		fmt.Fprintf(w, "  replaced %s: what stood there is in %s\n", p, path.Join(filepath.ToSlash(r.To), r.ReplacedIn, p))
	}
	fmt.Fprintf(w, "%s: %s added, %d changed, %d removed, %d kept, %d unchanged; %s, %s\n", r.To, count(len(r.Added), "file"), len(r.Changed),
		len(r.Removed), len(r.Kept), r.Unchanged, count(len(r.Images), "image archive"), count(len(r.Packages), "package"))
	if r.BaseVersion != "" && r.TargetVersion != "" && !strings.EqualFold(r.BaseVersion, r.TargetVersion) {
		fmt.Fprintf(w, "the bundle was made from version %s, and goes into %s\n", r.TargetVersion, r.BaseVersion)
	}
}
