package bundle

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"ferry/manifest"
	"ferry/manifest/addon"
	"ferry/manifest/place"
)

// bare is a bundle of a product's files alone.
func bare(t *testing.T, p *product, names ...string) *Bundle {
	t.Helper()
	return opened(t, made(t, p, Options{Format: FormatZip, Addons: names, OmitImages: true, OmitPackages: true}))
}

// TestEdited imports over files that the site changed: what it changed stays.
func TestEdited(t *testing.T) {
	p := sample()
	newer := p.clone()
	newer.files["addons/viewer/Enable.ps1"] = "newer\n"
	newer.files["addons/viewer/Disable.ps1"] = "newer\n"
	site := t.TempDir()
	if _, err := Import(t.Context(), bare(t, p, "viewer"), nil, site, ImportOptions{}); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(site, "addons/viewer/Enable.ps1"), []byte("mine"))
	for range 2 { // the second one still knows
		report, err := Import(t.Context(), bare(t, newer, "viewer"), nil, site, ImportOptions{})
		if err != nil {
			t.Fatal(err)
		}
		want := []Kept{{Path: "addons/viewer/Enable.ps1", Reason: "was changed here", Edited: true}}
		if !slices.Equal(report.Kept, want) || len(report.Replaced) != 0 {
			t.Errorf("kept %v, replaced %v, want %v and nothing", report.Kept, report.Replaced, want)
		}
	}
	got := treeOf(t, site)
	if got["addons/viewer/Disable.ps1"] != "newer\n" || got["addons/viewer/Enable.ps1"]+got["addons/viewer/Enable.ps1*"] != "mine" {
		t.Errorf("files = %q", got)
	}
	report, err := Import(t.Context(), bare(t, newer, "viewer"), nil, site, ImportOptions{Force: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Kept) != 0 || !slices.Equal(report.Replaced, []string{"addons/viewer/Enable.ps1"}) || report.ReplacedIn != replacedFolder {
		t.Errorf("forced: %+v", report)
	}
	kept, err := os.ReadFile(filepath.Join(site, filepath.FromSlash(replacedFolder), "addons/viewer/Enable.ps1"))
	if string(kept) != "mine" {
		t.Errorf("kept aside = %q, %v, want what was replaced", kept, err)
	}
}

// TestUnknown imports over files of which nothing is known: they are replaced, and
// kept aside.
func TestUnknown(t *testing.T) {
	p := sample()
	site := t.TempDir()
	aside := func(name string) string {
		data, err := os.ReadFile(filepath.Join(site, filepath.FromSlash(replacedFolder), filepath.FromSlash(name)))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		return string(data)
	}
	writeFile(t, filepath.Join(site, "addons/viewer/Disable.ps1"), []byte("whose?"))
	report, err := Import(t.Context(), bare(t, p, "viewer"), nil, site, ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(report.Replaced, []string{"addons/viewer/Disable.ps1"}) || len(report.Kept) != 0 || aside("addons/viewer/Disable.ps1") != "whose?" {
		t.Errorf("replaced %v, kept %v, aside %q", report.Replaced, report.Kept, aside("addons/viewer/Disable.ps1"))
	}
	// What is the product's is not kept, and leaves what was kept alone.
	newer := p.clone()
	newer.files["addons/viewer/Disable.ps1"] = "newer\n"
	if _, err := Import(t.Context(), bare(t, newer, "viewer"), nil, site, ImportOptions{}); err != nil {
		t.Fatal(err)
	}
	if aside("addons/viewer/Disable.ps1") != "whose?" {
		t.Error("what was kept aside is gone")
	}
	writeFile(t, filepath.Join(site, "addons/logging/Enable.ps1"), []byte("another"))
	if _, err := Import(t.Context(), bare(t, p, "logging"), nil, site, ImportOptions{}); err != nil {
		t.Fatal(err)
	}
	if aside("addons/viewer/Disable.ps1") != "" || aside("addons/logging/Enable.ps1") != "another" {
		t.Error("there is more kept aside than of the last import that replaced something")
	}
}

// TestEditedManifest adds an implementation to a manifest that the site changed.
func TestEditedManifest(t *testing.T) {
	p := sample()
	site := t.TempDir()
	if _, err := Import(t.Context(), bare(t, p), []string{"ingress nginx"}, site, ImportOptions{}); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(site, "addons/ingress/addon.manifest.yaml")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	edited := strings.Replace(string(text), "description: it is nginx", "description: it is ours", 1)
	writeFile(t, name, []byte(edited))
	report, err := Import(t.Context(), bare(t, p), []string{"ingress nginx", "ingress traefik"}, site, ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got := treeOf(t, site)["addons/ingress/addon.manifest.yaml"]
	if !strings.Contains(got, "it is ours") || !strings.Contains(got, "it is traefik") {
		t.Errorf("manifest = %s", got)
	}
	if len(report.Kept) != 1 || !report.Kept[0].Edited {
		t.Errorf("kept = %v, want the manifest", report.Kept)
	}
}

// TestUnreadableFolder imports into a tree that has a folder which nobody may read.
func TestUnreadableFolder(t *testing.T) {
	if runtime.GOOS == "windows" || os.Geteuid() == 0 {
		t.Skip("every folder can be read")
	}
	site := t.TempDir()
	closed := filepath.Join(site, "closed")
	if err := os.Mkdir(closed, 0); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(closed, 0o777)
	if _, err := Import(t.Context(), bare(t, sample(), "viewer"), nil, site, ImportOptions{}); err != nil {
		t.Error(err)
	}
}

// TestElsewhereTaken finds other bytes where images are to go: nothing is changed.
func TestElsewhereTaken(t *testing.T) {
	p, dir := sample(), sampleSite(t)
	b := opened(t, made(t, p, options(dir, FormatZip)))
	site, images := t.TempDir(), t.TempDir()
	name := filepath.Join(images, "windows_quay.io_windows_exporter_0.1.tar")
	writeFile(t, name, []byte("mine"))
	_, err := Import(t.Context(), b, []string{"ingress", "monitoring"}, site, ImportOptions{ImagesTo: images})
	if !errors.Is(err, place.ErrExists) || !strings.Contains(err.Error(), name) {
		t.Errorf("error = %v, want ErrExists that names %s", err, name)
	}
	if got := treeOf(t, images); len(got) != 1 || len(treeOf(t, site)) != 0 {
		t.Errorf("something was written: %q", slices.Sorted(maps.Keys(got)))
	}
	if _, err := Import(t.Context(), b, []string{"monitoring"}, site, ImportOptions{ImagesTo: images, Force: true}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(name); string(got) == "mine" {
		t.Errorf("forced, yet not replaced: %v", err)
	}
}

// TestLockFileReplaced takes the lock although its file is removed under it.
func TestLockFileReplaced(t *testing.T) {
	site := t.TempDir()
	f, err := openFolder(site)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	name := filepath.Join(site, filepath.FromSlash(lockPath))
	if err := os.Remove(name); err != nil {
		t.Skipf("a lock file stays here while it is locked: %v", err)
	}
	if ours, err := f.holdsLock(); ours || err != nil {
		t.Errorf("holdsLock of a file that is gone = %v, %v", ours, err)
	}
	writeFile(t, name, nil)
	if ours, err := f.holdsLock(); ours || err != nil {
		t.Errorf("holdsLock of another file = %v, %v", ours, err)
	}
}

func TestBackslashLink(t *testing.T) {
	for _, target := range []string{`..\x`, `a\b`, `\\host\x`} {
		if err := checkLink("a/b", target); !errors.Is(err, ErrInvalid) {
			t.Errorf("checkLink(%q) = %v, want ErrInvalid", target, err)
		}
	}
}

// poolOf is a pool of folders, and of a package behind them.
func poolOf(t *testing.T, own map[string]string, folders ...string) *pool {
	t.Helper()
	p := &pool{}
	t.Cleanup(p.close)
	for _, dir := range folders {
		if err := p.addFolder(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
	}
	v := &product{files: own}
	p.addVersion(v.manifest(t), v)
	return p
}

func TestPool(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	for i, dir := range []string{first, second} {
		folder := filepath.Join(dir, debianFolder, "samba")
		writeFile(t, filepath.Join(folder, "samba_1_amd64.deb"), debFile(t, "samba", "1"))
		writeFile(t, filepath.Join(folder, fmt.Sprintf("lib%d_1_amd64.deb", i)), debFile(t, "lib", "1"))
	}
	writeFile(t, filepath.Join(second, "tool"), []byte("tool"))
	writeFile(t, filepath.Join(second, "image.tar"), imageTar(t, "quay.io/a/b:v1", linux))
	p := poolOf(t, map[string]string{
		"addons/.imported/packages/linuxpackages/tool": "older tool", "bin/install.yaml": "the product's own", "addons/.imported/images/a.tar": string(imageTar(t, "quay.io/a/b:v1", linux)),
	}, first, second)
	found, err := p.findDebian(t.Context(), "samba")
	if err != nil || len(found) != 2 || !strings.HasPrefix(found[0].where, filepath.ToSlash(first)) || !strings.HasPrefix(found[1].where, filepath.ToSlash(first)) {
		t.Errorf("findDebian = %d files, %v, want the two of the first folder", len(found), err)
	}
	if c := p.findDownload("https://example.org/tool", linux); c == nil || !strings.HasPrefix(c.where, filepath.ToSlash(second)) {
		t.Errorf("findDownload = %+v, want that of the second folder", c)
	}
	if c := p.findDownload("https://example.org/install.yaml", linux); c != nil {
		t.Errorf("findDownload = %s, want none", c.where)
	}
	ref, err := addon.ParseReference("quay.io/a/b:v1")
	if err != nil {
		t.Fatal(err)
	}
	if im, err := p.findImage(t.Context(), ref, linux); err != nil || im == nil || !strings.HasPrefix(im.where, filepath.ToSlash(second)) {
		t.Errorf("findImage = %+v, %v, want that of the second folder", im, err)
	}
}

// TestDigestReference holds a reference with a digest to that digest.
func TestDigestReference(t *testing.T) {
	l := newLayout()
	m := l.blob(`{"schemaVersion":2,"layers":[]}`)
	nameless := l.tar(t, "", fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, mediaManifest, m.Digest, m.Size))
	info, err := readImage(t.Context(), bytes.NewReader(nameless), int64(len(nameless)))
	if err != nil || info.images != 1 || info.docker {
		t.Fatalf("readImage = %+v, %v", info, err)
	}
	named := imageTar(t, "quay.io/a/b:v1", linux)
	other, err := readImage(t.Context(), bytes.NewReader(named), int64(len(named)))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		ref         string
		info, other bool
	}{
		{"quay.io/a/b@" + m.Digest, true, false},
		{"quay.io/a/b:v1@" + m.Digest, true, false},
		{"quay.io/a/b:v1", false, true},
	} {
		ref, err := addon.ParseReference(test.ref)
		if err != nil {
			t.Fatal(err)
		}
		if got := [2]bool{info.holds(ref), other.holds(ref)}; got != [2]bool{test.info, test.other} {
			t.Errorf("%s: holds = %v, want %v and %v", test.ref, got, test.info, test.other)
		}
	}
}

// withoutIndexNotes is a bundle of which the index says no more than what it lists, as
// when its addons were copied one by one.
func withoutIndexNotes(t *testing.T, data []byte) []byte {
	t.Helper()
	var files []tarFile
	for tr := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		if h.Name == "index.json" {
			var index indexFile
			if err := json.Unmarshal(text, &index); err != nil {
				t.Fatal(err)
			}
			index.Annotations = nil
			for i := range index.Manifests {
				index.Manifests[i].Annotations = nil
			}
			text = encodeJSON(index)
		}
		files = append(files, tarFile{name: h.Name, text: string(text)})
	}
	return tarOf(t, files...)
}

// TestCopiedOneByOne reads from the manifests what the index says no more.
func TestCopiedOneByOne(t *testing.T) {
	p, dir := sample(), sampleSite(t)
	if err := os.Remove(filepath.Join(dir, "images", "1.tar")); err != nil {
		t.Fatal(err)
	}
	opts := options(dir, FormatOCI)
	opts.AllowMissing = true
	data := made(t, p, opts)
	want, got := opened(t, data), opened(t, withoutIndexNotes(t, data))
	if !got.Whole || got.Version != want.Version || got.Created != want.Created || len(want.Missing) != 1 || !slices.Equal(got.Missing, want.Missing) {
		t.Errorf("whole %v, version %s, created %s, missing %v; want true, %s, %s, %v", got.Whole, got.Version, got.Created, got.Missing, want.Version, want.Created, want.Missing)
	}
	for i := range want.Contents {
		if n := len(got.Contents[i].Images); n != len(want.Contents[i].Images) {
			t.Errorf("%s: %d images, want %d", want.Contents[i].Title(), n, len(want.Contents[i].Images))
		}
	}
}

// TestSumsOCI checks an OCI bundle as somebody without this program does.
func TestSumsOCI(t *testing.T) {
	tar, err := exec.LookPath("tar")
	if err != nil {
		t.Skip("without tar")
	}
	sums, err := exec.LookPath("sha256sum")
	if err != nil {
		t.Skip("without sha256sum")
	}
	p, dir := sample(), sampleSite(t)
	file, out := filepath.Join(t.TempDir(), "b.oci.tar"), t.TempDir()
	writeFile(t, file, made(t, p, options(dir, FormatOCI)))
	if text, err := exec.Command(tar, "-xf", file, "-C", out).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	cmd := exec.Command(sums, "--strict", "-c", sumsName)
	cmd.Dir = out
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, text)
	}
	if got, want := strings.Count(string(text), ": OK\n"), len(treeOf(t, out))-1; got != want {
		t.Errorf("%d files checked, want %d", got, want)
	}
	readme, err := os.ReadFile(filepath.Join(out, readmeName))
	if err != nil || !strings.Contains(string(readme), "ferry addons import -f K2s-1.8.0-addons-all.oci.tar") {
		t.Errorf("README = %s, %v", readme, err)
	}
}

// TestForeign names the image archives that K2s itself cannot load.
func TestForeign(t *testing.T) {
	p, dir := sample(), sampleSite(t)
	writeFile(t, filepath.Join(dir, "images", "1.tar"), tarOf(t, tarFile{name: "manifest.json", text: `[{"Config":"c","RepoTags":["registry.example:5000/ingress/nginx:v1"],"Layers":[]}]`}))
	l := newLayout()
	m := l.blob(`{"schemaVersion":2,"layers":[]}`)
	entry := func(ref string) string {
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,"annotations":{%q:%q}}`, mediaManifest, m.Digest, m.Size, noteRefName, ref)
	}
	writeFile(t, filepath.Join(dir, "images", "3.tar"), l.tar(t, "", `{"schemaVersion":2,"manifests":[`+entry("ghcr.io/nginx/gateway:2")+","+entry("ghcr.io/nginx/other:2")+"]}"))
	for format, want := range map[Format]int{FormatOCI: 2, FormatZip: 0} {
		plan, err := NewPlan(t.Context(), p.manifest(t), p, options(dir, format))
		if err != nil {
			t.Fatal(err)
		}
		if got := plan.Summary().Foreign; len(got) != want {
			t.Errorf("%s: foreign = %v, want %d", format, got, want)
		}
		plan.Close()
	}
}

// TestOtherNames exports and imports addons that stand elsewhere, under other names.
func TestOtherNames(t *testing.T) {
	p := &product{files: map[string]string{
		"release": "3.0\n", "parts/tool/part.yaml": "kind: AddonManifest\nmetadata:\n  name: tool\nspec:\n  implementations:\n  - name: tool\n    commands: {}\n", "parts/tool/run.sh": "run\n",
	}}
	for _, format := range formats {
		opts := Options{Format: format, Root: "parts", ManifestName: "part.yaml", VersionFile: "release", Product: "other"}
		b := opened(t, made(t, p, opts))
		if b.Version != "3.0" {
			t.Errorf("version = %s", b.Version)
		}
		site := t.TempDir()
		for range 2 {
			report, err := Import(t.Context(), b, nil, site, ImportOptions{Root: "parts", ManifestName: "part.yaml", VersionFile: "release"})
			if err != nil {
				t.Fatal(err)
			}
			if len(report.Kept)+len(report.Replaced) != 0 {
				t.Errorf("report = %+v", report)
			}
		}
		compare(t, string(format), treeOf(t, site), p.want("parts/"))
	}
}

// TestOneArchiveForMany opens a zip in which many addons list one packed image: it is
// unpacked once.
func TestOneArchiveForMany(t *testing.T) {
	image := imageTar(t, "quay.io/a/b:v1", linux)
	path := zipImages + "/b.tar"
	list := listFile{Format: bundleFormat, Files: []listedFile{{Path: path, Type: string(manifest.TypeFile), Size: int64(len(image)), SHA256: bytesBlob(image).digest}}}
	for i := range 20 {
		name := fmt.Sprintf("a%d", i)
		list.Addons = append(list.Addons, listAddon{Addon: name, Implementation: name, Images: []listImage{{"quay.io/a/b:v1", linux, path}, {"quay.io/a/b:v1", windows, path}}})
	}
	b := opened(t, zipOf(t, map[string]string{listName: string(encodeJSON(list)), path: string(image)}))
	if len(b.closers) != 1 {
		t.Errorf("%d things were unpacked, want 1", len(b.closers))
	}
	for _, c := range b.Contents {
		if len(c.Images) != 2 || c.Images[0].System != linux || c.Images[1].System != windows {
			t.Errorf("%s: images = %+v", c.Title(), c.Images)
		}
	}
}
