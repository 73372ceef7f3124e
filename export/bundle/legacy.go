package bundle

import (
	"context"
	"io"
	"path"
	"regexp"
	"strings"

	"ferry/manifest"
)

// Bundles of K2s before 1.7 are zips: addons/addons.json lists folders
// addons/DIR, in which images are numbered ("0.tar", "1_win.tar") beside folders of
// packages. Up to 1.4 they hold no files of addons, 1.5 has those in "content", 1.6
// beside the images.
const (
	legacyList    = "addons/addons.json"
	legacyContent = "content"
	legacyInfo    = "version.info"
)

// legacyFile is addons/addons.json.
type legacyFile struct {
	Addons     list[legacyAddon] `json:"addons"`
	K2sVersion string            `json:"k2sVersion"`
}

type legacyAddon struct {
	Name           string `json:"name"` // "ingress nginx"
	DirName        string `json:"dirName"`
	Implementation string `json:"implementation"`
	Version        string `json:"version"`
}

var legacyImage = regexp.MustCompile(`^[0-9]+(_win)?\.tar$`)

func (z *zipReader) readLegacy(ctx context.Context) error {
	z.b.Format = FormatLegacy
	data, err := z.read(legacyList, maxJSON)
	if err != nil {
		return err
	}
	var l legacyFile
	if err := parseJSON(legacyList, data, &l); err != nil {
		return err
	}
	if len(l.Addons) == 0 || len(l.Addons) > maxContents {
		return invalidf("%s: %d addons", legacyList, len(l.Addons))
	}
	z.b.Version = l.K2sVersion
	// There are no digests: the zip's own checksums are all there is.
	for _, name := range z.order {
		r, err := z.open(name)
		if err != nil {
			return err
		}
		err = copyContext(ctx, io.Discard, r)
		r.Close()
		if err != nil {
			return err
		}
	}
	byFolder := map[string][]string{}
	for _, name := range z.order {
		if rest, ok := strings.CutPrefix(name, "addons/"); ok {
			if dir, rel, ok := strings.Cut(rest, "/"); ok {
				byFolder[dir] = append(byFolder[dir], rel)
			}
		}
	}
	for _, a := range l.Addons {
		if err := z.legacyAddon(ctx, a, byFolder[a.DirName]); err != nil {
			return err
		}
	}
	return nil
}

// legacyAddon reads one folder; names are relative to it.
func (z *zipReader) legacyAddon(ctx context.Context, a legacyAddon, names []string) error {
	words := strings.Fields(a.Name)
	if len(words) < 1 || len(words) > 2 {
		return invalidf("%s: name %.100q", legacyList, a.Name)
	}
	c := Content{Addon: words[0], Implementation: words[len(words)-1], Version: a.Version}
	if err := checkName("addon", c.Addon); err != nil {
		return err
	}
	if err := checkName("implementation", c.Implementation); err != nil {
		return err
	}
	if err := checkName("folder", a.DirName); err != nil {
		return err
	}
	folder := folderOf(c.Addon, c.Implementation)
	for _, rel := range names {
		name := path.Join("addons", a.DirName, rel)
		zf := z.files[name]
		if !zf.Mode().IsRegular() {
			return invalidf("%s is no file", name)
		}
		top, _, _ := strings.Cut(rel, "/")
		switch m := legacyImage.FindStringSubmatch(rel); {
		case m != nil:
			system := linux
			if m[1] != "" {
				system = windows
			}
			im, err := z.image(ctx, name, system)
			if err != nil {
				return err
			}
			c.Images = append(c.Images, im)
		case top == debianFolder, top == linuxFolder, top == windowsFolder:
			c.Packages = append(c.Packages, Package{kindOf(rel), rel, int64(zf.UncompressedSize64), z.stored(name)})
		case rel == legacyInfo:
		default:
			rel = strings.TrimPrefix(rel, legacyContent+"/")
			if rel == DefaultManifestName {
				var err error
				if c.yaml, err = z.read(name, maxYAML); err != nil {
					return err
				}
				c.yamlTime = zf.Modified.Unix()
				continue
			}
			c.Files = append(c.Files, File{
				Path: folder + "/" + rel, Type: manifest.TypeFile, Size: int64(zf.UncompressedSize64), ModTime: zf.Modified.Unix(), stored: z.stored(name),
			})
		}
	}
	return z.b.take(c)
}
