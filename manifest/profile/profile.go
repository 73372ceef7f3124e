package profile

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"ferry/manifest"
)

// Format is the version of the format that this package reads.
const Format = "ferry.profile/1"

// Profile says what a product's package is. Load makes one; it is not changed
// after that, and safe for concurrent use.
type Profile struct {
	Format      string `yaml:"format"`
	Name        string `yaml:"name"`
	Description string `yaml:"description"`
	// VersionFile is the path of the file that holds the version and nothing else.
	VersionFile string `yaml:"version_file"`
	// IgnoreCase takes upper and lower case in paths for the same.
	IgnoreCase bool `yaml:"ignore_case"`
	// Exclude are rules of what is left out, Include exceptions from those.
	Exclude []string `yaml:"exclude"`
	Include []string `yaml:"include"`
	// Offline lists what a package has only when it is for an offline installation.
	Offline []Offline `yaml:"offline"`
	// Variants are forms of the package, by name.
	Variants map[string]Variant `yaml:"variants"`
	// DefaultVariant is the one that is meant where none is named.
	DefaultVariant string `yaml:"default_variant"`
	Addons         Addons `yaml:"addons"`
	// Preserve are rules of what belongs to a site, and outlives an upgrade.
	Preserve []string `yaml:"preserve"`
	// Wholesale are folders that an upgrade replaces as a unit.
	Wholesale []string `yaml:"wholesale"`
	// Mandatory are paths that no package may lack.
	Mandatory []string `yaml:"mandatory"`

	exclude, include, preserve, shared Rules
	variants                           map[string]variantRules
}

// Offline is an artefact for an offline installation. It alone decides about its
// path, and what is below: no other rule does.
type Offline struct {
	Path string `yaml:"path"`
	// Optional says that it need not be there.
	Optional bool `yaml:"optional"`
	// NotIn names the variants that do not have it.
	NotIn []string `yaml:"not_in"`
}

// Variant is a form of a package.
type Variant struct {
	Description string `yaml:"description"`
	// Exclude are rules of what this variant leaves out besides. Include are
	// exceptions, from the profile's exclusions too.
	Exclude []string `yaml:"exclude"`
	Include []string `yaml:"include"`
}

type variantRules struct{ exclude, include Rules }

// Addons says where a product's addons are.
type Addons struct {
	// Root is the folder that has a folder for each addon; "" for no addons.
	Root string `yaml:"root"`
	// Manifest is the name of the file that describes an addon, in its folder.
	Manifest string `yaml:"manifest"`
	// Shared are rules of what stays under Root whatever addons are chosen.
	Shared []string `yaml:"shared"`
}

//go:embed k2s.yaml
var k2s []byte

// builtin are the profiles that come with the program.
var builtin = map[string][]byte{"k2s": k2s}

// Names lists the built-in profiles, sorted.
func Names() []string { return slices.Sorted(maps.Keys(builtin)) }

// Builtin returns a built-in profile, and its text. The text is not to be changed.
func Builtin(name string) (*Profile, []byte, bool) {
	text, ok := builtin[name]
	if !ok {
		return nil, nil, false
	}
	p, err := Load(bytes.NewReader(text))
	if err != nil {
		panic("profile: internal error: " + name + ": " + err.Error())
	}
	return p, text, true
}

// Preserves reports whether a path belongs to the site.
func (p *Profile) Preserves(path string) bool { return p.preserve.Match(path) }

// VariantNames lists the variants, sorted.
func (p *Profile) VariantNames() []string { return slices.Sorted(maps.Keys(p.Variants)) }

// Variant returns a variant's name as the profile writes it, the default one's
// for "". Case does not count. The error is a [*VariantError].
func (p *Profile) Variant(name string) (string, error) {
	if name == "" {
		return p.DefaultVariant, nil
	}
	for known := range p.Variants {
		if strings.EqualFold(known, name) {
			return known, nil
		}
	}
	return "", &VariantError{p.Name, name, p.VariantNames()}
}

// versionText is what a version file may hold: what can stand in a reference.
var versionText = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z._+-]{0,99}$`)

var utf8BOM = []byte("\uFEFF")

// ErrNoVersion says that a profile does not tell where the version stands.
var ErrNoVersion = errors.New("the profile has no version_file")

// Version returns the version that a tree says it is; read gives a file of it.
// Errors are those of read, [ErrNoVersion], and manifest.ErrInvalid when the file
// holds anything but a version.
func (p *Profile) Version(read func(path string) ([]byte, error)) (string, error) {
	if p.VersionFile == "" {
		return "", ErrNoVersion
	}
	data, err := read(p.VersionFile)
	if err != nil {
		return "", err
	}
	version := strings.TrimSpace(string(bytes.TrimPrefix(data, utf8BOM)))
	if !versionText.MatchString(version) {
		return "", fmt.Errorf("%s: %w: %.40q is no version", p.VersionFile, manifest.ErrInvalid, version)
	}
	return version, nil
}
