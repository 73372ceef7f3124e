package bundle

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"ferry/cas"
	"ferry/manifest"
	"ferry/manifest/addon"
)

// Options say what a bundle is to hold, and how.
type Options struct {
	// Format is FormatOCI or FormatZip; empty means FormatOCI.
	Format Format
	// Root is the folder of the addons in the package, ManifestName the file that
	// describes one, VersionFile the file that holds the version; empty means
	// DefaultRoot, DefaultManifestName and DefaultVersionFile.
	Root, ManifestName, VersionFile string
	// Addons names what is wanted, as addon.ParseSelection takes it; none means all.
	Addons []string
	// Product and Version are that of the package; empty means DefaultProduct, and what
	// VersionFile says.
	Product, Version string
	// Time is when the bundle says that it was made, in seconds since 1970; 0 means
	// when the newest of the addons' files was changed.
	Time int64
	// OmitImages and OmitPackages leave these out.
	OmitImages, OmitPackages bool
	// Images and Packages are folders to look in, or single files. After them, the
	// package itself is looked in.
	Images, Packages []string
	// Annotations are put on an OCI bundle and each of its manifests, beside those
	// that say what it holds.
	Annotations map[string]string
	// AllowMissing makes a bundle although something that the addons need is not
	// found; the bundle says so.
	AllowMissing bool
	// Progress is told the bytes read of images and packages; nil is allowed.
	Progress cas.Counter
}

func (o Options) withDefaults() Options {
	o.Format = cmp.Or(o.Format, FormatOCI)
	o.Root = cmp.Or(o.Root, DefaultRoot)
	o.ManifestName = cmp.Or(o.ManifestName, DefaultManifestName)
	o.VersionFile = cmp.Or(o.VersionFile, DefaultVersionFile)
	o.Product = cmp.Or(o.Product, DefaultProduct)
	return o
}

// Plan says what goes into a bundle. Close it.
type Plan struct {
	// Missing lists what is needed and was not found.
	Missing []Missing
	// Version is the package's.
	Version string

	opts     Options
	m        *manifest.Manifest
	files    Files
	all      bool // no addon was left out by name
	names    string
	created  int64
	parts    []*part
	images   pool
	packages pool
}

// part is one implementation on its way into a bundle.
type part struct {
	addon    *addon.Addon
	impl     *addon.Implementation
	files    []manifest.Entry // of the implementation alone
	shared   []manifest.Entry // of the addon, besides
	yaml     []byte           // the addon's manifest as it goes into the bundle
	yamlFile manifest.Entry   // where it comes from
	images   []wantedImage
	packages []wantedFile
}

// wantedImage is an image that goes into a bundle.
type wantedImage struct {
	ref    addon.Reference
	system string
	from   *image
}

// wantedFile is a package or download that does.
type wantedFile struct {
	path string // in the bundle's layer or folder of packages
	kind Kind
	name string // of the Debian package, or the address
	from *candidate
}

// folder is where the part's files stand in a bundle, below the root.
func (p *part) folder() string { return folderOf(p.addon.Name, p.impl.Name) }

func (p *part) title() string { return title(p.addon.Name, p.impl.Name) }

func (p *part) version() string {
	if p.impl.Version == "" {
		return defaultVersion
	}
	return p.impl.Version
}

func (p *Plan) description(part *part) string {
	if part.addon.Description == "" {
		return p.opts.Product + " addon: " + part.addon.Name
	}
	return part.addon.Description
}

// missingOf returns what a part lacks.
func (p *Plan) missingOf(part *part) []Missing {
	var missing []Missing
	for _, m := range p.Missing {
		if m.Addon == part.addon.Name && m.Implementation == part.impl.Name {
			missing = append(missing, m)
		}
	}
	return missing
}

// NewPlan finds all that a bundle of m's addons needs. Errors are those of
// addon.ParseSelection and of the files, and [*MissingError].
func NewPlan(ctx context.Context, m *manifest.Manifest, files Files, opts Options) (*Plan, error) {
	p := &Plan{opts: opts.withDefaults(), m: m, files: files}
	if err := p.prepare(ctx); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Close closes what was opened to look for images and packages.
func (p *Plan) Close() {
	p.images.close()
	p.packages.close()
}

func (p *Plan) prepare(ctx context.Context) error {
	switch p.opts.Format {
	case FormatOCI, FormatZip:
	default:
		return fmt.Errorf("bundle format %q: not oci or zip", p.opts.Format)
	}
	all, err := addon.Find(ctx, p.m, p.opts.Root, p.opts.ManifestName, p.read)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return &cas.NotFoundError{What: "file", Name: p.opts.Root + "/*/" + p.opts.ManifestName}
	}
	chosen, err := addon.ParseSelection(all, p.opts.Addons)
	if err != nil {
		return err
	}
	p.all, p.names = chosen.Everything(), chosen.ExportName()
	for _, a := range chosen.Addons() {
		if err := p.addAddon(&a, allOf(all, a.Name)); err != nil {
			return err
		}
	}
	if err := p.readVersion(ctx); err != nil {
		return err
	}
	p.settleTime()
	return p.resolve(ctx)
}

// allOf returns an addon with all its implementations.
func allOf(all []addon.Addon, name string) *addon.Addon {
	i := slices.IndexFunc(all, func(a addon.Addon) bool { return a.Name == name })
	return &all[i]
}

// read gives a small file of the version.
func (p *Plan) read(ctx context.Context, e manifest.Entry) ([]byte, error) {
	var b bytes.Buffer
	err := p.files.WriteFile(ctx, &b, e)
	return b.Bytes(), err
}

// maxVersion bounds a VERSION file in bytes.
const maxVersion = 256

func (p *Plan) readVersion(ctx context.Context) error {
	p.Version = p.opts.Version
	e, ok := p.m.Find(p.opts.VersionFile)
	if p.Version != "" || !ok || e.Type != manifest.TypeFile || e.Size > maxVersion {
		return nil
	}
	data, err := p.read(ctx, e)
	if err != nil {
		return err
	}
	p.Version = strings.TrimSpace(strings.TrimPrefix(string(data), utf8BOM))
	return nil
}

// settleTime decides when the bundle was made.
func (p *Plan) settleTime() {
	if p.created = p.opts.Time; p.created != 0 {
		return
	}
	for _, part := range p.parts {
		for _, e := range slices.Concat(part.files, part.shared, []manifest.Entry{part.yamlFile}) {
			p.created = max(p.created, e.ModTime)
		}
	}
}

// addAddon takes the files of the chosen implementations of an addon.
func (p *Plan) addAddon(a, whole *addon.Addon) error {
	if err := checkName("addon", a.Name); err != nil {
		return err
	}
	yamlFile, _ := p.m.Find(a.ManifestPath)
	yaml := a.Manifest()
	if len(a.Implementations) < len(whole.Implementations) {
		var keep []string
		for _, im := range a.Implementations {
			keep = append(keep, im.Name)
		}
		var err error
		if yaml, err = addon.Filtered(yaml, keep); err != nil {
			return fmt.Errorf("%s: %w", a.ManifestPath, err)
		}
	}
	for i := range a.Implementations {
		im := &a.Implementations[i]
		if err := checkName("implementation of addon "+a.Name, im.Name); err != nil {
			return err
		}
		part := &part{addon: a, impl: im, yaml: yaml, yamlFile: yamlFile}
		for _, e := range p.m.Within(a.Folder) {
			switch owner := ownerOf(whole, e.Path); {
			case e.Path == a.ManifestPath:
			case owner != nil && owner.Name == im.Name:
				part.files = append(part.files, e)
			case owner == nil:
				part.shared = append(part.shared, e)
			}
		}
		if err := checkLinks(part.files, im.Folder); err != nil {
			return err
		}
		if err := checkLinks(part.shared, a.Folder); err != nil {
			return err
		}
		p.parts = append(p.parts, part)
	}
	return nil
}

// checkLinks refuses symbolic links that lead out of a folder.
func checkLinks(entries []manifest.Entry, folder string) error {
	for _, e := range entries {
		if e.Type == manifest.TypeLink {
			if err := checkLink(strings.TrimPrefix(e.Path, folder+"/"), e.Link); err != nil {
				return err
			}
		}
	}
	return nil
}

// ownerOf returns the implementation whose folder holds a path of the addon, the
// innermost if one folder is in another; nil for what belongs to none.
func ownerOf(a *addon.Addon, p string) *addon.Implementation {
	var owner *addon.Implementation
	for i := range a.Implementations {
		im := &a.Implementations[i]
		if strings.HasPrefix(p, im.Folder+"/") && (owner == nil || len(im.Folder) > len(owner.Folder)) {
			owner = im
		}
	}
	return owner
}

// resolve finds the images and packages that the parts need.
func (p *Plan) resolve(ctx context.Context) error {
	for _, pools := range []struct {
		pool  *pool
		omit  bool
		names []string
	}{{&p.images, p.opts.OmitImages, p.opts.Images}, {&p.packages, p.opts.OmitPackages, p.opts.Packages}} {
		if pools.omit {
			continue
		}
		for _, name := range pools.names {
			if err := pools.pool.addFolder(ctx, name); err != nil {
				return err
			}
		}
		pools.pool.addVersion(p.m, p.files)
	}
	for _, part := range p.parts {
		if !p.opts.OmitImages {
			if err := p.resolveImages(ctx, part); err != nil {
				return err
			}
		}
		if !p.opts.OmitPackages {
			if err := p.resolvePackages(ctx, part); err != nil {
				return err
			}
		}
	}
	if len(p.Missing) > 0 && !p.opts.AllowMissing {
		return &MissingError{p.Missing, p.images.unreadable}
	}
	return nil
}

func (p *Plan) miss(part *part, kind Kind, system, name, in string) {
	p.Missing = append(p.Missing, Missing{part.addon.Name, part.impl.Name, kind, system, name, in})
}

func (p *Plan) resolveImages(ctx context.Context, part *part) error {
	needed, err := part.impl.Images(ctx, p.m, p.read)
	if err != nil {
		return err
	}
	for _, side := range []struct {
		system string
		images []addon.Image
	}{{linux, needed.Linux}, {windows, needed.Windows}} {
		for _, im := range side.images {
			found, err := p.images.findImage(ctx, im.Reference, side.system)
			if err != nil {
				return err
			}
			if found == nil {
				p.miss(part, KindImage, side.system, im.Reference.Familiar(), strings.Join(im.Found, ", "))
				continue
			}
			part.images = append(part.images, wantedImage{im.Reference, side.system, found})
		}
	}
	return nil
}

func (p *Plan) resolvePackages(ctx context.Context, part *part) error {
	needs := part.impl.Needs
	for _, name := range needs.Debs {
		found, err := p.packages.findDebian(ctx, name)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			p.miss(part, KindDebian, linux, name, "")
			continue
		}
		folder, _, _ := strings.Cut(name, "=")
		if err := checkName("Debian package", folder); err != nil {
			return err
		}
		for _, c := range found {
			part.packages = append(part.packages, wantedFile{path.Join(debianFolder, folder, path.Base(c.path)), KindDebian, name, c})
		}
	}
	for _, side := range []struct {
		system, folder string
		curl           []addon.Download
	}{{linux, linuxFolder, needs.Linux.Curl}, {windows, windowsFolder, needs.Windows.Curl}} {
		for _, d := range side.curl {
			c := p.packages.findDownload(d.URL, side.system)
			if c == nil {
				p.miss(part, KindDownload, side.system, strings.TrimSpace(d.URL), "")
				continue
			}
			part.packages = append(part.packages, wantedFile{path.Join(side.folder, path.Base(c.path)), KindDownload, strings.TrimSpace(d.URL), c})
		}
	}
	slices.SortFunc(part.packages, func(a, b wantedFile) int { return strings.Compare(a.path, b.path) })
	part.packages = slices.CompactFunc(part.packages, func(a, b wantedFile) bool { return a.path == b.path })
	return nil
}

// Name returns what the bundle's file is called: as K2s calls it for OCI.
func (p *Plan) Name() string {
	if p.opts.Format == FormatZip {
		return "addons.zip"
	}
	version := p.Version
	if version == "" {
		version = "0.0.0"
	}
	return fileName(p.opts.Product) + "-" + fileName(version) + "-addons-" + nameBlanks.ReplaceAllString(p.names, "-") + ".oci.tar"
}

func (p *Plan) exportType() string {
	if p.all {
		return "all"
	}
	return "specific"
}

// Size returns the bytes of all images and packages that are read, for progress:
// each is read twice.
func (p *Plan) Size() int64 {
	sum := int64(0)
	for _, c := range p.candidates() {
		sum += 2 * c.size
	}
	return sum
}

func (p *Plan) candidates() []*candidate {
	var all []*candidate
	for _, part := range p.parts {
		for _, im := range part.images {
			all = append(all, im.from.candidate)
		}
		for _, f := range part.packages {
			all = append(all, f.from)
		}
	}
	seen := map[*candidate]bool{}
	return slices.DeleteFunc(all, func(c *candidate) bool {
		defer func() { seen[c] = true }()
		return seen[c]
	})
}
