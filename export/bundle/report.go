package bundle

import (
	"cmp"

	"ferry/cas"
	"ferry/manifest"
)

// ImportOptions say how addons of a bundle come into a folder or a version.
type ImportOptions struct {
	// Root is the folder of the addons in the target, ManifestName the file that
	// describes one, VersionFile the file that holds the product's version; empty means
	// DefaultRoot, DefaultManifestName and DefaultVersionFile.
	Root, ManifestName, VersionFile string
	// OmitImages and OmitPackages leave these in the bundle.
	OmitImages, OmitPackages bool
	// ImagesTo and PackagesTo are folders for these. Where they are empty, they go to
	// ".imported/images" and ".imported/packages" below Root, where the next export
	// from the target finds them.
	ImagesTo, PackagesTo string
	// Preserve reports whether a file is one that people edit. Such a file stays as it
	// is. Paths are relative to the target: "addons/storage/smb/config/SmbStorage.json".
	// nil means that there are none.
	Preserve func(path string) bool
	// Force replaces those files, too, and files that were changed at the site, and
	// what stands in the way in ImagesTo and PackagesTo.
	Force bool
	// Base is what the target was made from; nil when that is not known. It tells
	// files of the product from files that people put there.
	Base *manifest.Manifest
	// Progress is told the bytes placed; nil is allowed.
	Progress cas.Counter
}

func (o ImportOptions) withDefaults() ImportOptions {
	o.Root = cmp.Or(o.Root, DefaultRoot)
	o.ManifestName = cmp.Or(o.ManifestName, DefaultManifestName)
	o.VersionFile = cmp.Or(o.VersionFile, DefaultVersionFile)
	if o.Preserve == nil {
		o.Preserve = func(string) bool { return false }
	}
	return o
}

// Report says what an import did. Paths are relative to the target, in order.
type Report struct {
	// BaseVersion is the product's version of the target, TargetVersion the bundle's;
	// either is empty when it is not known.
	BaseVersion   string        `json:"base_version"`
	TargetVersion string        `json:"target_version"`
	Addons        []AddonReport `json:"addons"`
	Added         []string      `json:"added"`
	Changed       []string      `json:"changed"`
	Removed       []string      `json:"removed"`
	// Kept lists files that the bundle would have changed, or does not have.
	Kept      []Kept `json:"kept"`
	Unchanged int    `json:"unchanged"`
	// Replaced lists files whose bytes may have been the site's own. They were not
	// lost: they are in ReplacedIn, until an import replaces other such files.
	Replaced   []string `json:"replaced"`
	ReplacedIn string   `json:"replaced_in,omitempty"`
	// Images and Packages list where these were placed: where ImagesTo or PackagesTo
	// is given, paths in there.
	Images   []string `json:"images"`
	Packages []string `json:"packages"`
	// Missing lists what the bundle lacks for the addons that were imported.
	Missing []Missing `json:"missing"`
}

// State is what became of an addon.
type State string

// The states.
const (
	StateAdded     State = "added"
	StateUpdated   State = "updated"
	StateUnchanged State = "unchanged"
)

// AddonReport says what became of an implementation.
type AddonReport struct {
	Addon          string `json:"addon"`
	Implementation string `json:"implementation"`
	State          State  `json:"state"`
	// BaseVersion is the implementation's before; empty when there was none.
	BaseVersion   string `json:"base_version,omitempty"`
	TargetVersion string `json:"target_version"`
}

// Title is what people call it: "ingress nginx".
func (r AddonReport) Title() string { return title(r.Addon, r.Implementation) }

// Kept is a file that was left as it is.
type Kept struct {
	Path   string `json:"path"`
	Reason string `json:"reason"`
	// Edited says that the site changed a file that the bundle has another of.
	Edited bool `json:"edited,omitempty"`
}

func newReport() *Report {
	return &Report{
		Addons: []AddonReport{}, Added: []string{}, Changed: []string{}, Removed: []string{}, Kept: []Kept{}, Replaced: []string{},
		Images: []string{}, Packages: []string{}, Missing: []Missing{},
	}
}
