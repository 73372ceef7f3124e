package addon

import (
	"errors"
	"strings"
	"testing"

	"ferry/cas"
)

func TestParseSelection(t *testing.T) {
	all := newSample().find(t)
	const everything = "gpu-node, ingress nginx, ingress traefik, ingress nginx-gw, monitoring, storage smb"
	for _, test := range []struct{ args, want string }{ // arguments with "|" between
		{"", everything},
		{" ", everything},
		{"all", everything},
		{"none", ""},
		{"NONE", ""},
		{"ingress", "ingress nginx, ingress traefik, ingress nginx-gw"},
		{"ingress nginx", "ingress nginx"},
		{"ingress|nginx", "ingress nginx"},
		{"ingress|nginx-gw|monitoring", "ingress nginx-gw, monitoring"},
		{"ingress nginx gw", "ingress nginx-gw"},
		{"ingress-nginx", "ingress nginx"},
		{"Ingress  NGINX,Monitoring", "ingress nginx, monitoring"},
		{"monitoring, ingress traefik", "ingress traefik, monitoring"},
		{"monitoring|ingress-nginx-gw", "ingress nginx-gw, monitoring"},
		{"storage", "storage smb"},
		{"storage|smb", "storage smb"},
		{"gpu-node", "gpu-node"},
		{"ingress|ingress nginx", "ingress nginx, ingress traefik, ingress nginx-gw"},
		{"monitoring monitoring", "monitoring"},
	} {
		var args []string
		if test.args != "" {
			args = strings.Split(test.args, "|")
		}
		s, err := ParseSelection(all, args)
		if err != nil {
			t.Errorf("ParseSelection(%q) = %v", args, err)
			continue
		}
		if got := strings.Join(s.Titles(), ", "); got != test.want {
			t.Errorf("ParseSelection(%q) = %s, want %s", args, got, test.want)
		}
	}
}

func TestParseSelectionErrors(t *testing.T) {
	all := newSample().find(t)
	for _, test := range []struct{ args, want string }{
		{"monitorin", `addon "monitorin": not found; nearest: monitoring`},
		{"ingres nginx", `addon "ingres nginx": not found; nearest: ingress nginx`},
		{"ngnix", `addon "ngnix": not found; nearest: ingress nginx`},
		{"smb", `addon "smb": not found; nearest: storage smb`},
		{"ingress haproxy", `addon "ingress haproxy": not found; nearest: ingress nginx, ingress traefik, ingress nginx-gw`},
		{"ingress|haproxy", `addon "ingress haproxy": not found; nearest: ingress nginx, ingress traefik, ingress nginx-gw`},
		{"ingress,traefik", `addon "traefik": not found; nearest: ingress traefik`}, // a list of two
		{"zzzzzzzz", `addon "zzzzzzzz": not found`},
		{"monitorin,storge", `addon "monitorin": not found; nearest: monitoring; addon "storge": not found; nearest: storage smb`},
	} {
		s, err := ParseSelection(all, strings.Split(test.args, "|"))
		var unknown *UnknownError
		if !errors.As(err, &unknown) || !errors.Is(err, cas.ErrNotFound) || err.Error() != test.want || s != nil {
			t.Errorf("ParseSelection(%q) = %v, %v, want %s", test.args, s, err, test.want)
		}
	}
	for _, args := range []string{",", "none,ingress", "ingress|none", "all,none"} {
		if s, err := ParseSelection(all, strings.Split(args, "|")); !errors.Is(err, ErrSelection) || s != nil {
			t.Errorf("ParseSelection(%q) = %v, %v, want ErrSelection", args, s, err)
		}
	}
}

func TestSelectionDrops(t *testing.T) {
	all := newSample().find(t)
	s, err := ParseSelection(all, []string{"ingress nginx", "monitoring"})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"addons/ingress/nginx/a":          "",
		"addons/ingress/nginx-gw/a":       "ingress nginx-gw",
		"addons/ingress/traefik":          "ingress traefik",
		"addons/ingress/traefik.md":       "",
		"addons/ingress/README.md":        "",
		"addons/monitoring/deploy/g.YAML": "",
		"addons/storage/smb/Enable.ps1":   "storage",
		"addons/gpu-node":                 "gpu-node",
		"addons/gpu-node2/a":              "",
		"addons/README.md":                "",
	} {
		if got, dropped := s.Drops(path); got != want || dropped != (want != "") {
			t.Errorf("Drops(%q) = %q, %t, want %q", path, got, dropped, want)
		}
	}
	if got := s.ExportName(); got != "ingress-nginx-monitoring" {
		t.Errorf("ExportName = %q", got)
	}
	rewritten, err := s.Rewritten()
	if err != nil || len(rewritten) != 1 || len(rewritten["addons/ingress/addon.manifest.yaml"]) == 0 {
		t.Errorf("Rewritten = %q, %v, want that of ingress", rewritten, err)
	}
	var every *Selection
	if _, dropped := every.Drops("addons/ingress/nginx/a"); dropped || !every.Everything() || every.ExportName() != "all" {
		t.Errorf("a nil Selection is not all")
	}
}

func TestEditDistance(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"kitten", "sitting", 3}, {"ca", "abc", 3}} {
		if got := editDistance(test.a, test.b); got != test.want {
			t.Errorf("editDistance(%q, %q) = %d, want %d", test.a, test.b, got, test.want)
		}
		if got := editDistance(test.b, test.a); got != test.want {
			t.Errorf("editDistance(%q, %q) = %d, want %d", test.b, test.a, got, test.want)
		}
	}
}
