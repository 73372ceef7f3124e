package addon

import (
	"errors"
	"strings"
	"testing"

	"ferry/manifest"
)

func TestFind(t *testing.T) {
	var got []string
	for _, a := range newSample().find(t) {
		for _, im := range a.Implementations {
			got = append(got, strings.Join([]string{a.Name, im.Name, im.Folder, im.Export, im.Title}, "|"))
		}
	}
	want := []string{
		"gpu-node|gpu-node|addons/gpu-node|gpu-node|gpu-node",
		"ingress|nginx|addons/ingress/nginx|ingress-nginx|ingress nginx",
		"ingress|traefik|addons/ingress/traefik|ingress-traefik|ingress traefik",
		"ingress|nginx-gw|addons/ingress/nginx-gw|ingress-nginx-gw|ingress nginx-gw",
		"monitoring|monitoring|addons/monitoring|monitoring|monitoring",
		"storage|smb|addons/storage/smb|storage-smb|storage smb",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("Find =\n%s, want\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestFindNeeds(t *testing.T) {
	all := newSample().find(t)
	n := all[1].Implementations[0].Needs
	if len(n.Windows.Curl) != 1 || n.Windows.Curl[0] != (Download{"https://example.com/cmctl.exe", `bin\cmctl.exe`}) {
		t.Errorf("downloads = %v", n.Windows.Curl)
	}
	if debs := all[2].Implementations[0].Needs.Debs; len(debs) != 1 || debs[0] != "apache2-utils" {
		t.Errorf("debs = %q", debs)
	}
}

func TestFindErrors(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"no YAML", "a: [", "addons/x/addon.manifest.yaml: malformed data"},
		{"other kind", "kind: Pod\nmetadata: {name: x}\n", `kind "Pod"`},
		{"no name", "spec: {}\n", "metadata.name: empty"},
		{"name with a slash", "metadata: {name: a/b}\n", "slash"},
		{"name that climbs", "metadata: {name: ..}\n", "component .."},
		{"implementation without a name", "metadata: {name: x}\nspec: {implementations: [{description: d}]}\n", "spec.implementations[0].name: empty"},
		{"twice", "metadata: {name: x}\nspec: {implementations: [{name: a}, {name: A}]}\n", "A stands twice"},
		{"too large", strings.Repeat("# \n", maxManifest/3+1), "at most"},
		{"two of a name", "metadata: {name: Ingress}\n", "is described by addons/ingress/addon.manifest.yaml, too"},
	} {
		s := newSample()
		s["addons/x/addon.manifest.yaml"] = test.text
		_, err := Find(t.Context(), s.manifest(t), "addons", "addon.manifest.yaml", s.read)
		if !errors.Is(err, manifest.ErrInvalid) || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: Find = %v, want %q", test.name, err, test.want)
		}
	}
}

func TestFolderOfOtherCase(t *testing.T) {
	s := sample{
		"addons/a/addon.manifest.yaml": "metadata: {name: a}\nspec: {implementations: [{name: B}]}\n",
		"addons/a/b/x":                 "",
	}
	if got := s.find(t)[0].Implementations[0].Folder; got != "addons/a/b" {
		t.Errorf("folder = %q, want that of the tree", got)
	}
}

func TestImages(t *testing.T) {
	s := newSample()
	all := s.find(t)
	for _, test := range []struct {
		title          string
		linux, windows string
	}{
		{"ingress nginx", "host:5000/own/tool:2 quay.io/own/controller:v1 registry.k8s.io/dns/dns:v0.1 registry.k8s.io/dns/main:v0.1", "quay.io/own/win:1"},
		{"ingress nginx-gw", "quay.io/own/gateway:1", ""},
		{"monitoring", "docker.io/grafana/grafana:13.2.0", "example.azurecr.io/own/exporter:v2"},
		{"storage smb", "", ""},
	} {
		for _, a := range all {
			for _, im := range a.Implementations {
				if im.Title != test.title {
					continue
				}
				images, err := im.Images(t.Context(), s.manifest(t), s.read)
				if err != nil || join(images.Linux) != test.linux || join(images.Windows) != test.windows {
					t.Errorf("%s: Images = %s / %s, %v, want %s / %s", test.title, join(images.Linux), join(images.Windows), err, test.linux, test.windows)
				}
			}
		}
	}
}

func join(images []Image) string {
	var refs []string
	for _, im := range images {
		refs = append(refs, im.Reference.String())
	}
	return strings.Join(refs, " ")
}

func TestImagesFound(t *testing.T) {
	s := newSample()
	images, err := s.find(t)[1].Implementations[0].Images(t.Context(), s.manifest(t), s.read)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"addons/ingress/nginx/manifests/b.yaml:3", "addons/ingress/nginx/manifests/a.yaml:4", "addons/common/manifests/dns.yaml:2"} {
		if got := images.Linux[i].Found; len(got) != 1 || got[0] != want {
			t.Errorf("%s found in %q, want %s", images.Linux[i].Reference, got, want)
		}
	}
	delete(s, "addons/common/manifests/dns.yaml")
	if _, err := s.find(t)[1].Implementations[0].Images(t.Context(), s.manifest(t), s.read); err == nil || !strings.Contains(err.Error(), "addons/common/manifests/dns.yaml") {
		t.Errorf("Images with a file missing = %v, want an error that names it", err)
	}
}
