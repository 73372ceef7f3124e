package bundle

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"

	"ferry/manifest/tree"
)

// Format is the form of a bundle.
type Format string

// The formats. The last is that of K2s before 1.7, which is read only.
const (
	FormatOCI    Format = "oci"
	FormatZip    Format = "zip"
	FormatLegacy Format = "k2s-zip"
)

// bundleFormat is the version of what is written, in addons.json and as an
// annotation.
const bundleFormat = "ferry.bundle/1"

// Where addons stand in a package, unless somebody says otherwise.
const (
	DefaultRoot         = "addons"
	DefaultManifestName = "addon.manifest.yaml"
	DefaultVersionFile  = "VERSION"
)

// DefaultProduct is what the product is called, unless somebody says otherwise.
const DefaultProduct = "K2s"

// Systems of nodes.
const (
	linux   = "linux"
	windows = "windows"
)

// Folders of packages, in bundles of any format (K2s, addons/Export.ps1).
const (
	debianFolder  = "debianpackages"
	linuxFolder   = "linuxpackages"
	windowsFolder = "windowspackages"
)

// defaultVersion is that of an implementation which states none, as in K2s.
const defaultVersion = "1.0.0"

// Media types of K2s' addon artifacts (addons/oci.module.psm1), and of OCI.
const (
	mediaIndex         = "application/vnd.oci.image.index.v1+json"
	mediaManifest      = "application/vnd.oci.image.manifest.v1+json"
	mediaEmpty         = "application/vnd.oci.empty.v1+json"
	mediaAddon         = "application/vnd.k2s.addon.v1"
	mediaConfig        = "application/vnd.k2s.addon.config.v1+json"
	mediaConfigFiles   = "application/vnd.k2s.addon.configfiles.v1.tar+gzip"
	mediaManifests     = "application/vnd.k2s.addon.manifests.v1.tar+gzip"
	mediaChart         = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
	mediaScripts       = "application/vnd.k2s.addon.scripts.v1.tar+gzip"
	mediaImages        = "application/vnd.oci.image.layer.v1.tar"
	mediaWindowsImages = "application/vnd.k2s.addon.images-windows.v1.tar"
	mediaPackages      = "application/vnd.k2s.addon.packages.v1.tar+gzip"
	mediaShared        = "application/vnd.ferry.addon.shared.v1.tar+gzip" // ours: K2s ignores it
)

// Annotations.
const (
	noteTitle       = "org.opencontainers.image.title"
	noteVersion     = "org.opencontainers.image.version"
	noteCreated     = "org.opencontainers.image.created"
	noteDescription = "org.opencontainers.image.description"
	noteRefName     = "org.opencontainers.image.ref.name"
	noteImageName   = "io.containerd.image.name"
	noteAddon       = "vnd.k2s.addon.name"
	noteImpl        = "vnd.k2s.addon.implementation"
	noteExport      = "vnd.k2s.addon.export-name"
	noteCount       = "vnd.k2s.addon.count"
	noteProduct     = "vnd.k2s.version"
	noteDate        = "vnd.k2s.export.date"
	noteType        = "vnd.k2s.export.type"
	noteBundle      = "vnd.ferry.bundle"
	noteMissing     = "vnd.ferry.missing"
	noteImages      = "vnd.ferry.images" // names of the files in the image layers that are of this manifest
)

// Limits of what is read, against hostile bundles.
const (
	maxMembers  = 200_000 // of an archive
	maxContents = 10_000  // manifests of a bundle
	maxLayers   = 64      // of a manifest
	maxJSON     = 8 << 20 // bytes of one JSON document
	// maxDocuments bounds the JSON documents of an OCI bundle together: an index may
	// name one manifest again and again.
	maxDocuments = 1 << 30
	maxList      = 128 << 20
	maxYAML      = 1 << 20  // bytes of an addon's manifest
	maxText      = 1 << 30  // bytes of an unpacked layer of files
	maxPackages  = 16 << 30 // bytes of an unpacked layer of packages
	maxFiles     = 1 << 20  // of all contents
	unpackRatio  = 64       // what all layers may unpack to, times the bundle's size, and 1 GiB
)

// layoutFile is oci-layout.
type layoutFile struct {
	Version string `json:"imageLayoutVersion"`
}

const layoutVersion = "1.0.0"

// descriptor refers to a blob.
type descriptor struct {
	MediaType    string      `json:"mediaType"`
	Digest       string      `json:"digest"`
	Size         int64       `json:"size"`
	ArtifactType string      `json:"artifactType,omitempty"`
	Annotations  annotations `json:"annotations,omitempty"`
	Platform     *platform   `json:"platform,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

type indexFile struct {
	SchemaVersion int              `json:"schemaVersion"`
	MediaType     string           `json:"mediaType"`
	Manifests     list[descriptor] `json:"manifests"`
	Annotations   annotations      `json:"annotations,omitempty"`
}

type manifestFile struct {
	SchemaVersion int              `json:"schemaVersion"`
	MediaType     string           `json:"mediaType"`
	ArtifactType  string           `json:"artifactType,omitempty"`
	Config        descriptor       `json:"config"`
	Layers        list[descriptor] `json:"layers"`
	Annotations   annotations      `json:"annotations,omitempty"`
}

// configFile is the config blob of an implementation.
type configFile struct {
	Name           string `json:"name"`
	Version        string `json:"version"`
	Implementation string `json:"implementation"`
	Description    string `json:"description"`
	K2sVersion     string `json:"k2sVersion"`
	ExportDate     string `json:"exportDate"`
}

// list reads a JSON array, and what PowerShell makes of one: a list of one
// element may be that element, an empty one {}, "" or null.
type list[T any] []T

func (l *list[T]) UnmarshalJSON(data []byte) error {
	var b bytes.Buffer
	if err := json.Compact(&b, data); err != nil {
		return err
	}
	switch text := b.String(); {
	case text == "null" || text == `""` || text == "{}":
		*l = nil
		return nil
	case text[0] == '[':
		var all []T
		if err := json.Unmarshal(b.Bytes(), &all); err != nil {
			return err
		}
		*l = all
		return nil
	default:
		var one T
		if err := json.Unmarshal(b.Bytes(), &one); err != nil {
			return err
		}
		*l = list[T]{one}
		return nil
	}
}

// annotations are texts by name; numbers and the like are read as their text.
type annotations map[string]string

func (a *annotations) UnmarshalJSON(data []byte) error {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		var none string // PowerShell writes "" for no map
		if json.Unmarshal(data, &none) == nil && none == "" {
			*a = nil
			return nil
		}
		return err
	}
	*a = annotations{}
	for name, value := range raw {
		var text string
		if json.Unmarshal(value, &text) != nil {
			text = string(value)
		}
		(*a)[name] = text
	}
	return nil
}

// utf8BOM is what PowerShell puts before the text that it writes.
const utf8BOM = "\xef\xbb\xbf"

// parseJSON reads a document, with or without byte order mark.
func parseJSON(what string, data []byte, v any) error {
	if err := json.Unmarshal(bytes.TrimPrefix(data, []byte(utf8BOM)), v); err != nil {
		return invalidf("%s: %v", what, err)
	}
	return nil
}

// encodeJSON writes a document: the same value gives the same bytes.
func encodeJSON(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic("bundle: internal error: " + err.Error()) // our own structs
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// date writes a time as K2s does; unlike there, it is UTC, as it says.
func date(unix int64) string { return time.Unix(unix, 0).UTC().Format("2006-01-02T15:04:05Z") }

// parseDate reads such a time; 0 when it is none.
func parseDate(text string) int64 {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return 0
	}
	return t.Unix()
}

// title is what people call an implementation: "ingress nginx".
func title(addon, impl string) string {
	if impl == "" || impl == addon {
		return addon
	}
	return addon + " " + impl
}

// exportName is the same in file names: "ingress-nginx".
func exportName(addon, impl string) string { return strings.ReplaceAll(title(addon, impl), " ", "-") }

// folderOf is where an implementation stands below the addons' root.
func folderOf(addon, impl string) string { return strings.ReplaceAll(title(addon, impl), " ", "/") }

var (
	nameSeparators = regexp.MustCompile(`[:/]`)
	nameForbidden  = regexp.MustCompile(`[^A-Za-z0-9_.-]`)
	nameBlanks     = regexp.MustCompile(`[_\s]+`)
)

// fileName makes a file name of a reference, as K2s does.
func fileName(ref string) string {
	name := nameForbidden.ReplaceAllString(nameSeparators.ReplaceAllString(ref, "_"), "")
	if len(name) > 200 { // leaves room for what is put around it
		name = name[:200]
	}
	return name
}

// checkName refuses what cannot be the name of a folder everywhere.
func checkName(what, name string) error {
	if err := tree.CheckPath(name); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrInvalid, what, err)
	}
	if strings.ContainsAny(name, "/ \t\r\n,") {
		return invalidf("%s %.100q holds a slash, comma or space", what, name)
	}
	if err := tree.CheckWindows(name); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrInvalid, what, err)
	}
	return nil
}
