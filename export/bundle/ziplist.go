package bundle

// listName is the file of a zip bundle that says what is in it. sumsName and
// readmeName are for people without this program.
const (
	listName   = "addons.json"
	sumsName   = "SHA256SUMS"
	readmeName = "README.txt"
)

// Folders of a zip bundle.
const (
	zipImages   = "images"
	zipPackages = "packages"
)

// listFile is addons.json.
type listFile struct {
	Format  string       `json:"format"`
	Product string       `json:"product"`
	Version string       `json:"version"`
	Created string       `json:"created"`
	Type    string       `json:"export_type"` // all or specific
	Addons  []listAddon  `json:"addons"`
	Files   []listedFile `json:"files"` // all files of the bundle, but for this one, the sums and the README
	Missing []Missing    `json:"missing"`
}

// listAddon is an implementation of an addon.
type listAddon struct {
	Addon          string        `json:"addon"`
	Implementation string        `json:"implementation"`
	Version        string        `json:"version"`
	Description    string        `json:"description,omitempty"`
	Manifest       string        `json:"manifest"` // path in the bundle
	Files          []string      `json:"files"`    // paths of its own
	Shared         []string      `json:"shared,omitempty"`
	Images         []listImage   `json:"images"`
	Packages       []listPackage `json:"packages"`
}

type listImage struct {
	Reference string `json:"reference"`
	System    string `json:"system"`
	Path      string `json:"path"`
}

type listPackage struct {
	Kind Kind   `json:"kind"`
	Name string `json:"name"` // what the addon's manifest calls it
	Path string `json:"path"`
}

// listedFile is what a zip cannot say of a file by itself, or not surely.
type listedFile struct {
	Path   string `json:"path"`
	Type   string `json:"type"` // file, link or dir
	Size   int64  `json:"size_bytes"`
	SHA256 string `json:"sha256,omitempty"`
	Exec   bool   `json:"exec,omitempty"`
	MTime  int64  `json:"mtime,omitempty"` // seconds since 1970
	Link   string `json:"link,omitempty"`
}
