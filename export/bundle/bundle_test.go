package bundle

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ferry/cas"
	"ferry/manifest"
	"ferry/manifest/tree"
)

var formats = []Format{FormatOCI, FormatZip}

// TestRoundTrip brings all addons out and in again: byte for byte.
func TestRoundTrip(t *testing.T) {
	p, dir := sample(), sampleSite(t)
	for _, format := range formats {
		t.Run(string(format), func(t *testing.T) {
			b := opened(t, made(t, p, options(dir, format)))
			if b.Format != format || b.Version != "1.8.0" || !b.Whole || len(b.Contents) != 13 || len(b.Missing) != 0 {
				t.Errorf("bundle = %s %s whole %v, %d contents, %d missing; want %s 1.8.0 whole, 13, 0", b.Format, b.Version, b.Whole, len(b.Contents), len(b.Missing), format)
			}
			target := filepath.Join(t.TempDir(), "site")
			report, err := Import(t.Context(), b, nil, target, ImportOptions{})
			if err != nil {
				t.Fatal(err)
			}
			got := treeOf(t, target)
			placed := maps.Clone(got)
			if got["bin/cmctl.exe"] != "MZ" {
				t.Errorf("bin/cmctl.exe = %q, want what the addon's manifest says", got["bin/cmctl.exe"])
			}
			delete(got, "bin/cmctl.exe")
			compare(t, "import", without(got, "addons/.imported/"), without(p.want("addons/"), "addons/common/"))
			if len(report.Images) != 5 || len(report.Packages) != 6 {
				t.Errorf("images %q, packages %q; want 5 and 6", report.Images, report.Packages)
			}
			for _, name := range []string{
				"addons/.imported/images/docker.io_library_traefik_v3.tar", "addons/.imported/images/windows_quay.io_windows_exporter_0.1.tar",
				"addons/.imported/packages/debianpackages/samba/libsamba_2_amd64.deb", "addons/.imported/packages/windowspackages/cmctl.exe",
			} {
				if _, ok := placed[name]; !ok {
					t.Errorf("%s was not placed", name)
				}
			}
			again, err := Import(t.Context(), b, nil, target, ImportOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if n := len(again.Added) + len(again.Changed) + len(again.Removed) + len(again.Kept); n != 0 {
				t.Errorf("a second import changed %+v", again)
			}
			for _, a := range again.Addons {
				if a.State != StateUnchanged {
					t.Errorf("second import: %s is %s", a.Title(), a.State)
				}
			}
		})
	}
}

// TestFromImported exports again from what an import placed: nothing else is
// needed.
func TestFromImported(t *testing.T) {
	p, dir := sample(), sampleSite(t)
	target := t.TempDir()
	if _, err := Import(t.Context(), opened(t, made(t, p, options(dir, FormatZip))), nil, target, ImportOptions{}); err != nil {
		t.Fatal(err)
	}
	again := &product{map[string]string{"VERSION": "1.8.0"}, map[string]bool{}, map[string]string{}}
	for name, text := range treeOf(t, target) {
		again.files[strings.TrimSuffix(name, "*")] = text
	}
	b := opened(t, made(t, again, Options{Format: FormatOCI}))
	if len(b.Contents) != 13 || len(b.Missing) != 0 {
		t.Errorf("%d contents, missing %v", len(b.Contents), b.Missing)
	}
}

func TestDeterministic(t *testing.T) {
	p, dir := sample(), sampleSite(t)
	for _, format := range formats {
		first, second := made(t, p, options(dir, format)), made(t, p, options(dir, format))
		if !bytes.Equal(first, second) {
			t.Errorf("%s: the same version gives other bytes", format)
		}
		opts := options(dir, format)
		opts.Time = sampleTime + 86400
		if bytes.Equal(first, made(t, p, opts)) {
			t.Errorf("%s: the time makes no difference", format)
		}
	}
}

func TestNames(t *testing.T) {
	p := sample()
	for _, test := range []struct {
		names []string
		want  string
		n     int
	}{
		{nil, "K2s-1.8.0-addons-all.oci.tar", 13},
		{[]string{"ingress nginx"}, "K2s-1.8.0-addons-ingress-nginx.oci.tar", 1},
		{[]string{"ingress", "nginx", "gpu-node"}, "K2s-1.8.0-addons-gpu-node-ingress-nginx.oci.tar", 2},
		{[]string{"storage"}, "K2s-1.8.0-addons-storage-smb.oci.tar", 1},
		{[]string{"ingress"}, "", 3},
	} {
		plan, err := NewPlan(t.Context(), p.manifest(t), p, Options{Addons: test.names, OmitImages: true, OmitPackages: true})
		if err != nil {
			t.Errorf("%q: %v", test.names, err)
			continue
		}
		if got := plan.Name(); test.want != "" && got != test.want || len(plan.Summary().Addons) != test.n {
			t.Errorf("%q: name %s with %q, want %s with %d", test.names, got, plan.Summary().Addons, test.want, test.n)
		}
		plan.Close()
	}
	if _, err := NewPlan(t.Context(), p.manifest(t), p, Options{Addons: []string{"ingres"}}); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("unknown addon: %v", err)
	}
}

// TestOnlySelected holds a bundle of one implementation to that one.
func TestOnlySelected(t *testing.T) {
	p, dir := sample(), sampleSite(t)
	for _, format := range formats {
		b := opened(t, made(t, p, options(dir, format, "ingress nginx")))
		if len(b.Contents) != 1 || b.Contents[0].Title() != "ingress nginx" || len(b.Contents[0].Images) != 2 {
			t.Fatalf("%s: contents = %+v", format, b.List())
		}
		if text := string(b.Contents[0].yaml); !strings.Contains(text, "name: nginx\n") || strings.Contains(text, "traefik") || !strings.HasPrefix(text, "# © sample") {
			t.Errorf("%s: manifest = %s", format, text)
		}
		for _, f := range slices.Concat(b.Contents[0].Files, b.Contents[0].Shared) {
			if !strings.HasPrefix(f.Path, "ingress/nginx/") && f.Path != "ingress/README.md" {
				t.Errorf("%s: file %s", format, f.Path)
			}
		}
	}
}

// TestImagesOnce holds a bundle to having an image that several need only once.
func TestImagesOnce(t *testing.T) {
	p, dir := sample(), sampleSite(t)
	marker := make([]byte, 64<<10)
	for i := range marker {
		marker[i] = byte(i * i >> 3)
	}
	image := tarOf(t, tarFile{name: "manifest.json", text: `[{"Config":"c","RepoTags":["quay.io/jetstack/cert-manager:v1.17.0"],"Layers":[]}]`}, tarFile{name: "layer", text: string(marker)})
	writeFile(t, filepath.Join(dir, "images", "0.tar"), image)
	for _, format := range formats {
		data := made(t, p, options(dir, format, "ingress", "security"))
		if n := bytes.Count(data, marker); n != 1 {
			t.Errorf("%s: the image is there %d times", format, n)
		}
		for _, c := range opened(t, data).Contents {
			want := map[string]int{"ingress nginx": 2, "ingress traefik": 2, "ingress nginx-gw": 1, "security": 1}[c.Title()]
			if len(c.Images) != want {
				t.Errorf("%s: %s has %d images, want %d", format, c.Title(), len(c.Images), want)
			}
		}
	}
}

func TestMissing(t *testing.T) {
	p, dir := sample(), sampleSite(t)
	for _, name := range []string{"images/1.tar", "packages/debianpackages/samba/samba_2_amd64.deb", "packages/flux"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(dir, "images", "broken.tar"), []byte("not a tar, at all"))
	var missing *MissingError
	_, err := NewPlan(t.Context(), p.manifest(t), p, options(dir, FormatOCI))
	if !errors.As(err, &missing) || len(missing.Missing) != 3 {
		t.Fatalf("error = %v, want three things", err)
	}
	for _, want := range []string{"registry.example:5000/ingress/nginx:v1, for ingress nginx on linux", "Debian package samba, for storage smb", "download https://example.org/flux", "broken.tar"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q lacks %q", err, want)
		}
	}
	for _, format := range formats {
		opts := options(dir, format)
		opts.AllowMissing = true
		b := opened(t, made(t, p, opts))
		if !slices.Equal(b.Missing, missing.Missing) {
			t.Errorf("%s: missing = %v, want %v", format, b.Missing, missing.Missing)
		}
		opts.AllowMissing, opts.OmitImages, opts.OmitPackages = false, true, true
		if b := opened(t, made(t, p, opts)); len(b.Contents[0].Images)+len(b.Missing) != 0 {
			t.Errorf("%s: left out, yet there", format)
		}
	}
}

func TestImportOne(t *testing.T) {
	p, dir := sample(), sampleSite(t)
	b := opened(t, made(t, p, options(dir, FormatOCI)))
	target := t.TempDir()
	if _, err := Import(t.Context(), b, []string{"ingress-nginx"}, target, ImportOptions{OmitImages: true, OmitPackages: true}); err != nil {
		t.Fatal(err)
	}
	got := treeOf(t, target)
	text := got["addons/ingress/addon.manifest.yaml"]
	if strings.Contains(text, "traefik") || !strings.Contains(text, "name: nginx\n") {
		t.Errorf("manifest = %s", text)
	}
	if got["addons/ingress/nginx/Enable.ps1"] == "" || got["addons/ingress/traefik/Enable.ps1"] != "" {
		t.Errorf("files = %q", slices.Sorted(maps.Keys(got)))
	}
	if _, err := Import(t.Context(), b, []string{"ingress", "traefik"}, target, ImportOptions{OmitImages: true, OmitPackages: true}); err != nil {
		t.Fatal(err)
	}
	text = treeOf(t, target)["addons/ingress/addon.manifest.yaml"]
	if !strings.Contains(text, "name: traefik\n") || !strings.Contains(text, "name: nginx\n") || strings.Contains(text, "nginx-gw") {
		t.Errorf("merged manifest = %s", text)
	}

	before := treeOf(t, target)
	var lacks *NotInBundleError
	_, err := Import(t.Context(), b, []string{"viewer", "kubevirt"}, target, ImportOptions{})
	if !errors.As(err, &lacks) || !errors.Is(err, cas.ErrNotFound) || !slices.Contains(lacks.Has, "ingress nginx") || !strings.Contains(err.Error(), "kubevirt") {
		t.Errorf("error = %v, want what the bundle has", err)
	}
	compare(t, "after the refusal", treeOf(t, target), before)
}

// TestUpdate imports a newer bundle over an older one.
func TestUpdate(t *testing.T) {
	p := sample()
	target := t.TempDir()
	quiet := ImportOptions{OmitImages: true, OmitPackages: true, Preserve: func(p string) bool { return p == "addons/storage/smb/config/SmbStorage.json" }}
	bare := Options{Format: FormatZip, OmitImages: true, OmitPackages: true}
	if _, err := Import(t.Context(), opened(t, made(t, p, bare)), nil, target, quiet); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(target, "addons/storage/smb/config/SmbStorage.json"), []byte("mine"))
	writeFile(t, filepath.Join(target, "addons/storage/smb/notes.txt"), []byte("mine too"))
	writeFile(t, filepath.Join(target, "addons/viewer/README.md"), []byte("edited and gone"))
	newer := p.clone()
	newer.files["VERSION"] = "1.9.0"
	newer.files["addons/storage/smb/Enable.ps1"] = "enable better\n"
	newer.files["addons/storage/smb/Backup.ps1"] = "backup\n"
	newer.files["addons/storage/smb/config/SmbStorage.json"] = "{}\n"
	newer.files["addons/storage/addon.manifest.yaml"] = strings.Replace(p.files["addons/storage/addon.manifest.yaml"], "  - name: smb\n", "  - name: smb\n    version: 1.1.0\n", 1)
	delete(newer.files, "addons/storage/smb/README.md")
	delete(newer.files, "addons/viewer/README.md")
	for _, format := range formats {
		t.Run(string(format), func(t *testing.T) {
			site := t.TempDir()
			if err := os.CopyFS(site, os.DirFS(target)); err != nil {
				t.Fatal(err)
			}
			bare.Format = format
			report, err := Import(t.Context(), opened(t, made(t, newer, bare)), []string{"storage", "viewer"}, site, quiet)
			if err != nil {
				t.Fatal(err)
			}
			got := treeOf(t, site)
			for name, want := range map[string]string{
				"addons/storage/smb/Enable.ps1": "enable better\n", "addons/storage/smb/Backup.ps1": "backup\n", "addons/storage/smb/README.md": "",
				"addons/storage/smb/config/SmbStorage.json": "mine", "addons/storage/smb/notes.txt": "mine too", "addons/viewer/README.md": "edited and gone",
				"addons/storage/addon.manifest.yaml": newer.files["addons/storage/addon.manifest.yaml"],
			} {
				if got[name] != want {
					t.Errorf("%s = %q, want %q", name, got[name], want)
				}
			}
			want := fmt.Sprint([]string{"addons/storage/smb/Backup.ps1"}, []string{"addons/storage/addon.manifest.yaml", "addons/storage/smb/Enable.ps1"}, []string{"addons/storage/smb/README.md"})
			if have := fmt.Sprint(report.Added, report.Changed, report.Removed); have != want {
				t.Errorf("report = %s, want %s", have, want)
			}
			if len(report.Kept) != 3 {
				t.Errorf("kept = %v, want three", report.Kept)
			}
			if a := report.Addons[0]; a.State != StateUpdated || a.BaseVersion != "1.0.0" || a.TargetVersion != "1.1.0" {
				t.Errorf("storage: %+v", a)
			}
			if report.TargetVersion != "1.9.0" {
				t.Errorf("version = %s", report.TargetVersion)
			}
		})
	}
}

// TestUpdateKnowsBase removes what the version that the target was made from had.
func TestUpdateKnowsBase(t *testing.T) {
	p := sample()
	target := t.TempDir()
	for name, text := range p.files {
		writeFile(t, filepath.Join(target, name), []byte(text))
	}
	newer := p.clone()
	delete(newer.files, "addons/viewer/README.md")
	b := opened(t, made(t, newer, Options{Addons: []string{"viewer"}}))
	report, err := Import(t.Context(), b, nil, target, ImportOptions{Base: p.manifest(t)})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(report.Removed, []string{"addons/viewer/README.md"}) || report.BaseVersion != "1.8.0" {
		t.Errorf("report = %+v", report)
	}
}

// TestAtomic makes each change of the tree fail in turn, and also dies there.
func TestAtomic(t *testing.T) {
	p := sample()
	newer := p.clone()
	newer.files["addons/viewer/Enable.ps1"] = "new\n"
	newer.files["addons/viewer/Status.ps1"] = "new\n"
	delete(newer.files, "addons/viewer/README.md")
	delete(newer.files, "addons/viewer/Disable.ps1")
	newer.files["addons/viewer/Disable.ps1/inner"] = "a file became a folder\n"
	b := opened(t, made(t, newer, Options{Addons: []string{"viewer"}}))
	selected, err := b.Select(nil)
	if err != nil {
		t.Fatal(err)
	}
	before, after := without(p.want("addons/"), "addons/common/"), without(newer.want("addons/"), "addons/common/")
	for _, dies := range []bool{false, true} {
		for n := 0; ; n++ {
			target := t.TempDir()
			for name, text := range before {
				writeFile(t, filepath.Join(target, strings.TrimSuffix(name, "*")), []byte(text))
				if strings.HasSuffix(name, "*") {
					os.Chmod(filepath.Join(target, strings.TrimSuffix(name, "*")), 0o755)
				}
			}
			f, err := openFolder(target)
			if err != nil {
				t.Fatal(err)
			}
			i := 0
			f.step = func(what string) error {
				i++
				if i == n+1 || dies && i > n {
					return fmt.Errorf("made to fail at %s", what)
				}
				return nil
			}
			opts := ImportOptions{Base: p.manifest(t)}.withDefaults()
			_, err = f.importBundle(t.Context(), b, selected, opts)
			f.close()
			if err == nil {
				compare(t, "success", treeOf(t, target), after)
				if n < 6 {
					t.Errorf("only %d steps", n)
				}
				break
			}
			if dies { // the next command finds what was left
				if f, err = openFolder(target); err != nil {
					t.Fatal(err)
				}
				if err := f.recover(); err != nil {
					t.Fatal(err)
				}
				f.close()
			}
			compare(t, fmt.Sprintf("failure %d, dies %v", n, dies), treeOf(t, target), before)
			if t.Failed() {
				return
			}
		}
	}
}

func TestLocked(t *testing.T) {
	target := t.TempDir()
	f, err := openFolder(target)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	b := opened(t, made(t, sample(), Options{Addons: []string{"viewer"}}))
	if _, err := Import(t.Context(), b, nil, target, ImportOptions{}); !errors.Is(err, cas.ErrLocked) {
		t.Errorf("error = %v, want ErrLocked", err)
	}
}

func TestImagesElsewhere(t *testing.T) {
	p, dir := sample(), sampleSite(t)
	b := opened(t, made(t, p, options(dir, FormatZip)))
	target, images, packages := t.TempDir(), filepath.Join(t.TempDir(), "images"), filepath.Join(t.TempDir(), "packages")
	if _, err := Import(t.Context(), b, []string{"storage,monitoring"}, target, ImportOptions{ImagesTo: images, PackagesTo: packages}); err != nil {
		t.Fatal(err)
	}
	if got := slices.Sorted(maps.Keys(treeOf(t, images))); !slices.Equal(got, []string{"windows_quay.io_windows_exporter_0.1.tar"}) {
		t.Errorf("images = %q", got)
	}
	if got := treeOf(t, packages); len(got) != 2 || got["debianpackages/samba/samba_2_amd64.deb"] == "" {
		t.Errorf("packages = %d files", len(got))
	}
	if _, err := os.Stat(filepath.Join(target, "addons", importedFolder)); err == nil {
		t.Errorf("something was placed in the target, too")
	}
}

// TestDownloads puts programs for Windows where addons want them, out of zips too, and keeps
// what the site changed.
func TestDownloads(t *testing.T) {
	p, dir := sample(), t.TempDir()
	p.addon("viewer", map[string]offline{"viewer": {windowsCurl: []string{`https://example.org/d/cmctl.exe bin\cmctl.exe`, `https://example.org/flux_1.0.zip bin\flux\Flux.exe`, `https://example.org/whole.zip data\whole.zip`}}})
	folder := filepath.Join(dir, "packages", windowsFolder)
	writeFile(t, filepath.Join(dir, "images", "none.txt"), nil)
	writeFile(t, filepath.Join(folder, "cmctl.exe"), []byte("MZ"))
	writeFile(t, filepath.Join(folder, "flux_1.0.zip"), zipOf(t, map[string]string{"README": "x", "tools/flux.exe": "MZ flux"}))
	writeFile(t, filepath.Join(folder, "whole.zip"), zipOf(t, map[string]string{"a": "b"}))
	for _, format := range formats {
		opts := options(dir, format, "viewer")
		b := opened(t, made(t, p, opts))
		target := t.TempDir()
		writeFile(t, filepath.Join(target, "bin", "cmctl.exe"), []byte("of nobody knows whom"))
		report, err := Import(t.Context(), b, nil, target, ImportOptions{})
		if err != nil {
			t.Fatal(err)
		}
		got := treeOf(t, target)
		if got["bin/cmctl.exe"] != "MZ" || got["bin/flux/Flux.exe"] != "MZ flux" || !strings.HasPrefix(got["data/whole.zip"], "PK") {
			t.Errorf("%s: placed are %q", format, slices.Sorted(maps.Keys(got)))
		}
		if !slices.Equal(report.Replaced, []string{"bin/cmctl.exe"}) || !slices.Contains(report.Added, "bin/flux/Flux.exe") {
			t.Errorf("%s: replaced %q, added %q", format, report.Replaced, report.Added)
		}
		// What the site changed since stays, unless it is forced.
		writeFile(t, filepath.Join(target, "bin", "cmctl.exe"), []byte("mine"))
		for _, force := range []bool{false, true} {
			if report, err = Import(t.Context(), b, nil, target, ImportOptions{Force: force}); err != nil {
				t.Fatal(err)
			}
			got, _ := os.ReadFile(filepath.Join(target, "bin", "cmctl.exe"))
			if want := map[bool]string{false: "mine", true: "MZ"}[force]; string(got) != want || (len(report.Kept) == 1) == force {
				t.Errorf("%s, force %v: bin/cmctl.exe = %q, kept %v; want %q", format, force, got, report.Kept, want)
			}
		}
		if _, err := Import(t.Context(), b, nil, t.TempDir(), ImportOptions{OmitPackages: true}); err != nil {
			t.Fatal(err)
		}
	}
	for _, destination := range []string{`..\up.exe`, `C:\Windows\x.exe`, `/etc/x`} {
		p.addon("viewer", map[string]offline{"viewer": {windowsCurl: []string{`https://example.org/d/cmctl.exe ` + destination}}})
		target := filepath.Join(t.TempDir(), "site")
		_, err := Import(t.Context(), opened(t, made(t, p, options(dir, FormatZip, "viewer"))), nil, target, ImportOptions{})
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("destination %q: %v, want %v", destination, err, ErrInvalid)
		}
		if _, err := os.Stat(target); err == nil {
			t.Errorf("destination %q: something was placed", destination)
		}
	}
}

func TestOverlay(t *testing.T) {
	p := sample()
	newer := p.clone()
	newer.files["addons/viewer/Enable.ps1"] = "new\n"
	delete(newer.files, "addons/viewer/README.md")
	b := opened(t, made(t, newer, Options{Addons: []string{"viewer"}}))
	o, report, err := Overlay(t.Context(), p.manifest(t), p, b, nil, ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	got := map[string]string{}
	err = o.Walk(t.Context(), func(n tree.Node, open func() (io.ReadCloser, error)) error {
		r, err := open()
		if err != nil {
			return err
		}
		defer r.Close()
		data, err := io.ReadAll(r)
		got[n.Path] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	compare(t, "overlay", got, newer.files)
	if !slices.Equal(report.Removed, []string{"addons/viewer/README.md"}) || !slices.Equal(report.Changed, []string{"addons/viewer/Enable.ps1"}) {
		t.Errorf("report = %+v", report)
	}
}

// k2sBundle is a bundle as K2s 1.8 writes it: names with "./", byte order marks,
// lists of one element that are none, settings without their folder.
func k2sBundle(t *testing.T, flattened bool) []byte {
	t.Helper()
	p := sample()
	l := newLayout()
	layer := func(media, title string, packed bool, files ...tarFile) string {
		data := tarOf(t, append([]tarFile{{name: "./"}}, files...)...)
		if packed {
			data = gzipped(t, data)
		}
		d := l.blob(string(data))
		return fmt.Sprintf(`{"annotations":{%q:%q},"digest":%q,"size":%d,"mediaType":%q}`, noteTitle, title, d.Digest, d.Size, media)
	}
	layers := []string{
		layer(mediaConfigFiles, "config.tar.gz", true, tarFile{name: "./addon.manifest.yaml", text: p.files["addons/ingress/addon.manifest.yaml"]}, tarFile{name: "./settings-copy.json", text: "{}"}),
		layer(mediaManifests, "manifests.tar.gz", true, tarFile{name: "./deployment.yaml", text: "kind: Deployment\r\n"}, tarFile{name: "./gitops-sync/"}, tarFile{name: "./gitops-sync/sync-job.yaml", text: "job"}),
		layer(mediaScripts, "scripts.tar.gz", true, tarFile{name: "./Enable.ps1", text: "enable"}, tarFile{name: "./nginx/settings-copy.json", text: "{}"}),
		layer(mediaImages, "images-linux.tar", false, tarFile{name: "./quay.io_a_b_v1.tar", text: string(imageTar(t, "quay.io/a/b:v1", linux))}),
	}
	config := l.blob(utf8BOM + `{"name":"ingress","version":"1.0.0","implementation":"nginx","description":"d","k2sVersion":"1.8.0","exportDate":"2026-01-01T00:00:00Z"}`)
	m := l.blob(utf8BOM + fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"artifactType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[%s],"annotations":{"vnd.k2s.addon.name":"ingress","vnd.k2s.addon.implementation":"nginx","org.opencontainers.image.version":"1.0.0"}}`,
		mediaManifest, mediaAddon, mediaConfig, config.Digest, config.Size, strings.Join(layers, ",\r\n")))
	name := "ingress"
	if flattened { // K2s 1.7
		name = "ingress-nginx"
	}
	entry := fmt.Sprintf(`{"mediaType":%q,"artifactType":%q,"digest":%q,"size":%d,"annotations":{"org.opencontainers.image.ref.name":"v1.0.0","vnd.k2s.addon.name":%q}}`, mediaManifest, mediaAddon, m.Digest, m.Size, name)
	index := utf8BOM + "{\r\n\"schemaVersion\":2,\"manifests\":" + entry + `,"annotations":{"vnd.k2s.version":"1.8.0","vnd.k2s.addon.count":1}}`
	return l.tar(t, "./", index)
}

func TestReadK2s(t *testing.T) {
	for _, flattened := range []bool{false, true} {
		b := opened(t, k2sBundle(t, flattened))
		if b.Whole || b.Version != "1.8.0" || len(b.Contents) != 1 || b.Contents[0].Title() != "ingress nginx" {
			t.Fatalf("bundle = %+v", b.List())
		}
		if im := b.Contents[0].Images; len(im) != 1 || !slices.Equal(im[0].References, []string{"quay.io/a/b:v1"}) {
			t.Errorf("images = %+v", im)
		}
		target := t.TempDir()
		writeFile(t, filepath.Join(target, "addons/ingress/nginx/Backup.ps1"), []byte("K2s left it out"))
		report, err := Import(t.Context(), b, nil, target, ImportOptions{})
		if err != nil {
			t.Fatal(err)
		}
		got := treeOf(t, target)
		for _, name := range []string{
			"addons/ingress/addon.manifest.yaml", "addons/ingress/nginx/Enable.ps1", "addons/ingress/nginx/manifests/deployment.yaml",
			"addons/ingress/nginx/manifests/gitops-sync/sync-job.yaml", "addons/ingress/nginx/nginx/settings-copy.json", "addons/ingress/nginx/Backup.ps1",
		} {
			if _, ok := got[name]; !ok {
				t.Errorf("%s is missing", name)
			}
		}
		if _, ok := got["addons/ingress/nginx/settings-copy.json"]; ok {
			t.Errorf("the copy without its folder was imported")
		}
		if len(report.Kept) != 1 || len(report.Removed) != 0 {
			t.Errorf("report = %+v", report)
		}
	}
}

func TestReadLegacy(t *testing.T) {
	p := sample()
	image := string(imageTar(t, "quay.io/a/b:v1", linux))
	for _, test := range []struct {
		name, sub string
		files     bool
	}{{"1.4", "", false}, {"1.5", "content/", true}, {"1.6", "", true}} {
		files := map[string]string{
			`addons\addons.json`:                          utf8BOM + `{"addons":{"name":"ingress nginx","dirName":"ingress_nginx","offline_usage":null},"k2sVersion":"` + test.name + `"}`,
			`addons\ingress_nginx\0.tar`:                  image,
			`addons\ingress_nginx\1_win.tar`:              image,
			`addons\ingress_nginx\debianpackages\a\a.deb`: "deb",
		}
		if test.files {
			files[`addons\ingress_nginx\`+test.sub+"Enable.ps1"] = "enable"
			files[`addons\ingress_nginx\`+test.sub+"addon.manifest.yaml"] = p.files["addons/ingress/addon.manifest.yaml"]
		}
		b := opened(t, zipOf(t, files))
		if b.Format != FormatLegacy || b.Whole || len(b.Contents) != 1 {
			t.Fatalf("%s: %+v", test.name, b.List())
		}
		c := b.Contents[0]
		if c.Title() != "ingress nginx" || len(c.Images) != 2 || c.Images[1].System != windows || len(c.Packages) != 1 || (c.yaml != nil) != test.files {
			t.Errorf("%s: %+v", test.name, b.List())
		}
		target := t.TempDir()
		if _, err := Import(t.Context(), b, nil, target, ImportOptions{}); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if _, ok := treeOf(t, target)["addons/ingress/nginx/Enable.ps1"]; ok != test.files {
			t.Errorf("%s: script there: %v", test.name, ok)
		}
	}
}

// TestHostile opens what is damaged or meant to do harm.
func TestHostile(t *testing.T) {
	good := newLayout()
	entry := func(l *layout, layers string) string {
		m := l.blob(`{"schemaVersion":2,"layers":[` + layers + `],"annotations":{"vnd.k2s.addon.name":"a","vnd.k2s.addon.implementation":"a"}}`)
		return fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"artifactType":%q,"digest":%q,"size":%d}]}`, mediaAddon, m.Digest, m.Size)
	}
	withLayer := func(media string, data []byte, wrongBy int64) []byte {
		l := newLayout()
		d := l.blob(string(data))
		return l.tar(t, "", entry(l, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, media, d.Digest, d.Size+wrongBy)))
	}
	script := gzipped(t, tarOf(t, tarFile{name: "./Enable.ps1", text: "x"}))
	flipped := withLayer(mediaScripts, script, 0)
	flipped[bytes.Index(flipped, script)+len(script)/2] ^= 1
	ours := made(t, sample(), Options{Format: FormatZip, Addons: []string{"viewer"}, OmitImages: true, OmitPackages: true})
	huge := newLayout()
	tests := map[string][]byte{
		"empty":               {},
		"text":                []byte(strings.Repeat("no bundle ", 100)),
		"other tar":           tarOf(t, tarFile{name: "a", text: "b"}),
		"other zip":           zipOf(t, map[string]string{"a": "b"}),
		"no addons":           good.tar(t, "", `{"schemaVersion":2,"manifests":[]}`),
		"no index":            tarOf(t, tarFile{name: "oci-layout", text: `{"imageLayoutVersion":"1.0.0"}`}),
		"missing blob":        good.tar(t, "", `{"schemaVersion":2,"manifests":[{"digest":"sha256:`+strings.Repeat("0", 64)+`","size":1}]}`),
		"bad digest":          good.tar(t, "", `{"schemaVersion":2,"manifests":[{"digest":"sha256:../../x","size":1}]}`),
		"flipped bit":         flipped,
		"wrong size":          withLayer(mediaScripts, script, 1),
		"cut off":             flipped[:len(flipped)/2],
		"outer name":          good.tar(t, "", `{}`, tarFile{name: "../x", text: "y"}),
		"outer twice":         good.tar(t, "", `{}`, tarFile{name: "./index.json", text: "{}"}),
		"outer link":          tarOf(t, tarFile{name: "oci-layout", link: "/etc/passwd"}),
		"huge JSON":           huge.tar(t, "", `{"schemaVersion":2,"x":"`+strings.Repeat("y", maxJSON)+`"}`),
		"deep JSON":           huge.tar(t, "", strings.Repeat("[", 100_000)),
		"escaping layer":      withLayer(mediaScripts, gzipped(t, tarOf(t, tarFile{name: "./../../x", text: "y"})), 0),
		"absolute layer":      withLayer(mediaScripts, gzipped(t, tarOf(t, tarFile{name: "/x", text: "y"})), 0),
		"drive layer":         withLayer(mediaScripts, gzipped(t, tarOf(t, tarFile{name: "c:/x", text: "y"})), 0),
		"escaping link":       withLayer(mediaScripts, gzipped(t, tarOf(t, tarFile{name: "a", link: "../../x"})), 0),
		"absolute link":       withLayer(mediaScripts, gzipped(t, tarOf(t, tarFile{name: "a", link: "/x"})), 0),
		"layer is no tar":     withLayer(mediaScripts, gzipped(t, []byte(strings.Repeat("x", 2000))), 0),
		"gzip cut off":        withLayer(mediaScripts, script[:len(script)-10], 0),
		"image in a folder":   withLayer(mediaImages, tarOf(t, tarFile{name: "a/b.tar", text: "y"}), 0),
		"zip name":            zipOf(t, map[string]string{listName: "{}", "../x": "y"}),
		"zip version":         zipOf(t, map[string]string{listName: `{"format":"ferry.bundle/2"}`}),
		"zip list lies":       zipOf(t, map[string]string{listName: `{"format":"ferry.bundle/1","files":[{"path":"a","type":"file","size_bytes":1,"sha256":"00"}]}`, "a": "b"}),
		"zip file elsewhere":  zipOf(t, map[string]string{listName: `{"format":"ferry.bundle/1","files":[{"path":"bin","type":"dir"}],"addons":[{"addon":"a","implementation":"a","files":["bin"]}]}`}),
		"zip escaping addon":  zipOf(t, map[string]string{listName: `{"format":"ferry.bundle/1","addons":[{"addon":"..","implementation":"a"}]}`}),
		"legacy addon":        zipOf(t, map[string]string{legacyList: `{"addons":[{"name":"../x","dirName":"x"}]}`}),
		"legacy without list": zipOf(t, map[string]string{legacyList: `{"addons":[]}`}),
		"our zip cut off":     ours[:len(ours)-30],
	}
	for name, data := range tests {
		b, err := Open(t.Context(), bytes.NewReader(data), int64(len(data)))
		if b != nil || !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: bundle %v, error %v; want ErrInvalid", name, b != nil, err)
		}
	}
	for _, name := range []string{"text", "other tar", "other zip", "no addons"} {
		data := tests[name]
		if _, err := Open(t.Context(), bytes.NewReader(data), int64(len(data))); !errors.Is(err, ErrNotBundle) {
			t.Errorf("%s: error = %v, want ErrNotBundle", name, err)
		}
	}
}

// TestSums checks a zip bundle as somebody without this program does.
func TestSums(t *testing.T) {
	p, dir := sample(), sampleSite(t)
	data := made(t, p, options(dir, FormatZip))
	zr, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	if err := os.CopyFS(out, zr); err != nil {
		t.Fatal(err)
	}
	tool, err := exec.LookPath("sha256sum")
	if err != nil {
		t.Skip("without sha256sum")
	}
	cmd := exec.Command(tool, "--strict", "-c", sumsName)
	cmd.Dir = out
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, text)
	}
	if got, want := strings.Count(string(text), ": OK\n"), len(zr.File)-1; got != want {
		t.Errorf("%d files checked, want %d", got, want)
	}
}

// TestTools has other programs read the OCI layout, those that are here.
func TestTools(t *testing.T) {
	p, dir := sample(), sampleSite(t)
	file := filepath.Join(t.TempDir(), "bundle.oci.tar")
	writeFile(t, file, made(t, p, options(dir, FormatOCI, "ingress", "viewer")))
	out := filepath.Join(t.TempDir(), "layout")
	if err := os.Mkdir(out, 0o777); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		tool string
		args []string
		want string
	}{
		{"tar", []string{"-xf", file, "-C", out}, ""}, // the next ones read it
		{"skopeo", []string{"inspect", "--raw", "oci-archive:" + file + ":ingress-nginx-1.0.0"}, `"vnd.k2s.addon.implementation":"nginx"`},
		{"skopeo", []string{"inspect", "--raw", "oci:" + out + ":viewer-1.0.0"}, mediaConfigFiles},
		{"umoci", []string{"ls", "--layout", out}, "ingress-traefik-1.0.0"},
		{"oras", []string{"manifest", "fetch", "--oci-layout", out + ":ingress-nginx-gw-1.0.0"}, mediaAddon},
	}
	for _, test := range tests {
		path, err := exec.LookPath(test.tool)
		if err != nil {
			t.Logf("without %s: %v", test.tool, err)
			continue
		}
		text, err := exec.Command(path, test.args...).CombinedOutput()
		if err != nil || !strings.Contains(string(text), test.want) {
			t.Errorf("%s %q: %v\n%s\nwant %q", test.tool, test.args, err, text, test.want)
		}
	}
}

// FuzzOpen holds Open to errors that say whose fault it is, and what it opens to
// paths inside of the addons' folders.
func FuzzOpen(f *testing.F) {
	p, dir := sample(), sampleSite(f)
	for _, format := range formats {
		f.Add(made(f, p, options(dir, format, "viewer", "storage")))
	}
	f.Add(zipOf(f, map[string]string{legacyList: `{"addons":{"name":"a b","dirName":"a_b"}}`, "addons/a_b/content/x": "y"}))
	f.Add(newLayout().tar(f, "./", `{"schemaVersion":2,"manifests":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := Open(t.Context(), bytes.NewReader(data), int64(len(data)))
		if err != nil {
			if b != nil || !errors.Is(err, ErrInvalid) {
				t.Fatalf("bundle %v with error %v", b != nil, err)
			}
			return
		}
		defer b.Close()
		for _, c := range b.Contents {
			for _, file := range slices.Concat(c.Files, c.Shared) {
				if err := tree.CheckPath(file.Path); err != nil || !strings.HasPrefix(file.Path, c.Addon+"/") {
					t.Errorf("%s: path %q: %v", c.Title(), file.Path, err)
				}
				if file.Type == manifest.TypeFile {
					if _, err := file.entry(t.Context(), file.Path, file.Size, file.ModTime, file.Exec); err != nil {
						t.Errorf("%s: %v", file.Path, err)
					}
				}
			}
		}
	})
}
