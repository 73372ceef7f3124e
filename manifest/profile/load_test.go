package profile

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"reflect"
	"slices"
	"strings"
	"testing"

	"ferry/manifest"
)

func load(t *testing.T, text string) *Profile {
	t.Helper()
	p, err := Load(strings.NewReader(text))
	if err != nil {
		t.Fatalf("Load = %v", err)
	}
	return p
}

const head = "format: ferry.profile/1\nname: app\n"

func TestBuiltin(t *testing.T) {
	for _, name := range Names() {
		p, text, ok := Builtin(name)
		if !ok || p.Name != name || !bytes.Contains(text, []byte("format: "+Format)) {
			t.Errorf("Builtin(%q) = %v, %t", name, p, ok)
		}
	}
	if _, _, ok := Builtin("none"); ok {
		t.Errorf("Builtin(none) is there")
	}
	p, _, _ := Builtin("k2s")
	for path, want := range map[string]bool{
		"cfg/config.json": true, "CFG/Config.json": true, "config": true, "LocalHooks/before.ps1": true,
		"k2s.exe": false, "cfg/config.json.license": false, "etc/kubernetes/pki/ca.crt": true,
	} {
		if got := p.Preserves(path); got != want {
			t.Errorf("Preserves(%q) = %t, want %t", path, got, want)
		}
	}
}

func TestLoadErrors(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"", "empty"},
		{"format: ferry.profile/2\nname: app\n", `line 1: format: is "ferry.profile/2"`},
		{"name: app\n", `format: is "", want`},
		{"format: ferry.profile/1\n", "name: "},
		{head + "exclud: []\n", "line 3: exclud: unknown key"},
		{head + "exclude: 7\n", "line 3: cannot unmarshal"},
		{head + "exclude: [a\n", "line "},
		{head + "exclude:\n  - fine\n  - a//b\n", "line 5: exclude[1]: malformed path rule"},
		{head + "version_file: /VERSION\n", "line 3: version_file: "},
		{head + "offline:\n  - optional: true\n", "line 4: offline[0].path: "},
		{head + "offline:\n  - path: a\n    not_in: [Lite]\n", `line 5: offline[0].not_in[0]: "Lite" is none of the variants`},
		{head + "variants:\n  Dev: {}\n", `default_variant: "" is none of the variants: Dev`},
		{head + "variants:\n  Dev: {}\n  dev: {}\ndefault_variant: Dev\n", "differs from Dev in case only"},
		{head + "variants:\n  Dev:\n    exclude: ['[']\ndefault_variant: Dev\n", "line 5: variants.Dev.exclude[0]: "},
		{head + "addons:\n  root: addons\n", "addons.manifest: "},
		{head + "addons:\n  manifest: a/b\n  root: addons\n", `line 4: addons.manifest: "a/b" is no file name`},
		{head + "mandatory:\n  - ../a\n", "line 4: mandatory[0]: "},
		{head + "---\nname: b\n", "more than one YAML document"},
		{head + "exclude: ['/']\ninclude: ['/']\n", "; line 4: include[0]"}, // all of them
	} {
		p, err := Load(strings.NewReader(test.text))
		if !errors.Is(err, manifest.ErrInvalid) || !strings.Contains(err.Error(), test.want) || p != nil {
			t.Errorf("Load(%q) = %v, %v, want %q", test.text, p, err, test.want)
		}
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("Load(%q): more than one line: %q", test.text, err)
		}
	}
}

// TestSchemaKnowsAllKeys compares the schema with what the loader takes.
func TestSchemaKnowsAllKeys(t *testing.T) {
	type node struct {
		Properties           map[string]node `json:"properties"`
		AdditionalProperties json.RawMessage `json:"additionalProperties"`
		Items                *node           `json:"items"`
	}
	var root node
	if err := json.Unmarshal(Schema(), &root); err != nil {
		t.Fatal(err)
	}
	var variant node
	if err := json.Unmarshal(root.Properties["variants"].AdditionalProperties, &variant); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		of   any
		node node
	}{
		{Profile{}, root},
		{Offline{}, *root.Properties["offline"].Items},
		{Addons{}, root.Properties["addons"]},
		{Variant{}, variant},
	} {
		var want, got []string
		for i := range reflect.TypeOf(test.of).NumField() {
			if key := reflect.TypeOf(test.of).Field(i).Tag.Get("yaml"); key != "" {
				want = append(want, key)
			}
		}
		for key := range test.node.Properties {
			got = append(got, key)
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("the schema of %T has %q, the loader %q", test.of, got, want)
		}
	}
}

func TestVersion(t *testing.T) {
	p := load(t, head+"version_file: VERSION\n")
	for _, test := range []struct{ content, want string }{
		{"2.0.0", "2.0.0"}, {"2.0.0\r\n", "2.0.0"}, {"\uFEFF1.8.1-rc.1\n", "1.8.1-rc.1"}, {"", ""}, {"not a version", ""}, {"1\n2\n", ""},
	} {
		got, err := p.Version(func(path string) ([]byte, error) { return []byte(test.content), nil })
		if got != test.want || (err == nil) != (test.want != "") || err != nil && !errors.Is(err, manifest.ErrInvalid) {
			t.Errorf("Version of %q = %q, %v, want %q", test.content, got, err, test.want)
		}
	}
	if _, err := p.Version(func(string) ([]byte, error) { return nil, fs.ErrNotExist }); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Version with no file = %v", err)
	}
	if _, err := load(t, head).Version(nil); !errors.Is(err, ErrNoVersion) {
		t.Errorf("Version without version_file = %v, want ErrNoVersion", err)
	}
}
