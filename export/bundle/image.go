package bundle

import (
	"context"
	"io"
	"slices"
	"strings"

	"ferry/manifest"
	"ferry/manifest/addon"
)

// image is an archive of one or more container images.
type image struct {
	*candidate
	refs    []addon.Reference
	systems []string // linux, windows; none when it does not say
}

// holds reports whether the archive has an image. Where the reference has tag and
// digest, one of them is enough: archives name only one.
func (im *image) holds(want addon.Reference) bool {
	return slices.ContainsFunc(im.refs, func(have addon.Reference) bool {
		switch {
		case have.Name() != want.Name():
			return false
		case have.String() == want.String():
			return true
		case want.Digest == "" || want.Tag == "":
			return false
		default:
			return have.Digest == want.Digest || have.Digest == "" && have.Tag == want.Tag
		}
	})
}

// imageArchive is an OCI archive, or one as docker writes it, being read.
type imageArchive struct {
	ctx   context.Context // of the one call that it lives for
	r     io.ReaderAt
	files map[string]span
}

// readImage returns the references in an image archive, and for which systems its
// images are. An archive that holds none gives no references. Errors match
// ErrInvalid unless reading failed.
func readImage(ctx context.Context, r io.ReaderAt, size int64) (refs []addon.Reference, systems []string, err error) {
	a := &imageArchive{ctx: ctx, r: r, files: map[string]span{}}
	err = eachMember(ctx, r, size, func(s span) error {
		if s.typ == manifest.TypeFile {
			a.files[s.name] = s
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	oci, err := a.readIndex()
	if err != nil {
		return nil, nil, err
	}
	docker, err := a.readDocker()
	if err != nil {
		return nil, nil, err
	}
	names := append(oci.names, docker.names...)
	for _, name := range names {
		ref, err := addon.ParseReference(name)
		if err == nil && !slices.Contains(refs, ref) {
			refs = append(refs, ref)
		}
	}
	systems = append(oci.systems, docker.systems...)
	slices.Sort(systems)
	return refs, slices.Compact(systems), nil
}

// imageFacts are what one of an archive's lists says.
type imageFacts struct {
	names   []string
	systems []string
}

func (f *imageFacts) addSystem(name string) {
	if name == linux || name == windows {
		f.systems = append(f.systems, name)
	}
}

// readIndex reads the index of an OCI image layout.
func (a *imageArchive) readIndex() (imageFacts, error) {
	var facts imageFacts
	s, ok := a.files["index.json"]
	if !ok {
		return facts, nil
	}
	var index indexFile
	if err := a.json(s, &index); err != nil {
		return facts, err
	}
	for i, d := range index.Manifests {
		if i == maxContents {
			return facts, invalidf("index.json: more than %d images", maxContents)
		}
		name := d.Annotations[noteImageName]
		if ref := d.Annotations[noteRefName]; name == "" && strings.ContainsAny(ref, "/:") {
			name = ref // else it is a tag alone
		}
		if name != "" {
			facts.names = append(facts.names, name)
		}
		a.addSystems(&facts, d, 0)
	}
	return facts, nil
}

// imageDepth is how deep indexes are followed.
const imageDepth = 3

// addSystems finds out for which systems an image is. What cannot be found out
// is left open.
func (a *imageArchive) addSystems(facts *imageFacts, d descriptor, depth int) {
	if d.Platform != nil && d.Platform.OS != "" {
		facts.addSystem(d.Platform.OS)
		return
	}
	var m struct {
		Manifests list[descriptor] `json:"manifests"`
		Config    descriptor       `json:"config"`
	}
	s, ok := a.blob(d.Digest)
	if !ok || a.json(s, &m) != nil || len(m.Manifests) > maxLayers {
		return
	}
	for _, sub := range m.Manifests {
		if depth < imageDepth {
			a.addSystems(facts, sub, depth+1)
		}
	}
	if s, ok := a.blob(m.Config.Digest); ok {
		facts.addSystem(a.systemOf(s))
	}
}

func (a *imageArchive) blob(digest string) (span, bool) {
	s, ok := a.files["blobs/"+strings.Replace(digest, ":", "/", 1)]
	return s, ok
}

func (a *imageArchive) systemOf(config span) string {
	var c struct {
		OS string `json:"os"`
	}
	if a.json(config, &c) != nil {
		return ""
	}
	return c.OS
}

// readDocker reads the list of an archive as "docker save" writes it.
func (a *imageArchive) readDocker() (imageFacts, error) {
	var facts imageFacts
	s, ok := a.files["manifest.json"]
	if !ok {
		return facts, nil
	}
	var images list[struct {
		Config   string
		RepoTags list[string]
	}]
	if err := a.json(s, &images); err != nil {
		return facts, err
	}
	for _, im := range images {
		facts.names = append(facts.names, im.RepoTags...)
		if config, ok := a.files[cleanName(im.Config)]; ok {
			facts.addSystem(a.systemOf(config))
		}
	}
	return facts, nil
}

// json reads a document of the archive.
func (a *imageArchive) json(s span, v any) error {
	if err := a.ctx.Err(); err != nil {
		return err
	}
	data, err := readSpan(a.r, s, maxJSON)
	if err != nil {
		return err
	}
	return parseJSON(s.name, data, v)
}
