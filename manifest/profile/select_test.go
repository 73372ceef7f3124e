package profile

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"ferry/cas"
	"ferry/manifest"
	"ferry/manifest/addon"
)

// files returns a manifest of files that hold their own path.
func files(t *testing.T, paths ...string) *manifest.Manifest {
	t.Helper()
	var entries []manifest.Entry
	for _, path := range paths {
		entries = append(entries, manifest.Entry{Path: path, Type: manifest.TypeFile, Size: int64(len(path)), Digest: cas.Sum([]byte(path))})
	}
	m, err := manifest.New(entries)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func pathsOf(m *manifest.Manifest) string {
	var paths []string
	for _, e := range m.Entries {
		paths = append(paths, e.Path)
	}
	return strings.Join(paths, " ")
}

const app = head + `
ignore_case: true
exclude: [.git, tools/]
include: [tools/keep.exe]
offline:
  - path: bin/base.vhdx
  - path: bin/artifacts.zip
  - path: bin/rootfs.tar.gz
    optional: true
    not_in: [Lite]
variants:
  Dev: {}
  Lite: {exclude: [build/], include: [build/needed.ps1, tools/lite.exe]}
default_variant: Dev
mandatory: [app.exe]
`

func TestSelect(t *testing.T) {
	p := load(t, app)
	m := files(t, ".git/HEAD", ".github/ci.yml", "app.exe", "bin/artifacts.zip", "bin/base.vhdx", "bin/rootfs.tar.gz",
		"build/a.ps1", "build/needed.ps1", "build.sh", "tools/keep.exe", "tools/lite.exe", "tools/no.exe")
	for _, test := range []struct {
		name string
		opts SelectOptions
		want string
	}{
		{"default", SelectOptions{}, ".github/ci.yml app.exe build.sh build/a.ps1 build/needed.ps1 tools/keep.exe"},
		{"offline", SelectOptions{Offline: true},
			".github/ci.yml app.exe bin/artifacts.zip bin/base.vhdx bin/rootfs.tar.gz build.sh build/a.ps1 build/needed.ps1 tools/keep.exe"},
		{"Lite", SelectOptions{Variant: "lite"}, ".github/ci.yml app.exe build.sh build/needed.ps1 tools/keep.exe tools/lite.exe"},
		{"Lite offline", SelectOptions{Variant: "Lite", Offline: true},
			".github/ci.yml app.exe bin/artifacts.zip bin/base.vhdx build.sh build/needed.ps1 tools/keep.exe tools/lite.exe"},
	} {
		s, err := p.Select(m, test.opts)
		if err != nil {
			t.Errorf("%s: Select = %v", test.name, err)
			continue
		}
		if got := pathsOf(s.Manifest); got != test.want {
			t.Errorf("%s: Select keeps\n%s, want\n%s", test.name, got, test.want)
		}
		if got, want := len(s.Manifest.Entries)+len(s.Excluded), len(m.Entries); got != want {
			t.Errorf("%s: %d entries kept and excluded, want %d", test.name, got, want)
		}
	}
}

func TestSelectRules(t *testing.T) {
	p := load(t, app)
	s, err := p.Select(files(t, ".git/HEAD", "app.exe", "Bin/Base.vhdx", "build/a", "bin/rootfs.tar.gz"), SelectOptions{Variant: "Lite"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, x := range s.Excluded {
		got = append(got, x.Path+" by "+x.Rule)
	}
	want := []string{
		".git/HEAD by exclude: .git", "Bin/Base.vhdx by offline: bin/base.vhdx",
		"bin/rootfs.tar.gz by offline: bin/rootfs.tar.gz", "build/a by variant Lite: build/",
	}
	if !slices.Equal(got, want) {
		t.Errorf("excluded %q, want %q", got, want)
	}
}

func TestSelectMissing(t *testing.T) {
	p := load(t, app)
	_, err := p.Select(files(t, "README.md"), SelectOptions{Offline: true})
	var missing *MissingError
	if !errors.As(err, &missing) || !errors.Is(err, cas.ErrNotFound) {
		t.Fatalf("Select = %v, want a MissingError", err)
	}
	if want := []string{"bin/base.vhdx", "bin/artifacts.zip"}; !slices.Equal(missing.Offline, want) {
		t.Errorf("missing offline %q, want %q", missing.Offline, want)
	}
	if want := []string{"app.exe"}; !slices.Equal(missing.Mandatory, want) {
		t.Errorf("missing mandatory %q, want %q", missing.Mandatory, want)
	}
	s, err := p.Select(files(t, "README.md"), SelectOptions{AllowMissing: true})
	if err != nil || !slices.Equal(s.Missing, []string{"app.exe"}) {
		t.Errorf("Select = %v, %v, want app.exe missing", s, err)
	}
	p = load(t, head+"exclude: ['*.exe']\nmandatory: [app.exe]\n")
	if _, err := p.Select(files(t, "app.exe"), SelectOptions{}); err == nil || !strings.Contains(err.Error(), "app.exe (left out by exclude: *.exe)") {
		t.Errorf("Select = %v, want the rule that leaves it out", err)
	}
	var unknown *VariantError
	if _, err := p.Select(files(t), SelectOptions{Variant: "Mini"}); !errors.As(err, &unknown) {
		t.Errorf("Select = %v, want a VariantError", err)
	}
	if _, err := load(t, app).Variant("Mini"); err == nil || !strings.Contains(err.Error(), "it has Dev, Lite") {
		t.Errorf("Variant(Mini) = %v, want the known ones", err)
	}
}

func TestSelectAddons(t *testing.T) {
	p := load(t, head+"addons: {root: addons, manifest: addon.manifest.yaml, shared: [addons/common]}\n")
	texts := map[string]string{
		"addons/ingress/addon.manifest.yaml":   "metadata: {name: ingress}\nspec: {implementations: [{name: nginx}, {name: nginx-gw}]}\n",
		"addons/dashboard/addon.manifest.yaml": "metadata: {name: dashboard}\nspec: {implementations: [{name: dashboard}]}\n",
	}
	m := files(t, "VERSION", "addons/README.md", "addons/common/a.yaml", "addons/other/b", "addons/dashboard/Enable.ps1",
		"addons/dashboard/addon.manifest.yaml", "addons/ingress/README.md", "addons/ingress/addon.manifest.yaml",
		"addons/ingress/nginx/Enable.ps1", "addons/ingress/nginx-gw/Enable.ps1")
	all, err := addon.Find(context.Background(), m, "addons", "addon.manifest.yaml", func(_ context.Context, e manifest.Entry) ([]byte, error) {
		return []byte(texts[e.Path]), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ arg, want string }{
		{"none", "VERSION addons/README.md addons/common/a.yaml"},
		{"ingress nginx", "VERSION addons/README.md addons/common/a.yaml addons/ingress/README.md addons/ingress/addon.manifest.yaml addons/ingress/nginx/Enable.ps1"},
		{"ingress-nginx-gw", "VERSION addons/README.md addons/common/a.yaml addons/ingress/README.md addons/ingress/addon.manifest.yaml addons/ingress/nginx-gw/Enable.ps1"},
		{"dashboard", "VERSION addons/README.md addons/common/a.yaml addons/dashboard/Enable.ps1 addons/dashboard/addon.manifest.yaml"},
		{"all", pathsOf(m)},
	} {
		chosen, err := addon.ParseSelection(all, []string{test.arg})
		if err != nil {
			t.Fatal(err)
		}
		s, err := p.Select(m, SelectOptions{Addons: chosen})
		if err != nil {
			t.Fatal(err)
		}
		if got := pathsOf(s.Manifest); got != test.want {
			t.Errorf("%s: keeps\n%s, want\n%s", test.arg, got, test.want)
		}
	}
}
