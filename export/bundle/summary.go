package bundle

import "fmt"

// Summary says what a bundle holds.
type Summary struct {
	Addons   []string  `json:"addons"`
	Files    int       `json:"files"`
	Images   int       `json:"images"`
	Packages int       `json:"packages"`
	Missing  []Missing `json:"missing"`
	// Foreign lists archives that this program brings along, and that K2s' own import
	// cannot load.
	Foreign []Foreign `json:"foreign"`
}

// Foreign is an image archive that K2s cannot load.
type Foreign struct {
	Path   string `json:"path"` // where it was found
	Reason string `json:"reason"`
}

func (f Foreign) String() string { return f.Reason + ": K2s' own import cannot load it" }

// foreign lists the image archives for Linux nodes that K2s cannot load: it has
// buildah pull them as OCI archives of one image. Those for Windows nodes can be of
// any kind, containerd loads them.
func (p *Plan) foreign() []Foreign {
	found := []Foreign{}
	if p.opts.Format != FormatOCI || p.opts.Product != DefaultProduct {
		return found
	}
	seen := map[*candidate]bool{}
	for _, part := range p.parts {
		for _, im := range part.images {
			if im.system != linux || seen[im.from.candidate] {
				continue
			}
			seen[im.from.candidate] = true
			switch {
			case im.from.docker:
				found = append(found, Foreign{im.from.where, "is an archive as docker writes it, and no OCI archive"})
			case im.from.images > 1:
				found = append(found, Foreign{im.from.where, fmt.Sprintf("holds %d images", im.from.images)})
			}
		}
	}
	return found
}

// Summary says what the bundle will hold.
func (p *Plan) Summary() Summary {
	s := Summary{Addons: []string{}, Missing: append([]Missing{}, p.Missing...), Foreign: p.foreign()}
	images, packages, shared := map[*candidate]bool{}, map[*candidate]bool{}, map[string]bool{}
	for _, part := range p.parts {
		s.Addons = append(s.Addons, part.title())
		s.Files += len(part.files)
		if !shared[part.addon.Name] {
			shared[part.addon.Name] = true
			s.Files += len(part.shared) + 1
		}
		for _, im := range part.images {
			images[im.from.candidate] = true
		}
		for _, f := range part.packages {
			packages[f.from] = true
		}
	}
	s.Images, s.Packages = len(images), len(packages)
	return s
}
