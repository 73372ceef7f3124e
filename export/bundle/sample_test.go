package bundle

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"ferry/cas"
	"ferry/manifest"
	"ferry/manifest/tree"
)

const sampleTime = 1_715_000_000

// product is a package in memory: files by path. It is a Files and a BaseFiles.
type product struct {
	files map[string]string
	exec  map[string]bool
	links map[string]string
}

func (p *product) manifest(t testing.TB) *manifest.Manifest {
	t.Helper()
	var entries []manifest.Entry
	for name, text := range p.files {
		entries = append(entries, manifest.Entry{
			Path: name, Type: manifest.TypeFile, Size: int64(len(text)), Digest: cas.Sum([]byte(text)), Exec: p.exec[name],
			ModTime: sampleTime + int64(len(name)),
		})
	}
	for name, target := range p.links {
		entries = append(entries, manifest.Entry{Path: name, Type: manifest.TypeLink, Link: target})
	}
	m, err := manifest.New(entries)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (p *product) WriteFile(_ context.Context, w io.Writer, e manifest.Entry) error {
	text, ok := p.files[e.Path]
	if !ok {
		return fmt.Errorf("%s: %w", e.Path, cas.ErrNotFound)
	}
	_, err := io.WriteString(w, text)
	return err
}

func (p *product) Open(_ context.Context, e manifest.Entry) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(p.files[e.Path])), nil
}

func (p *product) OpenAt(_ context.Context, e manifest.Entry) (tree.Content, error) {
	return tree.Spool(strings.NewReader(p.files[e.Path]), e.Size)
}

func (p *product) clone() *product {
	return &product{maps.Clone(p.files), maps.Clone(p.exec), maps.Clone(p.links)}
}

// offline is what an implementation needs, as YAML below its name.
type offline struct {
	debs, images, curl, windowsImages, windowsCurl []string
}

func yamlList(items []string) string {
	if len(items) == 0 {
		return " []\n"
	}
	var b strings.Builder
	b.WriteString("\n")
	for _, it := range items {
		fmt.Fprintf(&b, "          - %s\n", it)
	}
	return b.String()
}

func yamlCurl(items []string) string {
	var all []string
	for _, it := range items {
		url, destination, _ := strings.Cut(it, " ")
		all = append(all, "url: "+url+"\n            destination: "+destination)
	}
	return yamlList(all)
}

func (o offline) yaml() string {
	return "    offline_usage:\n      linux:\n        repos: []\n        deb:" + yamlList(o.debs) +
		"        additionalImages:" + yamlList(o.images) + "        curl:" + yamlCurl(o.curl) +
		"      windows:\n        additionalImages:" + yamlList(o.windowsImages) + "        curl:" + yamlCurl(o.windowsCurl)
}

// addon adds an addon with its manifest and, for each implementation, scripts.
func (p *product) addon(name string, impls map[string]offline) {
	var b strings.Builder
	fmt.Fprintf(&b, "# © sample\napiVersion: v1\nkind: AddonManifest\nmetadata:\n  name: %s\n  description: The %s of it\nspec:\n  implementations:\n", name, name)
	for _, impl := range slices.Sorted(maps.Keys(impls)) {
		sub := ""
		if impl != name {
			sub = impl + "/"
		}
		fmt.Fprintf(&b, "  - name: %s\n    description: it is %s\n", impl, impl)
		b.WriteString(impls[impl].yaml())
		fmt.Fprintf(&b, "    commands:\n      enable:\n        script:\n          subPath: %sEnable.ps1\n      disable:\n        script:\n          subPath: %sDisable.ps1\n", sub, sub)
		folder := "addons/" + folderOf(name, impl) + "/"
		p.files[folder+"Enable.ps1"] = "enable " + impl + "\n"
		p.files[folder+"Disable.ps1"] = "disable " + impl + "\n"
		p.files[folder+"README.md"] = "# " + impl + "\n"
		p.files[folder+"manifests/deployment.yaml"] = "kind: Deployment\nname: " + impl + "\n"
	}
	p.files["addons/"+name+"/addon.manifest.yaml"] = b.String()
}

// sample is a package of ten addons in the shape of K2s'.
func sample() *product {
	p := &product{map[string]string{}, map[string]bool{}, map[string]string{}}
	p.files["VERSION"] = "1.8.0"
	p.files["addons/common/manifests/shared.yaml"] = "kind: Shared\n"
	shared := []string{"quay.io/jetstack/cert-manager:v1.17.0"}
	p.addon("ingress", map[string]offline{
		"nginx":    {images: append([]string{"registry.example:5000/ingress/nginx:v1"}, shared...), windowsCurl: []string{`https://example.org/d/cmctl.exe bin\cmctl.exe`}},
		"traefik":  {images: append([]string{"traefik:v3"}, shared...)},
		"nginx-gw": {images: []string{"ghcr.io/nginx/gateway:2"}},
	})
	p.files["addons/ingress/README.md"] = "# ingress\n"
	p.addon("dashboard", map[string]offline{"dashboard": {}})
	p.files["addons/dashboard/manifests/chart/headlamp-0.1.tgz"] = "a chart"
	p.files["addons/dashboard/manifests/chart/values.yaml"] = "x: 1\n"
	p.files["addons/dashboard/build/plugins/plugin.tar.gz"] = "a plugin"
	p.files["addons/dashboard/build/README.md"] = "nested\n"
	p.files["addons/dashboard/values.yaml"] = "y: 2\n"
	p.addon("gpu-node", map[string]offline{"gpu-node": {debs: []string{"nvidia-toolkit"}}})
	p.addon("monitoring", map[string]offline{"monitoring": {windowsImages: []string{"quay.io/windows/exporter:0.1"}}})
	p.addon("registry", map[string]offline{"registry": {debs: []string{"apache2-utils"}}})
	p.addon("storage", map[string]offline{"smb": {debs: []string{"samba"}}})
	p.files["addons/storage/smb/config/SmbStorage.json"] = "{\"path\":\"/mnt\"}\n"
	p.addon("viewer", map[string]offline{"viewer": {}})
	p.exec["addons/viewer/Enable.ps1"] = true
	p.addon("rollout", map[string]offline{"argocd": {}, "fluxcd": {curl: []string{"https://example.org/flux?v=2 /usr/local/bin/flux"}}})
	p.files["addons/rollout/addon.manifest.yaml"] = utf8BOM + strings.TrimSuffix(p.files["addons/rollout/addon.manifest.yaml"], "\n")
	p.addon("security", map[string]offline{"security": {images: shared}})
	p.addon("logging", map[string]offline{"logging": {}})
	return p
}

// sampleSite is the folder of images and packages that goes with the sample.
func sampleSite(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for i, ref := range []string{
		"quay.io/jetstack/cert-manager:v1.17.0", "registry.example:5000/ingress/nginx:v1", "docker.io/library/traefik:v3", "ghcr.io/nginx/gateway:2",
	} {
		writeFile(t, filepath.Join(dir, "images", fmt.Sprintf("%d.tar", i)), imageTar(t, ref, linux))
	}
	writeFile(t, filepath.Join(dir, "images", "w.tar"), imageTar(t, "quay.io/windows/exporter:0.1", windows))
	writeFile(t, filepath.Join(dir, "images", "note.txt"), []byte("no image"))
	for _, name := range []string{"nvidia-toolkit", "apache2-utils"} {
		writeFile(t, filepath.Join(dir, "packages", name+"_1.0_amd64.deb"), debFile(t, name, "1.0"))
	}
	writeFile(t, filepath.Join(dir, "packages", debianFolder, "samba", "samba_2_amd64.deb"), debFile(t, "samba", "2"))
	writeFile(t, filepath.Join(dir, "packages", debianFolder, "samba", "libsamba_2_amd64.deb"), debFile(t, "libsamba", "2"))
	writeFile(t, filepath.Join(dir, "packages", windowsFolder, "cmctl.exe"), []byte("MZ"))
	writeFile(t, filepath.Join(dir, "packages", "flux"), []byte("flux"))
	return dir
}

func writeFile(t testing.TB, name string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data, 0o666); err != nil {
		t.Fatal(err)
	}
}

// tarFile is a member of a tar in a test.
type tarFile struct {
	name, text string
	link       string
}

func tarOf(t testing.TB, files ...tarFile) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.text)), Typeflag: tar.TypeReg, ModTime: time.Unix(sampleTime, 0)}
		switch {
		case f.link != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.link
		case strings.HasSuffix(f.name, "/"):
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := io.WriteString(w, f.text); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// imageTar is an OCI archive of one image.
func imageTar(t testing.TB, ref, system string) []byte {
	t.Helper()
	l := newLayout()
	config := l.blob(`{"architecture":"amd64","os":"` + system + `","rootfs":{"type":"layers","diff_ids":[]}}`)
	m := l.blob(fmt.Sprintf(`{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"%s","size":%d},"layers":[]}`, config.Digest, config.Size))
	index := fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":%d,"annotations":{%q:%q}}]}`, mediaManifest, m.Digest, m.Size, noteRefName, ref)
	return l.tar(t, "", index)
}

// layout is an OCI image layout being made by hand.
type layout struct{ blobs map[string]string }

func newLayout() *layout { return &layout{map[string]string{}} }

func (l *layout) blob(text string) descriptor {
	digest := sha256.Sum256([]byte(text))
	name := hex.EncodeToString(digest[:])
	l.blobs[name] = text
	return descriptor{Digest: "sha256:" + name, Size: int64(len(text))}
}

func (l *layout) tar(t testing.TB, prefix, index string, more ...tarFile) []byte {
	t.Helper()
	files := []tarFile{{name: prefix + "oci-layout", text: `{"imageLayoutVersion":"1.0.0"}`}, {name: prefix + "index.json", text: index}}
	for _, name := range slices.Sorted(maps.Keys(l.blobs)) {
		files = append(files, tarFile{name: prefix + "blobs/sha256/" + name, text: l.blobs[name]})
	}
	return tarOf(t, append(files, more...)...)
}

// debFile is a Debian package without content.
func debFile(t testing.TB, name, version string) []byte {
	t.Helper()
	control := gzipped(t, tarOf(t, tarFile{name: "./control", text: "Package: " + name + "\nVersion: " + version + "\n"}))
	var b bytes.Buffer
	b.WriteString("!<arch>\n")
	for _, m := range []struct {
		name string
		data []byte
	}{{"debian-binary", []byte("2.0\n")}, {"control.tar.gz", control}} {
		fmt.Fprintf(&b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", m.name, 0, 0, 0, "100644", len(m.data))
		b.Write(m.data)
		if len(m.data)%2 == 1 {
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}

func zipOf(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f, err := w.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(f, files[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// options are those for a bundle of the whole sample.
func options(dir string, format Format, names ...string) Options {
	return Options{Format: format, Addons: names, Images: []string{filepath.Join(dir, "images")}, Packages: []string{filepath.Join(dir, "packages")}}
}

// made writes a bundle and returns its bytes.
func made(t testing.TB, p *product, opts Options) []byte {
	t.Helper()
	plan, err := NewPlan(t.Context(), p.manifest(t), p, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer plan.Close()
	var b bytes.Buffer
	if err := plan.Write(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func opened(t testing.TB, data []byte) *Bundle {
	t.Helper()
	b, err := Open(t.Context(), bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// treeOf returns the files below a folder by path, with a mark for those that may be
// executed. Ferry's own state is left out.
func treeOf(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if rel == tree.StateDir {
			return fs.SkipDir
		}
		if !d.Type().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if fi != nil && fi.Mode()&0o111 != 0 && runtime.GOOS != "windows" {
			rel += "*"
		}
		files[rel] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// want returns the files of a product below a folder in the same form.
func (p *product) want(prefix string) map[string]string {
	files := map[string]string{}
	for name, text := range p.files {
		if strings.HasPrefix(name, prefix) {
			if p.exec[name] && runtime.GOOS != "windows" {
				name += "*"
			}
			files[name] = text
		}
	}
	return files
}

func without(files map[string]string, prefix string) map[string]string {
	maps.DeleteFunc(files, func(name, _ string) bool { return strings.HasPrefix(name, prefix) })
	return files
}

// compare reports how two trees differ.
func compare(t testing.TB, what string, got, want map[string]string) {
	t.Helper()
	for name, text := range want {
		if have, ok := got[name]; !ok {
			t.Errorf("%s: %s is missing", what, name)
		} else if have != text {
			t.Errorf("%s: %s = %.200q, want %.200q", what, name, have, text)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s: %s is extra", what, name)
		}
	}
}
