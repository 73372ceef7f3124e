package main

import (
	"context"
	"fmt"
	"slices"

	"ferry/delta"
	"ferry/manifest"
	"ferry/manifest/addon"
	"ferry/manifest/profile"
)

// takeProfile adds the rules of the profile to those of the flags. The profile is the
// default one where none is named and addons are chosen; else nil.
func (o *createOptions) takeProfile() (*profile.Profile, error) {
	name := o.profile
	if name == "" && o.addons != "all" {
		name = defaultProfile
	}
	if name == "" {
		return nil, nil
	}
	p, err := openProfile(name)
	if err != nil || o.profile == "" {
		return p, err
	}
	o.rules.Preserve = append(o.rules.Preserve, p.Preserve...)
	o.rules.Wholesale = append(o.rules.Wholesale, p.Wholesale...)
	o.rules.Mandatory = append(o.rules.Mandatory, p.Mandatory...)
	if o.rules.VersionFile == "" {
		o.rules.VersionFile = p.VersionFile
	}
	return p, nil
}

// chooseAddons takes addons that are not chosen out of all versions, inventories too,
// and has a site keep its own. The target is the last of versions; opened are those of
// the command line.
func (o *createOptions) chooseAddons(ctx context.Context, p *profile.Profile, opened []*version, versions []delta.Version) error {
	if p.Addons.Root == "" {
		return usagef("profile %s has no addons to choose from", p.Name)
	}
	target := opened[len(opened)-1]
	all, err := addon.Find(ctx, target.manifest, p.Addons.Root, p.Addons.Manifest, target.reader())
	if err != nil {
		return fmt.Errorf("%s: %w", target.label, err)
	}
	chosen, err := addon.ParseSelection(all, []string{o.addons})
	if err != nil {
		return err
	}
	rules := []string{}
	for _, v := range opened {
		all, err := addon.Find(ctx, v.manifest, p.Addons.Root, p.Addons.Manifest, v.reader())
		if err != nil {
			return fmt.Errorf("%s: %w", v.label, err)
		}
		for _, a := range all {
			var left []string
			for _, im := range a.Implementations {
				if !chosen.Has(im) {
					left = append(left, im.Folder)
				}
			}
			if len(left) == len(a.Implementations) {
				left = []string{a.Folder}
			}
			rules = append(rules, left...)
		}
	}
	slices.Sort(rules)
	rules = slices.Compact(rules)
	left, err := profile.Compile(rules)
	if err != nil {
		return err
	}
	for i := range versions {
		m, err := manifest.New(slices.DeleteFunc(slices.Clone(versions[i].Manifest.Entries), func(e manifest.Entry) bool { return left.Match(e.Path) }))
		if err != nil {
			return err
		}
		versions[i].Manifest = m
	}
	o.rules.Preserve = append(o.rules.Preserve, rules...)
	return nil
}
