package addon

import (
	"context"
	"strings"
	"testing"

	"ferry/cas"
	"ferry/manifest"
)

// sample is a small tree of addons in the shape of a real one, by path.
type sample map[string]string

const sampleIngress = `# SPDX: © somebody
apiVersion: v1
kind: AddonManifest
metadata:
  name: ingress
  description: "Ways in: HTTP"
spec:
  # the ways in
  implementations:
    # the first
    - name: nginx
      description: one
      commands: {enable: {script: {subPath: nginx/Enable.ps1}}}
      offline_usage:
        linux:
          repos: []
          deb: []
          curl: ` + `
          additionalImages:
            - quay.io/own/controller
          additionalImagesFiles:
            - ../../common/manifests/dns.yaml
        windows:
          curl:
          - url: https://example.com/cmctl.exe
            destination: bin\cmctl.exe

    - name: traefik
      description: two
      unknown_key: [1, "1", false]
    # the last
    - name: nginx-gw
      description: |
        three
        # not a comment
  ` // a blank without a newline at the end

const sampleMonitoring = `kind: AddonManifest
metadata:
  name: monitoring
spec:
  implementations:
  - name: monitoring
    offline_usage:
      linux:
        deb: [apache2-utils]
      windows:
        additionalImages:
        - example.azurecr.io/own/exporter:v2
`

const sampleStorage = "\uFEFF" + `kind: AddonManifest
metadata:
  name: storage
spec:
  implementations:
    - name: smb`

func newSample() sample {
	return sample{
		"addons/README.md":                         "",
		"addons/common/manifests/dns.yaml":         "args:\n- --image=registry.k8s.io/dns/dns:v0.1\nimage: registry.k8s.io/dns/main:v0.1\n",
		"addons/gpu-node/addon.manifest.yaml":      "metadata: {name: gpu-node}\nspec: {implementations: [{name: gpu-node}]}\n",
		"addons/ingress/addon.manifest.yaml":       sampleIngress,
		"addons/ingress/nginx-gw/manifests/a.yaml": "image: quay.io/own/gateway:1\n",
		"addons/ingress/nginx/manifests/a.yaml": "kind: Deployment\nspec:\n  containers:\n  - image: \"quay.io/own/controller:v1\" # why\n" +
			"---\ncontainers:\n- name: w\n  image: quay.io/own/win:1 #windows_image\n  fooImage: not/this:1\n",
		"addons/ingress/nginx/manifests/b.yaml":    "image: {{ .Values.image }}\nx: {{ y }}\n  - image: 'host:5000/own/tool:2' # why\n  # image: no/comment:1\n",
		"addons/ingress/nginx/manifests/sync.yaml": "## exclude-from-export\nimage: not/that:1\n",
		"addons/monitoring/addon.manifest.yaml":    sampleMonitoring,
		"addons/monitoring/deploy/g.YAML":          "image: grafana/grafana:13.2.0\n",
		"addons/storage/addon.manifest.yaml":       sampleStorage,
		"addons/storage/smb/Enable.ps1":            "",
		"deep/addons/x/addon.manifest.yaml":        "neither read nor valid: [",
		"addons/a/b/addon.manifest.yaml":           "neither read nor valid: [",
	}
}

func (s sample) manifest(t *testing.T) *manifest.Manifest {
	t.Helper()
	var entries []manifest.Entry
	for path, text := range s {
		entries = append(entries, manifest.Entry{Path: path, Type: manifest.TypeFile, Size: int64(len(text)), Digest: cas.Sum([]byte(text))})
	}
	m, err := manifest.New(entries)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (s sample) read(_ context.Context, e manifest.Entry) ([]byte, error) {
	return []byte(s[e.Path]), nil
}

func (s sample) find(t *testing.T) []Addon {
	t.Helper()
	all, err := Find(t.Context(), s.manifest(t), "addons", "addon.manifest.yaml", s.read)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// crlf writes a text with the line ends of Windows.
func crlf(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }
