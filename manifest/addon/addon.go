package addon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"ferry/manifest"
	"ferry/manifest/tree"
)

// Addon is an addon of a product.
type Addon struct {
	Name            string           `json:"name"`
	Description     string           `json:"description,omitempty"`
	Folder          string           `json:"folder"`
	ManifestPath    string           `json:"manifest"`
	Implementations []Implementation `json:"implementations"`

	raw []byte // the manifest
}

// Manifest returns the bytes of the addon's manifest. They are not to be changed.
func (a *Addon) Manifest() []byte { return a.raw }

// Implementation is one way to get an addon.
type Implementation struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	Version     string `json:"version,omitempty"`
	// Folder holds its files. It may not exist.
	Folder string `json:"folder"`
	// Export is its name in file names, such as "ingress-nginx", Title its name for
	// people, "ingress nginx". Both are the addon's name when the two are the same.
	Export string `json:"export"`
	Title  string `json:"title"`
	Needs  Needs  `json:"needs"`

	manifestPath string
	others       []string // folders inside Folder that belong to others
}

// Needs is what an implementation says that it needs without a network
// (offline_usage), as it stands there.
type Needs struct {
	Repos   []string      `json:"repos,omitempty"` // shell commands
	Debs    []string      `json:"debs,omitempty"`  // names of Debian packages
	Linux   PlatformNeeds `json:"linux"`
	Windows PlatformNeeds `json:"windows"`
}

// PlatformNeeds is what it needs on one system.
type PlatformNeeds struct {
	Images []string `json:"additional_images,omitempty"`
	// ImageFiles are YAML files that name images, relative to the implementation's
	// folder.
	ImageFiles []string   `json:"additional_images_files,omitempty"`
	Curl       []Download `json:"curl,omitempty"`
}

// Download is a file to be fetched, and where it goes.
type Download struct {
	URL         string `yaml:"url" json:"url"`
	Destination string `yaml:"destination" json:"destination"`
}

// ReadFunc gives the content of an entry.
type ReadFunc func(ctx context.Context, e manifest.Entry) ([]byte, error)

// maxManifest bounds an addon's manifest in bytes.
const maxManifest = 1 << 20

// Find reads the manifests of all addons: the files of the name manifestName in
// folders of root. Addons are sorted by name. A manifest that cannot be read, or
// makes no sense, is an error that names it; the latter matches
// manifest.ErrInvalid.
func Find(ctx context.Context, m *manifest.Manifest, root, manifestName string, read ReadFunc) ([]Addon, error) {
	var all []Addon
	for _, e := range m.Within(root) {
		folder, name := path.Split(e.Path)
		folder = strings.TrimSuffix(folder, "/")
		if name != manifestName || e.Type != manifest.TypeFile || path.Dir(folder) != root {
			continue
		}
		a, err := readAddon(ctx, e, folder, read)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.Path, err)
		}
		for i := range all {
			if strings.EqualFold(all[i].Name, a.Name) {
				return nil, fmt.Errorf("%s: %w: addon %s is described by %s, too", e.Path, manifest.ErrInvalid, a.Name, all[i].ManifestPath)
			}
		}
		a.settle(m)
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b Addon) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

func readAddon(ctx context.Context, e manifest.Entry, folder string, read ReadFunc) (Addon, error) {
	if e.Size > maxManifest {
		return Addon{}, fmt.Errorf("%w: %d bytes, at most %d", manifest.ErrInvalid, e.Size, maxManifest)
	}
	raw, err := read(ctx, e)
	if err != nil {
		return Addon{}, err
	}
	a, err := Parse(raw)
	if err != nil {
		return Addon{}, err
	}
	a.Folder, a.ManifestPath = folder, e.Path
	return *a, nil
}

// document is what of a manifest is of interest.
type document struct {
	Kind     string `yaml:"kind"`
	Metadata struct {
		Name        string `yaml:"name"`
		Description string `yaml:"description"`
	} `yaml:"metadata"`
	Spec struct {
		Implementations []implementation `yaml:"implementations"`
	} `yaml:"spec"`
}

type implementation struct {
	Name         string `yaml:"name"`
	Description  string `yaml:"description"`
	Version      string `yaml:"version"`
	OfflineUsage struct {
		Linux   usage `yaml:"linux"`
		Windows usage `yaml:"windows"`
	} `yaml:"offline_usage"`
}

type usage struct {
	Repos      []string   `yaml:"repos"`
	Debs       []string   `yaml:"deb"`
	Images     []string   `yaml:"additionalImages"`
	ImageFiles []string   `yaml:"additionalImagesFiles"`
	Curl       []Download `yaml:"curl"`
}

func (u usage) needs() PlatformNeeds { return PlatformNeeds{u.Images, u.ImageFiles, u.Curl} }

var utf8BOM = []byte("\uFEFF")

// Parse reads a manifest by itself: no folders are known. The error matches
// manifest.ErrInvalid. Keys that it does not know are ignored.
func Parse(raw []byte) (*Addon, error) {
	var d document
	var root yaml.Node
	err := yaml.Unmarshal(bytes.TrimPrefix(raw, utf8BOM), &root)
	if err == nil && aliased(&root) {
		err = errors.New("aliases are not taken: a few of them stand for any number of values")
	}
	if err == nil && root.Kind != 0 {
		err = root.Decode(&d)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s", manifest.ErrInvalid, oneLine(err))
	}
	if d.Kind != "" && d.Kind != "AddonManifest" {
		return nil, fmt.Errorf("%w: kind %q, want AddonManifest", manifest.ErrInvalid, d.Kind)
	}
	if err := checkName(d.Metadata.Name); err != nil {
		return nil, fmt.Errorf("%w: metadata.name: %w", manifest.ErrInvalid, err)
	}
	a := &Addon{Name: d.Metadata.Name, Description: d.Metadata.Description, raw: raw}
	for i, im := range d.Spec.Implementations {
		if err := checkName(im.Name); err != nil {
			return nil, fmt.Errorf("%w: spec.implementations[%d].name: %w", manifest.ErrInvalid, i, err)
		}
		if a.find(im.Name) != nil {
			return nil, fmt.Errorf("%w: spec.implementations[%d]: %s stands twice", manifest.ErrInvalid, i, im.Name)
		}
		a.Implementations = append(a.Implementations, a.describe(im))
	}
	return a, nil
}

// aliased reports whether there is an alias in a document.
func aliased(n *yaml.Node) bool {
	return n.Kind == yaml.AliasNode || slices.ContainsFunc(n.Content, aliased)
}

func (a *Addon) describe(im implementation) Implementation {
	u := im.OfflineUsage
	r := Implementation{
		Name: im.Name, Description: im.Description, Version: im.Version, Export: a.Name, Title: a.Name,
		Needs: Needs{Repos: u.Linux.Repos, Debs: u.Linux.Debs, Linux: u.Linux.needs(), Windows: u.Windows.needs()},
	}
	if im.Name != a.Name {
		r.Export, r.Title = a.Name+"-"+im.Name, a.Name+" "+im.Name
	}
	return r
}

// oneLine writes an error of the YAML package in one line.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// checkName refuses what cannot be a folder's name, and what could not be told
// from a list of names.
func checkName(name string) error {
	if name == "" {
		return errors.New("empty")
	}
	if strings.ContainsAny(name, "/, \t\r\n") {
		return fmt.Errorf("%q holds a slash, comma or space", name)
	}
	return tree.CheckPath(name)
}

// find returns the implementation of that name; case does not count.
func (a *Addon) find(name string) *Implementation {
	for i := range a.Implementations {
		if strings.EqualFold(a.Implementations[i].Name, name) {
			return &a.Implementations[i]
		}
	}
	return nil
}

// settle finds the implementations' folders. Their case is that of the tree.
func (a *Addon) settle(m *manifest.Manifest) {
	within := m.Within(a.Folder)
	for i := range a.Implementations {
		im := &a.Implementations[i]
		im.Folder, im.manifestPath = a.Folder, a.ManifestPath
		if im.Name != a.Name {
			im.Folder = folderNamed(within, a.Folder, im.Name)
		}
	}
	for i := range a.Implementations {
		im := &a.Implementations[i]
		for _, other := range a.Implementations {
			if im.Folder == a.Folder && other.Folder != a.Folder {
				im.others = append(im.others, other.Folder)
			}
		}
	}
}

// folderNamed returns the folder of that name inside dir; if there is none, what
// it would be called.
func folderNamed(entries []manifest.Entry, dir, name string) string {
	for _, e := range entries {
		rel, ok := strings.CutPrefix(e.Path, dir+"/")
		if !ok {
			continue
		}
		top, _, below := strings.Cut(rel, "/")
		if (below || e.Type == manifest.TypeDir) && strings.EqualFold(top, name) {
			return dir + "/" + top
		}
	}
	return dir + "/" + name
}

// under reports whether path is folder, or stands in it.
func under(path, folder string) bool {
	rest, ok := strings.CutPrefix(path, folder)
	return ok && (rest == "" || rest[0] == '/')
}
