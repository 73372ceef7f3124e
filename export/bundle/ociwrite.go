package bundle

import (
	"context"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"ferry/manifest"
)

// ociMaker writes a bundle as a tar of an OCI image layout.
type ociMaker struct {
	p     *Plan
	blobs map[string]*blob // by digest
	names map[imageKey]string
}

func (o *ociMaker) close() {
	for _, b := range o.blobs {
		if b.spool != nil {
			b.spool.Close()
		}
	}
}

// add takes a blob up, once.
func (o *ociMaker) add(media string, b *blob) descriptor {
	if _, known := o.blobs[b.digest]; !known {
		o.blobs[b.digest] = b
	} else if b.spool != nil {
		b.spool.Close()
	}
	return descriptor{MediaType: media, Digest: "sha256:" + b.digest, Size: b.size}
}

func (o *ociMaker) write(ctx context.Context, w io.Writer) error {
	o.names = o.p.imageNames()
	linuxLayers, err := o.imageLayers(ctx, linux)
	if err != nil {
		return err
	}
	windowsLayers, err := o.imageLayers(ctx, windows)
	if err != nil {
		return err
	}
	index := indexFile{SchemaVersion: 2, MediaType: mediaIndex, Manifests: list[descriptor]{}, Annotations: o.indexNotes()}
	for i, part := range o.p.parts {
		d, err := o.part(ctx, part, linuxLayers[i], windowsLayers[i])
		if err != nil {
			return err
		}
		index.Manifests = append(index.Manifests, d)
	}
	return o.writeLayout(ctx, w, index)
}

// writeLayout writes the outer tar.
func (o *ociMaker) writeLayout(ctx context.Context, w io.Writer, index indexFile) error {
	// Beside what a layout consists of, there may be other files (image-layout.md): K2s
	// and other tools do not look at them.
	texts := map[string]*blob{
		"index.json": bytesBlob(encodeJSON(index)), "oci-layout": bytesBlob(encodeJSON(layoutFile{layoutVersion})), readmeName: bytesBlob([]byte(o.readme())),
	}
	sums := newSumList()
	var items []tarItem
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		it := o.file(name, texts[name])
		it.last = name == readmeName
		items = append(items, it)
		sums.add(name, texts[name].sum)
	}
	for _, dir := range []string{"blobs", "blobs/sha256"} {
		items = append(items, tarItem{name: dir, typ: manifest.TypeDir, mtime: o.p.created})
	}
	for _, digest := range slices.Sorted(maps.Keys(o.blobs)) {
		items = append(items, o.file("blobs/sha256/"+digest, o.blobs[digest]))
		sums.add("blobs/sha256/"+digest, o.blobs[digest].sum)
	}
	it := o.file(sumsName, bytesBlob(sums.text()))
	it.last = true
	items = append(items, it)
	return writeTar(ctx, w, items, withoutRoot, o.p.created)
}

func (o *ociMaker) file(name string, b *blob) tarItem {
	return tarItem{name: name, typ: manifest.TypeFile, size: b.size, mtime: o.p.created, write: func(ctx context.Context, w io.Writer) error {
		return writeSummed(ctx, w, b.sum, name, b.write)
	}}
}

// readme tells people without this program what they have.
func (o *ociMaker) readme() string {
	name, readers := o.p.Name(), "skopeo, umoci and oras read it, too."
	if o.p.opts.Product == DefaultProduct {
		readers = "skopeo, umoci and oras read it, too, and K2s' own import."
	}
	return o.p.readmeHead() + fmt.Sprintf(`
This is an OCI image layout, with a manifest for each addon. Bring them into an
installed folder or a package:

  ferry addons import -f %s --to FOLDER

%s

Check that all is whole, in the unpacked folder (tar -xf %s):

  Linux    sha256sum -c SHA256SUMS
  Windows  Get-FileHash PATH, and compare with SHA256SUMS
`, name, readers, name) + o.p.readmeMissing()
}

func (o *ociMaker) indexNotes() annotations {
	notes := o.commonNotes()
	notes[noteCount] = strconv.Itoa(len(o.p.parts))
	if len(o.p.Missing) > 0 {
		notes[noteMissing] = string(encodeJSON(o.p.Missing))
	}
	return notes
}

// commonNotes are on the index and on every manifest: addons that are copied one by
// one, from a registry to another, lose their index.
func (o *ociMaker) commonNotes() annotations {
	notes := annotations{}
	maps.Copy(notes, o.p.opts.Annotations)
	notes[noteBundle] = bundleFormat
	notes[noteCreated] = date(o.p.created)
	notes[noteProduct] = o.p.Version
	notes[noteDate] = date(o.p.created)
	notes[noteType] = o.p.exportType()
	return notes
}

// part makes the manifest of an implementation, and returns its index entry.
func (o *ociMaker) part(ctx context.Context, part *part, images ...*descriptor) (descriptor, error) {
	export := exportName(part.addon.Name, part.impl.Name)
	description := o.p.description(part)
	config := configFile{part.addon.Name, part.version(), part.impl.Name, description, o.p.Version, date(o.p.created)}
	m := manifestFile{SchemaVersion: 2, MediaType: mediaManifest, ArtifactType: mediaAddon, Annotations: o.commonNotes()}
	m.Config = o.add(mediaConfig, bytesBlob(encodeJSON(config)))
	maps.Copy(m.Annotations, annotations{
		noteTitle: export, noteVersion: part.version(), noteDescription: description,
		noteAddon: part.addon.Name, noteImpl: part.impl.Name, noteExport: export,
	})
	if missing := o.p.missingOf(part); len(missing) > 0 {
		m.Annotations[noteMissing] = string(encodeJSON(missing))
	}
	if names := o.imagesOf(part); len(names) > 0 {
		m.Annotations[noteImages] = string(encodeJSON(names))
	}
	layers, err := o.layers(ctx, part, images)
	if err != nil {
		return descriptor{}, err
	}
	m.Layers = layers
	d := o.add(mediaManifest, bytesBlob(encodeJSON(m)))
	d.ArtifactType = mediaAddon
	d.Annotations = annotations{
		// K2s has only the version here, the same for all entries: tools that look a
		// manifest up by this name would find none.
		noteRefName: refName(export + "-" + part.version()),
		noteTitle:   export, noteVersion: part.version(),
		noteAddon: part.addon.Name, noteImpl: part.impl.Name, noteExport: export,
	}
	return d, nil
}

// refName makes a name that is allowed as a tag.
func refName(name string) string {
	name = nameForbidden.ReplaceAllString(name, "_")
	return name[:min(len(name), 128)]
}

// imagesOf names the files in the image layers that are the part's.
func (o *ociMaker) imagesOf(part *part) []string {
	var names []string
	for _, im := range part.images {
		names = append(names, o.names[imageKey{im.from, im.system}])
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Layers of files, by what is in them.
const (
	layerConfig = iota
	layerManifests
	layerChart
	layerScripts
	nTextLayers
)

var textLayers = [nTextLayers]struct{ media, title string }{
	layerConfig:    {mediaConfigFiles, "config.tar.gz"},
	layerManifests: {mediaManifests, "manifests.tar.gz"},
	layerChart:     {mediaChart, "charts.tar.gz"},
	layerScripts:   {mediaScripts, "scripts.tar.gz"},
}

// Folders of an implementation that have layers of their own.
const (
	configFolder    = "config/"
	manifestsFolder = "manifests/"
	chartFolder     = "manifests/chart/"
)

// layers makes an implementation's layers, in K2s' order.
func (o *ociMaker) layers(ctx context.Context, part *part, images []*descriptor) (list[descriptor], error) {
	var items [nTextLayers][]tarItem
	items[layerConfig] = []tarItem{{
		name: DefaultManifestName, typ: manifest.TypeFile, size: int64(len(part.yaml)), mtime: part.yamlFile.ModTime, write: fillBytes(part.yaml),
	}}
	for _, it := range o.p.items(part.files, func(e manifest.Entry) string { return strings.TrimPrefix(e.Path, part.impl.Folder+"/") }) {
		layer, cut := layerOf(it.name)
		chart := it
		it.name = it.name[cut:]
		items[layer] = append(items[layer], it)
		if rest, ok := strings.CutPrefix(chart.name, chartFolder); ok { // in both, as in K2s: helm reads only this one
			chart.name = rest
			items[layerChart] = append(items[layerChart], chart)
		}
	}
	var layers list[descriptor]
	for i, layer := range textLayers {
		if len(items[i]) == 0 && i != layerManifests {
			continue
		}
		d, err := o.packedLayer(ctx, layer.media, layer.title, items[i])
		if err != nil {
			return nil, err
		}
		layers = append(layers, d)
	}
	for _, d := range images {
		if d != nil {
			layers = append(layers, *d)
		}
	}
	return o.lastLayers(ctx, part, layers)
}

// layerOf tells in which layer a file is, and how many bytes in front of its name
// are not part of its name there.
func layerOf(name string) (layer, cut int) {
	if strings.HasPrefix(name, manifestsFolder) {
		return layerManifests, len(manifestsFolder)
	}
	if strings.HasPrefix(name, configFolder) || isSettings(name) {
		return layerConfig, 0
	}
	return layerScripts, 0
}

// isSettings reports whether K2s takes a file for configuration.
func isSettings(name string) bool {
	if strings.Contains(name, "/") {
		return false
	}
	for _, pattern := range []string{"values.yaml", "values-*.yaml", "settings.json", "*.config.json", "*.config.yaml"} {
		if ok, _ := path.Match(pattern, strings.ToLower(name)); ok {
			return true
		}
	}
	return false
}

// lastLayers adds packages, and what of the addon belongs to no implementation.
func (o *ociMaker) lastLayers(ctx context.Context, part *part, layers list[descriptor]) (list[descriptor], error) {
	var packages []tarItem
	for _, f := range part.packages {
		packages = append(packages, tarItem{name: f.path, typ: manifest.TypeFile, size: f.from.size, mtime: o.p.created, write: o.p.fillFrom(f.from)})
	}
	shared := o.p.items(part.shared, func(e manifest.Entry) string { return strings.TrimPrefix(e.Path, part.addon.Folder+"/") })
	for _, layer := range []struct {
		media, title string
		items        []tarItem
	}{{mediaPackages, "packages.tar.gz", packages}, {mediaShared, "addon.tar.gz", shared}} {
		if len(layer.items) == 0 {
			continue
		}
		d, err := o.packedLayer(ctx, layer.media, layer.title, layer.items)
		if err != nil {
			return nil, err
		}
		layers = append(layers, d)
	}
	return layers, nil
}

func (o *ociMaker) packedLayer(ctx context.Context, media, title string, items []tarItem) (descriptor, error) {
	b, err := o.p.packed(ctx, items)
	if err != nil {
		return descriptor{}, err
	}
	d := o.add(media, b)
	d.Annotations = annotations{noteTitle: title}
	return d, nil
}

// imageLayers makes the layers of images for one system, and returns that of each
// part, nil where it needs none. Parts that share an image share the layer.
func (o *ociMaker) imageLayers(ctx context.Context, system string) ([]*descriptor, error) {
	media, title := mediaImages, "images-linux.tar"
	if system == windows {
		media, title = mediaWindowsImages, "images-windows.tar"
	}
	layers := make([]*descriptor, len(o.p.parts))
	for i, part := range o.p.parts {
		if layers[i] != nil || !part.uses(system) {
			continue
		}
		group := o.sharing(i, system)
		b, err := o.imageLayer(ctx, group, system)
		if err != nil {
			return nil, err
		}
		d := o.add(media, b)
		d.Annotations = annotations{noteTitle: title}
		for _, j := range group {
			layers[j] = &d
		}
	}
	return layers, nil
}

func (p *part) uses(system string) bool {
	return slices.ContainsFunc(p.images, func(im wantedImage) bool { return im.system == system })
}

// sharing returns the parts that are joined with part i by images that they share
// for a system, itself among them.
func (o *ociMaker) sharing(i int, system string) []int {
	group, seen := []int{i}, map[int]bool{i: true}
	for n := 0; n < len(group); n++ {
		for j := range o.p.parts {
			if !seen[j] && shareImage(o.p.parts[group[n]], o.p.parts[j], system) {
				seen[j] = true
				group = append(group, j)
			}
		}
	}
	return group
}

func shareImage(a, b *part, system string) bool {
	return slices.ContainsFunc(a.images, func(x wantedImage) bool {
		return x.system == system && slices.ContainsFunc(b.images, func(y wantedImage) bool { return y.system == system && y.from == x.from })
	})
}

// imageLayer makes the tar of the image archives of some parts. It is not kept:
// its bytes are read again when it is written.
func (o *ociMaker) imageLayer(ctx context.Context, parts []int, system string) (*blob, error) {
	from := map[string]*image{}
	for _, i := range parts {
		for _, im := range o.p.parts[i].images {
			if im.system == system {
				from[o.names[imageKey{im.from, im.system}]] = im.from
			}
		}
	}
	var items []tarItem
	for name, im := range from { // writeTar sorts
		items = append(items, tarItem{name: name, typ: manifest.TypeFile, size: im.size, mtime: o.p.created, write: o.p.fillFrom(im.candidate)})
	}
	write := func(ctx context.Context, w io.Writer) error { return writeTar(ctx, w, items, withRoot, o.p.created) }
	s, err := sumOf(ctx, write)
	return &blob{sum: s, write: write}, err
}
