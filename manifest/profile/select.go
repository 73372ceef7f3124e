package profile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"ferry/manifest"
	"ferry/manifest/addon"
)

// SelectOptions say which package is wanted.
type SelectOptions struct {
	// Variant is one of the profile's; "" is its default one.
	Variant string
	// Offline says that the package is for an offline installation.
	Offline bool
	// Addons are those to be in it; nil is all.
	Addons *addon.Selection
	// AllowMissing lists what is missing in the selection, instead of failing.
	AllowMissing bool
	// Excluded is what a filter left out before the manifest was made.
	Excluded []Excluded
}

// Excluded is a path that is not in a package.
type Excluded struct {
	Path string `json:"path"`
	Size int64  `json:"size_bytes"`
	// Rule says what leaves it out, and where that stands: "exclude: .git",
	// "variant Lite: build/", "offline: bin/base.vhdx", "addons: ingress nginx".
	Rule string `json:"rule"`
}

// Selection is what a package consists of.
type Selection struct {
	Variant  string
	Manifest *manifest.Manifest
	Excluded []Excluded // sorted by path
	Missing  []string   // empty unless it was allowed
}

// Filter decides about paths, one by one. It is safe for concurrent use.
type Filter struct {
	profile *Profile
	opts    SelectOptions
	variant string
	rules   variantRules
}

// Filter returns what decides under opts. The error is a [*VariantError].
func (p *Profile) Filter(opts SelectOptions) (*Filter, error) {
	name, err := p.Variant(opts.Variant)
	if err != nil {
		return nil, err
	}
	return &Filter{p, opts, name, p.variants[name]}, nil
}

// Excludes reports whether a path is left out, and by which rule, as
// [Excluded].Rule has it.
func (f *Filter) Excludes(path string, isDir bool) (rule string, ok bool) {
	if o, ok := f.artefact(path); ok {
		switch {
		case !f.opts.Offline:
			return "offline: " + o.Path, true
		case slices.Contains(o.NotIn, f.variant):
			return "variant " + f.variant + ": " + o.Path, true
		}
		return "", false
	}
	if rule, ok := f.unwantedAddon(path, isDir); ok {
		return "addons: " + rule, true
	}
	if isDir {
		path += "/"
	}
	if f.rules.include.Match(path) {
		return "", false
	}
	if rule, ok := f.rules.exclude.Matching(path); ok {
		return "variant " + f.variant + ": " + rule, true
	}
	if rule, ok := f.profile.exclude.Matching(path); ok && !f.profile.include.Match(path) {
		return "exclude: " + rule, true
	}
	return "", false
}

// artefact returns the offline artefact that a path is of.
func (f *Filter) artefact(path string) (Offline, bool) {
	for _, o := range f.profile.Offline {
		if f.profile.under(path, o.Path) {
			return o, true
		}
	}
	return Offline{}, false
}

// under reports whether path is folder, or stands in it.
func (p *Profile) under(path, folder string) bool {
	if p.IgnoreCase {
		path, folder = strings.ToLower(path), strings.ToLower(folder)
	}
	rest, ok := strings.CutPrefix(path, folder)
	return ok && (rest == "" || rest[0] == '/')
}

// unwantedAddon names what the path belongs to, if that was not chosen. Where
// addons were chosen, a folder beside theirs stays only when it is shared.
func (f *Filter) unwantedAddon(path string, isDir bool) (what string, ok bool) {
	chosen := f.opts.Addons
	if chosen == nil || chosen.Everything() {
		return "", false
	}
	rel, ok := strings.CutPrefix(path, f.profile.Addons.Root+"/")
	if !ok || f.profile.shared.Match(path) {
		return "", false
	}
	top, _, below := strings.Cut(rel, "/")
	known := slices.ContainsFunc(chosen.All, func(a addon.Addon) bool { return a.Folder == f.profile.Addons.Root+"/"+top })
	if !known {
		return top, below || isDir
	}
	return chosen.Drops(path)
}

// Select returns what a package of m's files consists of. The error is a
// [*VariantError], or a [*MissingError] that lists all that is missing.
func (p *Profile) Select(m *manifest.Manifest, opts SelectOptions) (*Selection, error) {
	f, err := p.Filter(opts)
	if err != nil {
		return nil, err
	}
	s := &Selection{Variant: f.variant, Excluded: slices.Clone(opts.Excluded)}
	var kept []manifest.Entry
	for _, e := range m.Entries {
		if rule, ok := f.Excludes(e.Path, e.Type == manifest.TypeDir); ok {
			s.Excluded = append(s.Excluded, Excluded{e.Path, e.Size, rule})
			continue
		}
		kept = append(kept, e)
	}
	slices.SortStableFunc(s.Excluded, func(a, b Excluded) int { return cmp.Compare(a.Path, b.Path) })
	if missing := f.missing(kept, s.Excluded); missing != nil {
		if !opts.AllowMissing {
			return nil, missing
		}
		s.Missing = slices.Concat(missing.Offline, missing.Mandatory)
	}
	s.Manifest, err = manifest.New(kept)
	return s, err
}

// missing returns what a package of the kept entries lacks, nil for nothing.
func (f *Filter) missing(kept []manifest.Entry, excluded []Excluded) *MissingError {
	has := func(path string) bool {
		return slices.ContainsFunc(kept, func(e manifest.Entry) bool { return f.profile.under(e.Path, path) })
	}
	var missing MissingError
	for _, o := range f.profile.Offline {
		if f.opts.Offline && !o.Optional && !slices.Contains(o.NotIn, f.variant) && !has(o.Path) {
			missing.Offline = append(missing.Offline, o.Path)
		}
	}
	for _, path := range f.profile.Mandatory {
		if has(path) {
			continue
		}
		i := slices.IndexFunc(excluded, func(x Excluded) bool { return f.profile.under(x.Path, path) })
		if i >= 0 {
			path = fmt.Sprintf("%s (left out by %s)", path, excluded[i].Rule)
		}
		missing.Mandatory = append(missing.Mandatory, path)
	}
	if len(missing.Offline)+len(missing.Mandatory) == 0 {
		return nil
	}
	return &missing
}
