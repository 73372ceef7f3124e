package profile

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"ferry/manifest/tree"
)

// maxProfile bounds a profile in bytes.
const maxProfile = 1 << 20

// Load reads a profile. Unknown keys and malformed values are an [*InvalidError]
// that lists all of them with their lines.
func Load(r io.Reader) (*Profile, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxProfile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxProfile {
		return nil, &InvalidError{[]Problem{{Text: fmt.Sprintf("longer than %d bytes", maxProfile)}}}
	}
	p := &Profile{}
	if err := decode(data, p); err != nil {
		return nil, err
	}
	l := &loader{p: p, lines: map[string]int{}}
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err == nil { // it was decoded before
		l.index(&root, "")
	}
	l.check()
	if len(l.problems) == 0 { // whose words are plainer
		l.validate(&root)
	}
	if len(l.problems) > 0 {
		slices.SortStableFunc(l.problems, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
		return nil, &InvalidError{l.problems}
	}
	return p, nil
}

// decode reads the one YAML document of data, and refuses keys that it does not
// know.
func decode(data []byte, p *Profile) error {
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	err := d.Decode(p)
	if errors.Is(err, io.EOF) {
		return &InvalidError{[]Problem{{Text: "empty"}}}
	}
	if err != nil {
		return &InvalidError{yamlProblems(err)}
	}
	var more yaml.Node
	if err := d.Decode(&more); !errors.Is(err, io.EOF) {
		return &InvalidError{[]Problem{{Line: more.Line, Text: "more than one YAML document"}}}
	}
	return nil
}

// The forms of the YAML package's messages. It has no better ones.
var (
	yamlLine    = regexp.MustCompile(`^(?:yaml: )?line (\d+): (.*)$`)
	yamlUnknown = regexp.MustCompile(`^field (.+) not found in type .*$`)
	yamlType    = regexp.MustCompile(`^(cannot unmarshal .+) into .*$`)
)

// yamlProblems takes an error of the YAML package apart.
func yamlProblems(err error) []Problem {
	texts := []string{err.Error()}
	var several *yaml.TypeError
	if errors.As(err, &several) {
		texts = several.Errors
	}
	var problems []Problem
	for _, text := range texts {
		p := Problem{Text: strings.TrimPrefix(text, "yaml: ")}
		if m := yamlLine.FindStringSubmatch(text); m != nil {
			p.Line, _ = strconv.Atoi(m[1])
			p.Text = m[2]
		}
		if m := yamlUnknown.FindStringSubmatch(p.Text); m != nil {
			p.Key, p.Text = m[1], "unknown key"
		} else if m := yamlType.FindStringSubmatch(p.Text); m != nil {
			p.Text = m[1] + ": a value of another type is wanted"
		}
		problems = append(problems, p)
	}
	return problems
}

// loader checks a decoded profile and compiles its rules.
type loader struct {
	p        *Profile
	lines    map[string]int // of keys such as "offline[0].path"
	problems []Problem
}

// index notes in which line each key stands.
func (l *loader) index(n *yaml.Node, key string) {
	switch n.Kind {
	case yaml.DocumentNode:
		for _, c := range n.Content {
			l.index(c, key)
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			name := strings.TrimPrefix(key+"."+n.Content[i].Value, ".")
			l.lines[name] = n.Content[i].Line
			l.index(n.Content[i+1], name)
		}
	case yaml.SequenceNode:
		for i, c := range n.Content {
			name := fmt.Sprintf("%s[%d]", key, i)
			l.lines[name] = c.Line
			l.index(c, name)
		}
	}
}

// bad notes a problem at a key, or at the nearest one above that has a line.
func (l *loader) bad(key, format string, args ...any) {
	line := 0
	for at := key; at != "" && line == 0; at = at[:max(strings.LastIndexAny(at, ".["), 0)] {
		line = l.lines[at]
	}
	l.problems = append(l.problems, Problem{line, key, fmt.Sprintf(format, args...)})
}

// profileName is what a profile may be called: what can stand in a reference.
var profileName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

func (l *loader) check() {
	p := l.p
	if p.Format != Format {
		l.bad("format", "is %q, want %q", p.Format, Format)
		return // what follows may mean something else
	}
	if !profileName.MatchString(p.Name) {
		l.bad("name", "%q may hold only letters, digits and ._-, and must start with a letter or digit", p.Name)
	}
	if p.VersionFile != "" {
		l.path("version_file", &p.VersionFile)
	}
	p.exclude = l.rules("exclude", p.Exclude)
	p.include = l.rules("include", p.Include)
	p.preserve = l.rules("preserve", p.Preserve)
	l.paths("wholesale", p.Wholesale)
	l.paths("mandatory", p.Mandatory)
	l.variants()
	l.offline()
	l.addons()
}

// path checks a path from the root, and makes it canonical.
func (l *loader) path(key string, path *string) {
	clean := strings.TrimSuffix(strings.ReplaceAll(*path, `\`, "/"), "/")
	if err := tree.CheckPath(clean); err != nil {
		l.bad(key, "%v", err)
		return
	}
	*path = clean
}

func (l *loader) paths(key string, paths []string) {
	for i := range paths {
		l.path(fmt.Sprintf("%s[%d]", key, i), &paths[i])
	}
}

func (l *loader) rules(key string, texts []string) Rules {
	for i, text := range texts {
		if _, err := Compile([]string{text}); err != nil {
			l.bad(fmt.Sprintf("%s[%d]", key, i), "%v", err)
			return Rules{}
		}
	}
	r, _ := Compile(texts)
	if l.p.IgnoreCase {
		r = r.IgnoreCase()
	}
	return r
}

func (l *loader) variants() {
	p := l.p
	p.variants = map[string]variantRules{}
	folded := map[string]string{}
	for _, name := range p.VariantNames() {
		key := "variants." + name
		if !profileName.MatchString(name) {
			l.bad(key, "a variant's name may hold only letters, digits and ._-")
		}
		if other, ok := folded[strings.ToLower(name)]; ok {
			l.bad(key, "differs from %s in case only", other)
		}
		folded[strings.ToLower(name)] = name
		v := p.Variants[name]
		p.variants[name] = variantRules{l.rules(key+".exclude", v.Exclude), l.rules(key+".include", v.Include)}
	}
	if _, ok := p.Variants[p.DefaultVariant]; !ok && (p.DefaultVariant != "" || len(p.Variants) > 0) {
		l.bad("default_variant", "%q is none of the variants: %s", p.DefaultVariant, strings.Join(p.VariantNames(), ", "))
	}
}

func (l *loader) offline() {
	for i := range l.p.Offline {
		key := fmt.Sprintf("offline[%d]", i)
		o := &l.p.Offline[i]
		l.path(key+".path", &o.Path)
		for j, name := range o.NotIn {
			if _, ok := l.p.Variants[name]; !ok {
				l.bad(fmt.Sprintf("%s.not_in[%d]", key, j), "%q is none of the variants: %s", name, strings.Join(l.p.VariantNames(), ", "))
			}
		}
	}
}

func (l *loader) addons() {
	a := &l.p.Addons
	if a.Root == "" && a.Manifest == "" && len(a.Shared) == 0 {
		return
	}
	l.path("addons.root", &a.Root)
	if err := tree.CheckPath(a.Manifest); err != nil || strings.Contains(a.Manifest, "/") {
		l.bad("addons.manifest", "%q is no file name", a.Manifest)
	}
	l.p.shared = l.rules("addons.shared", a.Shared)
}
