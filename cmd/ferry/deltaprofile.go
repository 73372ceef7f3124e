package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"ferry/cas"
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
	o.rules.IgnoreCase = p.IgnoreCase
	if o.rules.VersionFile == "" {
		o.rules.VersionFile = p.VersionFile
	}
	return p, nil
}

// withoutExcluded leaves out of all versions what no package of the profile has, such as
// a kubeconfig in a working tree.
func withoutExcluded(p *profile.Profile, versions []delta.Version) error {
	filter, err := p.Filter(profile.SelectOptions{Offline: true})
	if err != nil {
		return err
	}
	return keepOnly(versions, func(e manifest.Entry) bool {
		_, out := filter.Excludes(e.Path, e.Type == manifest.TypeDir)
		return !out
	})
}

// keepOnly leaves out of all versions what keep says no to.
func keepOnly(versions []delta.Version, keep func(manifest.Entry) bool) error {
	for i := range versions {
		m, err := manifest.New(slices.DeleteFunc(slices.Clone(versions[i].Manifest.Entries), func(e manifest.Entry) bool { return !keep(e) }))
		if err != nil {
			return err
		}
		versions[i].Manifest = m
	}
	return nil
}

// changedGuests compares the Linux systems in the disk images of the first base and the
// target, if both were given.
func changedGuests(ctx context.Context, a *app, opened []*version) ([]delta.GuestDiff, error) {
	if len(opened) < 2 {
		return nil, nil
	}
	return guestDiffs(ctx, a, opened[0], opened[len(opened)-1])
}

// chooseAddons takes addons that are not chosen out of all versions, inventories too,
// and has a site keep its own. The target is the last of versions; opened are those of
// the command line.
func (o *createOptions) chooseAddons(ctx context.Context, p *profile.Profile, opened []*version, versions []delta.Version) error {
	if p.Addons.Root == "" {
		return usagef("profile %s has no addons to choose from", p.Name)
	}
	var rules, chosen []string // folders
	for i := len(opened) - 1; i >= 0; i-- {
		v := opened[i]
		all, err := addon.Find(ctx, v.manifest, p.Addons.Root, p.Addons.Manifest, v.reader())
		if err != nil {
			return fmt.Errorf("%s: %w", v.label, err)
		}
		selected, err := addon.ParseSelection(all, []string{o.addons})
		if err != nil {
			if i == len(opened)-1 || !errors.Is(err, cas.ErrNotFound) {
				return fmt.Errorf("%s: %w", v.label, err)
			}
			// Of those that are chosen, the base does not have all.
			if selected, err = addon.ParseSelection(all, []string{"none"}); err != nil {
				return err
			}
		}
		for _, a := range all {
			var left []string
			for _, im := range a.Implementations {
				if selected.Has(im) {
					chosen = append(chosen, im.Folder)
				} else {
					left = append(left, im.Folder)
				}
			}
			if len(left) == len(a.Implementations) {
				left = []string{a.Folder}
			}
			rules = append(rules, left...)
		}
	}
	// What one version has at a place of its own may be around what another has.
	rules = slices.DeleteFunc(rules, func(rule string) bool {
		return slices.ContainsFunc(chosen, func(folder string) bool { return folder == rule || strings.HasPrefix(folder, rule+"/") })
	})
	slices.Sort(rules)
	rules = slices.Compact(rules)
	left, err := profile.Compile(rules)
	if err != nil {
		return err
	}
	o.rules.Preserve = append(o.rules.Preserve, rules...)
	return keepOnly(versions, func(e manifest.Entry) bool { return !left.Match(e.Path) })
}
