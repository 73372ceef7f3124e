package addon

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"ferry/manifest"
)

// without returns text without the lines from one that contains from up to the one
// that contains to; to the end if that is "".
func without(t *testing.T, text, from, to string) string {
	t.Helper()
	var out strings.Builder
	in := false
	for line := range strings.Lines(text) {
		switch {
		case strings.Contains(line, from):
			in = true
		case to != "" && strings.Contains(line, to):
			in = false
		}
		if !in {
			out.WriteString(line)
		}
	}
	if out.Len() == len(text) {
		t.Fatalf("%q is not in the text", from)
	}
	return out.String()
}

func TestFiltered(t *testing.T) {
	for _, form := range []func(string) string{func(s string) string { return s }, crlf, func(s string) string { return "\uFEFF" + s }} {
		text := form(sampleIngress)
		for _, test := range []struct {
			keep []string
			want string
		}{
			{[]string{"nginx", "traefik", "nginx-gw"}, text},
			{[]string{"nginx-gw", "NGINX"}, without(t, text, "- name: traefik", "# the last")},
			{[]string{"nginx-gw"}, without(t, text, "# the first", "# the last")},
			{[]string{"nginx"}, without(t, text, "- name: traefik", "\x00") + "  "},
			{[]string{"traefik"}, without(t, without(t, text, "# the first", "- name: traefik"), "# the last", "\x00") + "  "},
		} {
			got, err := Filtered([]byte(text), test.keep)
			if err != nil || string(got) != test.want {
				t.Errorf("Filtered(%q) = %v\n%q, want\n%q", test.keep, err, got, test.want)
			}
		}
	}
}

func TestFilteredErrors(t *testing.T) {
	if _, err := Filtered([]byte(sampleIngress), nil); !errors.Is(err, ErrNothingLeft) {
		t.Errorf("Filtered to nothing = %v, want ErrNothingLeft", err)
	}
	for _, text := range []string{"", "a: [", "metadata: {name: x}\n", "metadata: {name: x}\nspec: {implementations: {}}\n", sampleIngress} {
		if got, err := Filtered([]byte(text), []string{"other"}); !errors.Is(err, manifest.ErrInvalid) || got != nil {
			t.Errorf("Filtered(%.20q) = %q, %v, want ErrInvalid", text, got, err)
		}
	}
}

func TestFilteredFlow(t *testing.T) {
	got, err := Filtered([]byte("metadata: {name: x}\nspec: {implementations: [{name: a, v: 1}, {name: b}]}\n"), []string{"a"})
	if err != nil {
		t.Fatal(err)
	}
	if a, err := Parse(got); err != nil || !reflect.DeepEqual(a.titles(), []string{"x a"}) {
		t.Errorf("Filtered = %s, %v", got, err)
	}
}

const mergeBase = `# of the site
metadata:
  name: x
  description: the site's
spec:
  implementations:
  - name: a # own comment
    v: 1
  # about b
  - name: b
    v: 1
other: kept
`

func TestMerge(t *testing.T) {
	incoming := `metadata:
  name: x
spec:
  implementations:
      - name: b
        v: 2
        text: |
          one

            two
      - name: a
        v: 1
      - name: c`
	want := `# of the site
metadata:
  name: x
  description: the site's
spec:
  implementations:
  - name: a # own comment
    v: 1
  - name: b
    v: 2
    text: |
      one

        two
  - name: c
other: kept
`
	for _, form := range []func(string) string{func(s string) string { return s }, crlf} {
		got, changes, err := Merge([]byte(form(mergeBase)), []byte(incoming))
		if err != nil || string(got) != form(want) {
			t.Fatalf("Merge = %v\n%q, want\n%q", err, got, form(want))
		}
		if w := []Change{{"b", Replaced}, {"a", Unchanged}, {"c", Added}}; !reflect.DeepEqual(changes, w) {
			t.Errorf("changes = %v, want %v", changes, w)
		}
		again, _, err := Merge(got, []byte(incoming))
		if err != nil || string(again) != string(got) {
			t.Errorf("Merge again = %v\n%q, want no change", err, again)
		}
	}
}

func TestMergeIntoNothing(t *testing.T) {
	got, changes, err := Merge(nil, []byte(mergeBase))
	if err != nil || string(got) != mergeBase || len(changes) != 2 || changes[0].Kind != Added {
		t.Errorf("Merge = %q, %v, %v", got, changes, err)
	}
	got, _, err = Merge([]byte("metadata: {name: x}\nspec: {implementations: []}\n"), []byte(mergeBase))
	if err != nil {
		t.Fatal(err)
	}
	if a, err := Parse(got); err != nil || !reflect.DeepEqual(a.titles(), []string{"x a", "x b"}) {
		t.Errorf("Merge = %s, %v", got, err)
	}
}

func TestMergeErrors(t *testing.T) {
	for _, test := range []struct{ existing, incoming, want string }{
		{mergeBase, "a: [", "incoming: "},
		{"a: [", mergeBase, "existing: "},
		{mergeBase, sampleStorage, "addon storage is not addon x"},
	} {
		got, changes, err := Merge([]byte(test.existing), []byte(test.incoming))
		if !errors.Is(err, manifest.ErrInvalid) || !strings.Contains(err.Error(), test.want) || got != nil || changes != nil {
			t.Errorf("Merge = %q, %v, %v, want %q", got, changes, err, test.want)
		}
	}
}

// FuzzFiltered holds that what is filtered holds what was kept, or is an error.
func FuzzFiltered(f *testing.F) {
	for _, text := range []string{sampleIngress, crlf(sampleIngress), sampleMonitoring, sampleStorage, mergeBase} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := Parse(data)
		if err != nil || len(a.Implementations) == 0 {
			return
		}
		keep := a.Implementations[len(a.Implementations)-1].Name
		got, err := Filtered(data, []string{keep})
		if err != nil {
			return
		}
		if b, err := Parse(got); err != nil || b.Name != a.Name || len(b.Implementations) != 1 || b.Implementations[0].Name != keep {
			t.Fatalf("Filtered(%q) = %q, %v", data, got, err)
		}
	})
}
