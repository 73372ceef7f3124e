package profile

import (
	"errors"
	"testing"
)

func TestRules(t *testing.T) {
	for _, test := range []struct {
		rule, path string
		want       bool
	}{
		{"addons/ingress/nginx", "addons/ingress/nginx", true},
		{"addons/ingress/nginx", "addons/ingress/nginx/Enable.ps1", true},
		{"addons/ingress/nginx", "addons/ingress/nginx-gw/Enable.ps1", false},
		{"addons/ingress/nginx", "addons/ingress", false},
		{".git", ".git/HEAD", true},
		{".git", ".github/workflows/ci.yml", false},
		{".git", ".gitattributes", false},
		{".git", "sub/.git/HEAD", false},
		{"**/.git", "sub/.git/HEAD", true},
		{"**/.git", ".git/HEAD", true},
		{"build/", "build/x", true},
		{"build/", "build/", true},
		{"build/", "build", false}, // a file
		{"build/", "build.sh", false},
		{`bin\cni`, "bin/cni/flannel.exe", true},
		{`build\`, "build/x", true},
		{"bin/*.qcow2", "bin/debian.qcow2", true},
		{"bin/*.qcow2", "bin/sub/debian.qcow2", false},
		{"a/?.txt", "a/b.txt", true},
		{"a/[b-c].txt", "a/c.txt", true},
		{"a/[b-c].txt", "a/d.txt", false},
		{"docs/**", "docs/a/b", true},
		{"docs/**", "docs", false},
		{"**", "anything", true},
		{"a/**/z", "a/z", true},
		{"a/**/z", "a/b/c/z/below", true},
		{"a/**/z", "a/b/c", false},
		{"a/**/b/**/c", "a/b/b/x/c", true},
		{"**/b/", "b/b", true}, // the first b is a folder
		{"**/b/", "a/b", false},
		{"Bin", "bin/x", false},
	} {
		r, err := Compile([]string{test.rule})
		if err != nil {
			t.Fatalf("Compile(%q) = %v", test.rule, err)
		}
		if got := r.Match(test.path); got != test.want {
			t.Errorf("rule %q matches %q: %t, want %t", test.rule, test.path, got, test.want)
		}
	}
}

func TestRulesIgnoreCase(t *testing.T) {
	r, err := Compile([]string{"other", `Bin\Kubemaster-Base.VHDX`})
	if err != nil {
		t.Fatal(err)
	}
	if rule, ok := r.IgnoreCase().Matching("bin/kubemaster-base.vhdx"); !ok || rule != `Bin\Kubemaster-Base.VHDX` {
		t.Errorf("Matching = %q, %t, want the rule as it was written", rule, ok)
	}
	if r.Match("bin/kubemaster-base.vhdx") {
		t.Errorf("IgnoreCase changed the rules that it was called on")
	}
}

func TestCompileErrors(t *testing.T) {
	for _, rule := range []string{"", "/", "/a", "a//b", "..", "a/../b", "./a", "a[", "a/b**", "***"} {
		if _, err := Compile([]string{"fine", rule}); !errors.Is(err, ErrRule) {
			t.Errorf("Compile(%q) = %v, want ErrRule", rule, err)
		}
	}
}

func TestNoRules(t *testing.T) {
	var r Rules
	if r.Match("a") || r.Match("") {
		t.Errorf("the zero Rules match")
	}
}
