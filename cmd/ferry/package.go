package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"ferry/cas"
	"ferry/cas/durable"
	"ferry/chunking"
	"ferry/export"
	"ferry/manifest"
	"ferry/manifest/addon"
	"ferry/manifest/place"
	"ferry/manifest/profile"
	"ferry/manifest/tree"
)

type packageOptions struct {
	dir, name    string
	offline      bool
	variant      string
	profile      string
	addons       string
	method       string
	noSums       bool
	allowMissing bool
	force        bool
}

// defaultProfile is the profile that is meant where none is named.
const defaultProfile = "k2s"

func newPackageCommand(a *app) *cobra.Command {
	var o packageOptions
	cmd := &cobra.Command{
		Use:   "package -d DIR -n NAME.zip SOURCE|REF",
		Short: "Make a product's full package by its profile",
		Long: `Makes the full package of a product, a zip, from a working tree, an archive or a
version in the store. The profile says what belongs to it: see "ferry profile".
What is left out is counted by rule; --json lists it all.

With --for-offline-installation, the package has the offline artefacts, too; those
that are missing are all named, and nothing is made. --addons-list takes addons and
implementations by name ("ingress nginx,monitoring"), or none; of an addon taken in
part, the manifest is rewritten. A file that cannot be read fails the package.

SHA256SUMS lists the sums of all files, for "sha256sum -c", and PACKAGE-README.txt
says what the package is. Both are made anew and stand in its root; added to a
store, or installed, they are files like others. --no-sums leaves them out.

NAME.zip appears when it is whole, and every entry was read back and compared.
SOURCE is only read. --profile Dev and --profile Lite mean the variant of k2s, as
K2s' own tool has it.` + "\n" + exitHelp,
		Example: `  ferry package -d out -n k2s-1.8.0.zip --for-offline-installation C:\src\k2s
  ferry package -d out -n k2s-lite.zip --variant Lite --addons-list ingress-nginx,monitoring k2s@1.8.0
  ferry package -d out -n my.zip --profile my.yaml ./my-product`,
		Args: exactly(1, "SOURCE or REF"),
		RunE: func(cmd *cobra.Command, args []string) error { return runPackage(cmd.Context(), a, o, args[0]) },
	}
	cmd.Flags().StringVarP(&o.dir, "target-dir", "d", "", "the folder for the package; it must exist")
	cmd.Flags().StringVarP(&o.name, "name", "n", "", "the package's file name, NAME.zip")
	cmd.Flags().BoolVar(&o.offline, "for-offline-installation", false, "include what an installation without a network needs")
	cmd.Flags().StringVar(&o.variant, "variant", "", "a variant of the profile, such as Lite (default the profile's own)")
	cmd.Flags().StringVar(&o.profile, "profile", defaultProfile, "a built-in profile, or a FILE.yaml")
	cmd.Flags().StringVar(&o.addons, "addons-list", "", "addons to include, with commas between, or none (default all)")
	cmd.Flags().StringVar(&o.method, "method", string(export.MethodDeflate), "how the zip compresses: deflate, store or zstd")
	cmd.Flags().BoolVar(&o.noSums, "no-sums", false, "leave SHA256SUMS and PACKAGE-README.txt out")
	cmd.Flags().BoolVar(&o.allowMissing, "allow-missing", false, "only warn of offline artefacts and mandatory files that are missing")
	cmd.Flags().BoolVar(&o.force, "force", false, "replace a package that stands there")
	return cmd
}

// packageResult is what package prints.
type packageResult struct {
	Output    string             `json:"output"`
	Profile   string             `json:"profile"`
	Version   string             `json:"version"`
	Variant   string             `json:"variant"`
	Offline   bool               `json:"offline"`
	Addons    []string           `json:"addons"` // null: all, unasked
	Manifest  cas.Digest         `json:"manifest"`
	Stats     place.Stats        `json:"stats"`
	Packed    int64              `json:"package_bytes"`
	Rewritten []string           `json:"rewritten"`
	Excluded  []profile.Excluded `json:"excluded"`
	Missing   []string           `json:"missing"`
	Leftovers []leftovers        `json:"leftovers,omitempty"`
	Seconds   float64            `json:"seconds"`
}

// leftovers says what compacting a disk image would save, unpacked.
type leftovers struct {
	Path string `json:"path"`
	Size int64  `json:"size_bytes"`
}

func runPackage(ctx context.Context, a *app, o packageOptions, arg string) error {
	p, err := o.check()
	if err != nil {
		return err
	}
	target := filepath.Join(o.dir, o.name)
	if err := mayWrite(o.dir, target, o.force); err != nil {
		return err
	}
	begun := time.Now()
	opts := profile.SelectOptions{Variant: o.variant, Offline: o.offline, AllowMissing: o.allowMissing}
	v, err := a.openForPackage(ctx, arg, target, p, &opts)
	if err != nil {
		return err
	}
	defer v.close()
	if opts.Addons, err = chooseAddons(ctx, v, p, o.addons); err != nil {
		return err
	}
	s, err := p.Select(v.manifest, opts)
	if err != nil {
		return fmt.Errorf("%s: %w", arg, err)
	}
	if err := withoutOwn(s); err != nil {
		return err
	}
	for _, path := range s.Missing {
		a.warn(manifest.Warning{Path: path, Text: "missing from the package", Skipped: true})
	}
	r := packageResult{
		Output: target, Profile: p.Name, Variant: s.Variant, Offline: o.offline, Excluded: s.Excluded, Missing: append([]string{}, s.Missing...),
	}
	if !opts.Addons.Everything() {
		r.Addons = opts.Addons.Titles()
	}
	if r.Version, err = packageVersion(ctx, v, p, s.Manifest); err != nil {
		return fmt.Errorf("%s: %w", arg, err)
	}
	content, err := packageContent(ctx, a, v, s, opts.Addons, r, !o.noSums)
	if err != nil {
		return err
	}
	r.Manifest, r.Rewritten = content.manifest.ID(), content.rewritten
	if v.packed == 0 { // of an archive, images would have to be unpacked for it
		if r.Leftovers = imageLeftovers(ctx, v, content.manifest); ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if r.Stats, r.Packed, err = a.writePackage(ctx, content, target, o); err != nil {
		return err
	}
	r.Seconds = time.Since(begun).Seconds()
	return a.print(r, func(w io.Writer) { printPackage(w, r) })
}

// imageLeftovers looks for what is left of deleted files in the disk images of a
// package. It is advice: images that cannot be looked into have none.
func imageLeftovers(ctx context.Context, v *version, m *manifest.Manifest) (all []leftovers) {
	for _, e := range m.Entries {
		if e.Type != manifest.TypeFile || !looksLikeImage(e.Path) {
			continue
		}
		m, err := storedImage(ctx, v, e.Path)
		if err != nil {
			continue
		}
		if c, err := m.Compacted(ctx); err == nil {
			if n, err := c.Freed(ctx); err == nil && n > 0 {
				all = append(all, leftovers{e.Path, n})
			}
		}
		m.close()
	}
	return all
}

// check checks the flags, and opens the profile.
func (o *packageOptions) check() (*profile.Profile, error) {
	switch method := export.Method(o.method); {
	case o.dir == "":
		return nil, usagef("say with -d in which folder the package shall be")
	case o.name == "":
		return nil, usagef("say with -n what the package shall be called")
	case o.name != filepath.Base(o.name) || strings.ContainsAny(o.name, `/\`):
		return nil, usagef("-n is a file name, not %q; -d names the folder", o.name)
	case !strings.EqualFold(filepath.Ext(o.name), ".zip"):
		return nil, usagef("-n must end in .zip, %q does not", o.name)
	case method != export.MethodDeflate && method != export.MethodStore && method != export.MethodZstd:
		return nil, fmt.Errorf("%w: %q", export.ErrMethod, o.method)
	}
	p, err := openProfile(o.profile)
	if errors.Is(err, cas.ErrNotFound) && o.variant == "" { // K2s calls its variants profiles
		if k2s, _, _ := profile.Builtin(defaultProfile); k2s != nil {
			if name, unknown := k2s.Variant(o.profile); unknown == nil {
				o.variant = name
				return k2s, nil
			}
		}
	}
	if err != nil {
		return nil, err
	}
	if _, err := p.Variant(o.variant); err != nil {
		return nil, usagef("%v", err)
	}
	return p, nil
}

// mayWrite refuses a folder that is none, and a package that stands already.
func mayWrite(dir, target string, force bool) error {
	fi, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !fi.IsDir() {
		return fmt.Errorf("%s: not a folder", dir)
	}
	fi, err = os.Lstat(target)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case fi.IsDir():
		return fmt.Errorf("%s: %w, and is a folder", target, place.ErrExists)
	case !force:
		return fmt.Errorf("%s: %w; --force replaces it", target, place.ErrExists)
	}
	return nil
}

// openForPackage opens a version. Of a path, what the profile leaves out is not
// read, and noted in opts.
func (a *app) openForPackage(ctx context.Context, arg, target string, p *profile.Profile, opts *profile.SelectOptions) (*version, error) {
	if !isPath(arg) {
		return a.openVersion(ctx, arg, nil)
	}
	filter, err := p.Filter(*opts)
	if err != nil {
		return nil, err
	}
	t, err := tree.Open(arg, tree.Options{})
	if err != nil {
		return nil, err
	}
	part := &partTree{Tree: t, filter: filter, excluded: map[string]profile.Excluded{}, closed: len(p.Include) == 0 && len(p.Variants[p.DefaultVariant].Include) == 0}
	if v, err := p.Variant(opts.Variant); err == nil {
		part.closed = len(p.Include) == 0 && len(p.Variants[v].Include) == 0
	}
	part.output = within(arg, target)
	progress := a.progress("reading "+arg, a.treeSize(ctx, part))
	scan, err := manifest.ScanTree(ctx, part, chunking.Default(), manifest.AddOptions{Progress: progress, Warn: a.warn})
	a.endProgress()
	if err != nil {
		t.Close()
		return nil, fmt.Errorf("%s: %w", arg, err)
	}
	for _, x := range part.excluded { // Select sorts them
		opts.Excluded = append(opts.Excluded, x)
	}
	v := &version{files: scan, label: arg, manifest: scan.Manifest, close: func() { scan.Close(); t.Close() }}
	if fi, err := os.Stat(arg); err == nil && !fi.IsDir() {
		v.packed = fi.Size()
	}
	return v, nil
}

// partTree is a tree without what a filter leaves out, of which it keeps a list.
type partTree struct {
	tree.Tree
	filter   *profile.Filter
	excluded map[string]profile.Excluded
	closed   bool   // nothing below an excluded folder is included
	output   string // what is being written, if that is in the tree
}

// within returns the path in a folder of a file, or "" if it is not in that.
func within(folder, file string) string {
	folder, err := filepath.Abs(folder)
	if err != nil {
		return ""
	}
	if file, err = filepath.Abs(file); err != nil {
		return ""
	}
	rel, err := filepath.Rel(folder, file)
	if err != nil || !filepath.IsLocal(rel) {
		return ""
	}
	return filepath.ToSlash(rel)
}

// Walk gives folders last: those that are empty only for what is left out of them are
// left out, too, as they are of a version in the store.
func (t *partTree) Walk(ctx context.Context, fn func(tree.Node, func() (io.ReadCloser, error)) error) error {
	var folders []tree.Node
	emptied := map[string]bool{}
	err := t.Tree.Walk(ctx, func(n tree.Node, open func() (io.ReadCloser, error)) error {
		rule, ok := t.filter.Excludes(n.Path, n.Kind == tree.Dir)
		if t.output != "" && n.Path == t.output {
			rule, ok = "the package itself", true
		}
		switch {
		case ok:
			for dir := path.Dir(n.Path); dir != "." && !emptied[dir]; dir = path.Dir(dir) {
				emptied[dir] = true
			}
			if n.Kind != tree.Dir {
				t.excluded[n.Path] = profile.Excluded{Path: n.Path, Size: n.Size, Rule: rule}
			} else if t.closed && t.Format() == "directory" {
				t.excluded[n.Path] = profile.Excluded{Path: n.Path + "/", Rule: rule}
				return fs.SkipDir // it need not be readable
			}
			return nil
		case n.Kind == tree.Dir:
			folders = append(folders, n)
			return nil
		}
		return fn(n, open)
	})
	for _, n := range folders {
		if err == nil && !emptied[n.Path] {
			err = fn(n, nil)
		}
	}
	return err
}

// reader returns what reads small files of a version whole.
func (v *version) reader() addon.ReadFunc {
	return func(ctx context.Context, e manifest.Entry) ([]byte, error) {
		var b bytes.Buffer
		err := v.WriteFile(ctx, &b, e)
		return b.Bytes(), err
	}
}

// chooseAddons parses a list of addons; nil stands for all of them.
func chooseAddons(ctx context.Context, v *version, p *profile.Profile, list string) (*addon.Selection, error) {
	if strings.TrimSpace(list) == "" {
		return nil, nil
	}
	if p.Addons.Root == "" {
		return nil, usagef("profile %s has no addons to choose from", p.Name)
	}
	all, err := addon.Find(ctx, v.manifest, p.Addons.Root, p.Addons.Manifest, v.reader())
	if err != nil {
		return nil, err
	}
	chosen, err := addon.ParseSelection(all, []string{list})
	if errors.Is(err, addon.ErrSelection) {
		return nil, usagef("--addons-list: %v", err)
	}
	return chosen, err
}

// packageVersion returns which version a tree says it is, "" if it does not say.
func packageVersion(ctx context.Context, v *version, p *profile.Profile, m *manifest.Manifest) (string, error) {
	text, err := p.Version(func(path string) ([]byte, error) {
		e, ok := m.Find(path)
		if !ok || e.Type != manifest.TypeFile {
			return nil, fs.ErrNotExist
		}
		if e.Size > 1<<10 {
			return nil, fmt.Errorf("%s: %w: %d bytes are no version", path, manifest.ErrInvalid, e.Size)
		}
		return v.reader()(ctx, e)
	})
	if errors.Is(err, profile.ErrNoVersion) || errors.Is(err, fs.ErrNotExist) {
		return "", nil // a profile that minds calls the file mandatory
	}
	return text, err
}

// writePackage writes the zip beside its name, reads it back, and gives it its name
// only when every entry is what it should be.
func (a *app) writePackage(ctx context.Context, c *packaged, target string, o packageOptions) (stats place.Stats, packed int64, err error) {
	dir, err := os.MkdirTemp(o.dir, durable.TempPattern)
	if err != nil {
		return stats, 0, err
	}
	defer os.RemoveAll(dir)
	written := filepath.Join(dir, o.name)
	stats, err = export.Export(ctx, c, c.manifest, written, export.FormatZip, export.Options{
		Method: export.Method(o.method),
		Place:  place.Options{Progress: a.progress("writing "+o.name, c.manifest.Size()), Warn: a.warn},
	})
	if err != nil {
		return stats, 0, err
	}
	if err := a.readBack(ctx, c.manifest, written, target); err != nil {
		return stats, 0, err
	}
	fi, err := os.Stat(written)
	if err != nil {
		return stats, 0, err
	}
	if err := mayWrite(o.dir, target, o.force); err != nil { // since we looked
		return stats, 0, err
	}
	if err := durable.Rename(written, target); err != nil {
		return stats, 0, err
	}
	return stats, fi.Size(), durable.SyncDir(o.dir)
}

// readBack compares a zip that was just written with what should be in it.
func (a *app) readBack(ctx context.Context, m *manifest.Manifest, written, target string) error {
	t, err := tree.Open(written, tree.Options{})
	if err != nil {
		return fmt.Errorf("%s: reading it back: %w", target, err)
	}
	defer t.Close()
	report, err := manifest.Verify(ctx, t, m, manifest.VerifyOptions{Progress: a.progress("verifying "+filepath.Base(target), m.Size())})
	a.endProgress()
	if err != nil {
		return err
	}
	if n := len(report.Findings); n > 0 {
		f := report.Findings[0]
		return fmt.Errorf("%s: reading it back: %w: %s in all, the first: %s: %s: %s", target, errFindings, count(n, "finding"), f.Kind, f.Path, f.Detail)
	}
	return nil
}

func printPackage(w io.Writer, r packageResult) {
	what := strings.TrimSpace(strings.Join([]string{r.Profile, r.Version, r.Variant}, " "))
	if r.Offline {
		what += ", for offline installation"
	}
	fmt.Fprintf(w, "%s: %s: %s, %s in %s, read back (%s)\n", r.Output, strings.Join(strings.Fields(what), " "),
		count(r.Stats.Files, "file"), size(r.Stats.Size), size(r.Packed), rate(r.Stats.Size, r.Seconds))
	if r.Addons != nil {
		fmt.Fprintf(w, "addons: %s\n", orNone(r.Addons))
	}
	for _, path := range r.Rewritten {
		fmt.Fprintf(w, "rewritten: %s\n", path)
	}
	printExcluded(w, r.Excluded)
	for _, l := range r.Leftovers {
		fmt.Fprintf(w, "%s: %s is what is left of deleted files: ferry image compact drops that\n", l.Path, size(l.Size))
	}
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// printExcluded sums what was left out up by rule, in the order in which the rules
// come first.
func printExcluded(w io.Writer, excluded []profile.Excluded) {
	type sum struct {
		files int
		size  int64
	}
	sums := map[string]*sum{}
	var rules []string
	for _, x := range excluded {
		s := sums[x.Rule]
		if s == nil {
			s = &sum{}
			sums[x.Rule] = s
			rules = append(rules, x.Rule)
		}
		s.files++
		s.size += x.Size
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, rule := range rules {
		fmt.Fprintf(t, "left out\t%s\t%s\t%s\n", count(sums[rule].files, "file"), size(sums[rule].size), rule)
	}
	t.Flush()
}
