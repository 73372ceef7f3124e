package addon

import (
	"errors"
	"strings"
	"testing"
)

func TestParseReference(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0a", 32)
	for _, test := range []struct{ text, full, familiar string }{
		{"nginx", "docker.io/library/nginx:latest", "nginx"},
		{"nginx:3", "docker.io/library/nginx:3", "nginx:3"},
		{"docker.io/nginx", "docker.io/library/nginx:latest", "nginx"},
		{"index.docker.io/library/nginx:1", "docker.io/library/nginx:1", "nginx:1"},
		{"grafana/grafana:13.2.0", "docker.io/grafana/grafana:13.2.0", "grafana/grafana:13.2.0"},
		{"ghcr.io/a/b/c:4.5.2-4.8.1-ubi9", "ghcr.io/a/b/c:4.5.2-4.8.1-ubi9", "ghcr.io/a/b/c:4.5.2-4.8.1-ubi9"},
		{"host:5000/x", "host:5000/x:latest", "host:5000/x"},
		{"host:5000/x/y:1", "host:5000/x/y:1", "host:5000/x/y:1"},
		{"docker.io/a.b/c:1", "docker.io/a.b/c:1", "docker.io/a.b/c:1"},
		{"localhost/x:1", "localhost/x:1", "localhost/x:1"},
		{"[::1]:5000/x:1", "[::1]:5000/x:1", "[::1]:5000/x:1"},
		{"a.io/x@" + digest, "a.io/x@" + digest, "a.io/x@" + digest},
		{"a.io:1/x:v1@" + digest, "a.io:1/x:v1@" + digest, "a.io:1/x:v1@" + digest},
	} {
		r, err := ParseReference(test.text)
		if err != nil || r.String() != test.full || r.Familiar() != test.familiar {
			t.Errorf("ParseReference(%q) = %s, %s, %v, want %s, %s", test.text, r, r.Familiar(), err, test.full, test.familiar)
		}
		if again, err := ParseReference(r.String()); err != nil || again.String() != r.String() {
			t.Errorf("ParseReference(%q) = %s, %v, want itself", r, again, err)
		}
	}
}

func TestParseReferenceErrors(t *testing.T) {
	for _, text := range []string{
		"", ":", "a:", "a:b:c", "A", "docker.io/A", "a/", "/a", "a//b", "a b", "{{ x }}", "$(IMAGE)", "a@", "a@sha256:12", "a:-x",
		"a@sha256:" + strings.Repeat("0", 63), "a@sha256:" + strings.Repeat("A", 64), "http://a/b", strings.Repeat("a", maxReference+1),
	} {
		if r, err := ParseReference(text); !errors.Is(err, ErrReference) || r != (Reference{}) {
			t.Errorf("ParseReference(%.40q) = %v, %v, want ErrReference", text, r, err)
		}
	}
}

func FuzzParseReference(f *testing.F) {
	f.Add("nginx")
	f.Add("host:5000/x/y:1@sha256:" + strings.Repeat("0a", 32))
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseReference(text)
		if err != nil {
			return
		}
		for _, form := range []string{r.String(), r.Familiar()} {
			again, err := ParseReference(form)
			if err != nil || again.String() != r.String() {
				t.Fatalf("%q gives %q, which gives %v, %v", text, form, again, err)
			}
		}
	})
}
