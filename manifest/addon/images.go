package addon

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"ferry/cas"
	"ferry/manifest"
)

// Image is a container image that an implementation needs, and where that is
// said: "PATH:LINE", or the manifest's path and key.
type Image struct {
	Reference Reference `json:"reference"`
	Found     []string  `json:"found"`
}

// Images are those for the nodes of each system, sorted.
type Images struct {
	Linux   []Image `json:"linux"`
	Windows []Image `json:"windows"`
}

// What the YAML files of addons say to their exporter.
const (
	excludeMarker = "## exclude-from-export"
	windowsMarker = "#windows_image"
)

// maxYAML bounds a YAML file that is searched, in bytes.
const maxYAML = 4 << 20

// Images returns the images that an implementation from [Find] needs: what its YAML
// files name as "image", and what offline_usage adds. A reference without a
// version is left out where the same name has one. Files that say so are not
// searched. The error matches manifest.ErrInvalid when offline_usage is wrong, and
// cas.ErrNotFound when it names a file that is not there.
func (im *Implementation) Images(ctx context.Context, m *manifest.Manifest, read ReadFunc) (Images, error) {
	c := &collector{linux: map[Reference][]string{}, windows: map[Reference][]string{}}
	for _, e := range m.Within(im.Folder) {
		if !im.owns(e) || !isYAML(e.Path) {
			continue
		}
		if err := c.searchEntry(ctx, e, read, onlyImageKeys, c.byMarker); err != nil {
			return Images{}, err
		}
	}
	for _, part := range []struct {
		name  string
		needs PlatformNeeds
		into  map[Reference][]string
	}{{"linux", im.Needs.Linux, c.linux}, {"windows", im.Needs.Windows, c.windows}} {
		if err := c.addListed(im, part.name, part.needs, part.into); err != nil {
			return Images{}, err
		}
		for _, name := range part.needs.ImageFiles {
			e, err := im.imageFile(m, name)
			if err != nil {
				return Images{}, err
			}
			into := func(string) map[Reference][]string { return part.into }
			if err := c.searchEntry(ctx, e, read, alsoArguments, into); err != nil {
				return Images{}, err
			}
		}
	}
	return Images{sorted(c.linux), sorted(c.windows)}, nil
}

// owns reports whether an entry is a file of the implementation itself.
func (im *Implementation) owns(e manifest.Entry) bool {
	if e.Type != manifest.TypeFile || e.Path == im.manifestPath {
		return false
	}
	return !slices.ContainsFunc(im.others, func(folder string) bool { return under(e.Path, folder) })
}

func isYAML(name string) bool {
	ext := strings.ToLower(path.Ext(name))
	return ext == ".yaml" || ext == ".yml"
}

// imageFile finds a file that offline_usage names, which may stand outside of the
// implementation's folder.
func (im *Implementation) imageFile(m *manifest.Manifest, name string) (manifest.Entry, error) {
	at := path.Join(im.Folder, strings.ReplaceAll(name, `\`, "/"))
	e, ok := m.Find(at)
	if !ok || e.Type != manifest.TypeFile {
		return manifest.Entry{}, fmt.Errorf("%s: additionalImagesFiles of %s: %w", im.manifestPath, im.Name, &cas.NotFoundError{What: "file", Name: at})
	}
	return e, nil
}

// collector gathers references.
type collector struct {
	linux, windows map[Reference][]string
}

// byMarker returns where an image belongs that is named in that line.
func (c *collector) byMarker(line string) map[Reference][]string {
	if strings.Contains(line, windowsMarker) {
		return c.windows
	}
	return c.linux
}

func (c *collector) addListed(im *Implementation, system string, needs PlatformNeeds, into map[Reference][]string) error {
	for _, text := range needs.Images {
		ref, err := ParseReference(strings.TrimSpace(text))
		if err != nil {
			return fmt.Errorf("%s: %w: %s: additionalImages: %w", im.manifestPath, manifest.ErrInvalid, im.Name, err)
		}
		into[ref] = append(into[ref], im.manifestPath+": "+im.Name+" offline_usage."+system)
	}
	return nil
}

// What of a file is taken for an image.
const (
	onlyImageKeys = false
	alsoArguments = true // program arguments such as --proxy-image=quay.io/a/b:v1, too
)

func (c *collector) searchEntry(ctx context.Context, e manifest.Entry, read ReadFunc, arguments bool, into func(line string) map[Reference][]string) error {
	if e.Size > maxYAML {
		return fmt.Errorf("%s: %w: %d bytes of YAML, at most %d", e.Path, manifest.ErrInvalid, e.Size, maxYAML)
	}
	data, err := read(ctx, e)
	if err != nil {
		return fmt.Errorf("%s: %w", e.Path, err)
	}
	if bytes.Contains(data, []byte(excludeMarker)) {
		return nil
	}
	data = bytes.TrimPrefix(data, utf8BOM)
	lines := strings.Split(strings.ReplaceAll(string(data), "\r\n", "\n"), "\n")
	found := func(text string, line int) {
		ref, err := ParseReference(text)
		if err != nil || line < 1 || line > len(lines) {
			return // some other thing is called image, too
		}
		at := into(lines[line-1])
		at[ref] = append(at[ref], fmt.Sprintf("%s:%d", e.Path, line))
	}
	if !searchYAML(data, arguments, found) {
		searchLines(lines, arguments, found)
	}
	return nil
}

// searchYAML calls found for every image in the documents of data. It reports
// whether all of them are YAML; else nothing was called.
func searchYAML(data []byte, arguments bool, found func(text string, line int)) bool {
	var docs []*yaml.Node
	for d := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var doc yaml.Node
		err := d.Decode(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return false // a template, say
		}
		docs = append(docs, &doc)
	}
	for _, doc := range docs {
		searchNode(doc, arguments, found)
	}
	return true
}

// searchNode looks into a node and all below it, aliases aside: they lead to what
// is looked into anyway.
func searchNode(n *yaml.Node, arguments bool, found func(text string, line int)) {
	for i, c := range n.Content {
		isImage := n.Kind == yaml.MappingNode && i%2 == 1 && strings.EqualFold(n.Content[i-1].Value, "image")
		if c.Kind == yaml.ScalarNode && isImage {
			found(strings.TrimSpace(c.Value), c.Line)
		} else if m := imageArgument.FindStringSubmatch(c.Value); arguments && c.Kind == yaml.ScalarNode && m != nil {
			found(m[1], c.Line)
		}
		searchNode(c, arguments, found)
	}
}

var (
	// imageArgument is a program's argument that names an image. Only one with a
	// folder and a tag can be told from other values.
	imageArgument = regexp.MustCompile(`^--[A-Za-z-]+=([A-Za-z0-9._-]+(?::[0-9]+)?/[A-Za-z0-9._/-]+:[A-Za-z0-9._-]+)$`)
	imageLine     = regexp.MustCompile(`^\s*(?:-\s+)*["']?image["']?\s*:\s+(.+)$`)
	argumentLine  = regexp.MustCompile(`^\s*-\s+["']?(--[A-Za-z-]+=[^\s"'#]+)["']?`)
)

// searchLines is searchYAML for what is no YAML, line by line. A value without
// slash, tag and digest is taken for something else.
func searchLines(lines []string, arguments bool, found func(text string, line int)) {
	for i, line := range lines {
		if m := imageLine.FindStringSubmatch(line); m != nil {
			if value := scalar(m[1]); strings.ContainsAny(value, ":/@") {
				found(value, i+1)
			}
		} else if m := argumentLine.FindStringSubmatch(line); arguments && m != nil {
			if ref := imageArgument.FindStringSubmatch(m[1]); ref != nil {
				found(ref[1], i+1)
			}
		}
	}
}

// scalar returns a value without its quotes, or the comment behind it.
func scalar(value string) string {
	value = strings.TrimSpace(value)
	if quote := value[:min(1, len(value))]; quote == `"` || quote == "'" {
		inner, _, _ := strings.Cut(value[1:], quote)
		return strings.TrimSpace(inner)
	}
	if i := strings.IndexByte(value, '#'); i >= 0 && (i == 0 || value[i-1] == ' ' || value[i-1] == '\t') {
		value = value[:i]
	}
	return strings.TrimSpace(value)
}

// sorted returns what was gathered, without references that lack the version
// which the same name has elsewhere.
func sorted(found map[Reference][]string) []Image {
	versioned := map[string]bool{}
	for ref := range found {
		if !ref.Versionless() {
			versioned[ref.Name()] = true
		}
	}
	images := []Image{}
	for _, ref := range slices.SortedFunc(maps.Keys(found), func(a, b Reference) int { return cmp.Compare(a.String(), b.String()) }) {
		if ref.Versionless() && versioned[ref.Name()] {
			continue
		}
		where := slices.Clone(found[ref])
		slices.Sort(where)
		images = append(images, Image{ref, slices.Compact(where)})
	}
	return images
}
