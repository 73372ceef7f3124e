package bundle

import (
	"fmt"
	"path"

	"ferry/manifest"
	"ferry/manifest/addon"
	"ferry/manifest/place"
)

// addonPlace is the folder of an addon in the target.
type addonPlace struct {
	top    string
	stands map[string]manifest.Entry // what is in it, by path
	full   map[string]bool           // folders that hold something
	titles map[string]string         // of the selected implementations, by folder
	// chosen tells by the folder of an implementation, and for top, whether what is in
	// it is subject to the import.
	chosen map[string]bool
	// allTouched says that something changes that belongs to no implementation.
	allTouched bool
}

func (m *merger) placeOf(top string, entries []manifest.Entry, contents []*Content, base *addon.Addon) *addonPlace {
	at := &addonPlace{top: top, stands: map[string]manifest.Entry{}, full: map[string]bool{}, titles: map[string]string{}, chosen: map[string]bool{}}
	for _, e := range entries {
		at.stands[e.Path] = e
		for dir := path.Dir(e.Path); !at.full[dir] && dir != "."; dir = path.Dir(dir) {
			at.full[dir] = true
		}
	}
	name := contents[0].Addon
	if base != nil {
		for _, im := range base.Implementations {
			at.chosen[m.opts.Root+"/"+folderOf(name, im.Name)] = false
		}
	}
	for i := range m.b.Contents {
		if c := &m.b.Contents[i]; c.Addon == name {
			at.chosen[m.opts.Root+"/"+folderOf(name, c.Implementation)] = false
		}
	}
	for _, c := range contents {
		folder := m.opts.Root + "/" + folderOf(name, c.Implementation)
		at.chosen[folder], at.titles[folder] = true, c.Title()
	}
	at.chosen[top] = true // what belongs to no implementation comes with any
	return at
}

// owns reports whether a path belongs to one of the selected implementations, and to
// no other that lives inside its folder.
func (at *addonPlace) owns(p string) bool {
	for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
		if chosen, ok := at.chosen[dir]; ok {
			return chosen
		}
	}
	return false
}

// touch notes which implementations a change is of.
func (m *merger) touch(p string, at *addonPlace) {
	if path.Base(p) == m.opts.ManifestName {
		return
	}
	owned := false
	for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
		if title, ok := at.titles[dir]; ok {
			m.touched[title], owned = true, true
		}
	}
	at.allTouched = at.allTouched || !owned
}

// checkPlaces returns an error when a file would have to stand where a folder of
// the site's own is, or the other way round.
func (m *merger) checkPlaces(wanted map[string]item, stands map[string]manifest.Entry) error {
	for p := range wanted {
		for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
			if e, there := stands[dir]; there && e.Type != manifest.TypeDir && !m.remove[dir] {
				return fmt.Errorf("%s: %w as no folder: move it away", dir, place.ErrExists)
			}
		}
	}
	for p, e := range stands {
		for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
			it, in := wanted[dir]
			if in && it.Type != manifest.TypeDir && e.Type != manifest.TypeDir && !m.remove[p] {
				return fmt.Errorf("%s: %w in a folder that must become a file: move it away", p, place.ErrExists)
			}
		}
	}
	return nil
}
