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
	imageInfo
}

// imageInfo is what an image archive says of itself.
type imageInfo struct {
	refs    []addon.Reference
	digests []string // of its images, and of those that they consist of
	systems []string // linux, windows; none when it does not say
	images  int      // how many it holds, each of which may be for several systems
	docker  bool     // it is no OCI archive, but one as docker writes it
}

// holds reports whether the archive has an image. Where the reference has a digest,
// that alone counts: then it needs no name, and no name will do.
func (im *imageInfo) holds(want addon.Reference) bool {
	if want.Digest != "" {
		return slices.Contains(im.digests, want.Digest)
	}
	return slices.ContainsFunc(im.refs, func(have addon.Reference) bool {
		if have.Tag != "" { // archives may name tag and digest
			have.Digest = ""
		}
		return have.String() == want.String()
	})
}

// imageArchive is an OCI archive, or one as docker writes it, being read.
type imageArchive struct {
	ctx    context.Context // of the one call that it lives for
	r      io.ReaderAt
	files  map[string]span
	looked map[string]bool // digests that were looked into
}

// readImage returns what is in an image archive. One that holds none gives neither
// references nor digests. Errors match ErrInvalid unless reading failed.
func readImage(ctx context.Context, r io.ReaderAt, size int64) (imageInfo, error) {
	a := &imageArchive{ctx: ctx, r: r, files: map[string]span{}, looked: map[string]bool{}}
	err := eachMember(ctx, r, size, func(s span) error {
		if s.typ == manifest.TypeFile {
			a.files[s.name] = s
		}
		return nil
	})
	if err != nil {
		return imageInfo{}, err
	}
	oci, err := a.readIndex()
	if err != nil {
		return imageInfo{}, err
	}
	docker, err := a.readDocker()
	if err != nil {
		return imageInfo{}, err
	}
	info := imageInfo{digests: oci.digests, systems: append(oci.systems, docker.systems...), images: oci.images}
	if oci.images == 0 {
		info.images, info.docker = docker.images, docker.images > 0
	}
	seen := map[addon.Reference]bool{}
	for _, name := range append(oci.names, docker.names...) {
		ref, err := addon.ParseReference(name)
		if err == nil && !seen[ref] {
			seen[ref] = true
			info.refs = append(info.refs, ref)
		}
	}
	slices.Sort(info.systems)
	info.systems = slices.Compact(info.systems)
	return info, nil
}

// imageFacts are what one of an archive's lists says.
type imageFacts struct {
	names   []string
	digests []string
	systems []string
	images  int
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
		a.lookInto(&facts, d, 0)
	}
	facts.images = len(index.Manifests)
	return facts, nil
}

// imageDepth is how deep indexes are followed.
const imageDepth = 3

// lookInto finds out of what an image consists, and for which systems it is. What
// cannot be found out is left open.
func (a *imageArchive) lookInto(facts *imageFacts, d descriptor, depth int) {
	if d.Digest != "" {
		facts.digests = append(facts.digests, d.Digest)
	}
	if d.Platform != nil && d.Platform.OS != "" {
		facts.addSystem(d.Platform.OS)
		return
	}
	if a.looked[d.Digest] {
		return
	}
	a.looked[d.Digest] = true
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
			a.lookInto(facts, sub, depth+1)
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
		facts.images++
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
