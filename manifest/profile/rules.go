package profile

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// Rules are path rules, as the package comment has them. The zero Rules match
// nothing. They are safe for concurrent use.
type Rules struct {
	rules []rule
	fold  bool
}

// rule is one of them, taken apart.
type rule struct {
	text    string   // as it was written
	parts   []string // components; anyDepth for "**"
	folders bool     // matches folders only
}

const anyDepth = "**"

// ErrRule says that a path rule is malformed.
var ErrRule = errors.New("malformed path rule")

// Compile takes rules apart. The error matches [ErrRule] and names the rule.
func Compile(rules []string) (Rules, error) {
	var r Rules
	for _, text := range rules {
		one, err := parseRule(text)
		if err != nil {
			return Rules{}, fmt.Errorf("%w %q: %w", ErrRule, text, err)
		}
		r.rules = append(r.rules, one)
	}
	return r, nil
}

func parseRule(text string) (rule, error) {
	p := strings.ReplaceAll(text, `\`, "/")
	r := rule{text: text}
	p, r.folders = strings.CutSuffix(p, "/")
	if p == "" {
		return rule{}, errors.New("empty")
	}
	for part := range strings.SplitSeq(p, "/") {
		if err := checkComponent(part); err != nil {
			return rule{}, err
		}
		if part == anyDepth && len(r.parts) > 0 && r.parts[len(r.parts)-1] == anyDepth {
			continue
		}
		r.parts = append(r.parts, part)
	}
	if last := len(r.parts) - 1; r.parts[last] == anyDepth {
		r.parts[last] = "*" // what is below is matched anyway
	}
	return r, nil
}

func checkComponent(part string) error {
	switch {
	case part == "":
		return errors.New("has an empty component; rules start at the package's root, with no slash")
	case part == "." || part == "..":
		return fmt.Errorf("has a component %s", part)
	case part != anyDepth && strings.Contains(part, anyDepth):
		return errors.New("** stands alone between slashes")
	}
	_, err := path.Match(part, "")
	return err
}

// IgnoreCase returns the rules with upper and lower case taken for the same.
func (r Rules) IgnoreCase() Rules {
	folded := make([]rule, len(r.rules))
	for i, one := range r.rules {
		folded[i] = rule{one.text, slices.Clone(one.parts), one.folders}
		for j, part := range one.parts {
			folded[i].parts[j] = strings.ToLower(part)
		}
	}
	return Rules{folded, true}
}

// Match reports whether a rule matches a path, or a folder above it. A path that
// ends in a slash is a folder.
func (r Rules) Match(path string) bool {
	_, ok := r.Matching(path)
	return ok
}

// Matching is like Match, and returns the first rule that matches, as it was
// written.
func (r Rules) Matching(path string) (rule string, ok bool) {
	if len(r.rules) == 0 {
		return "", false
	}
	path, folder := strings.CutSuffix(path, "/")
	if r.fold {
		path = strings.ToLower(path)
	}
	components := strings.Split(path, "/")
	for _, one := range r.rules {
		if one.matches(components, folder) {
			return one.text, true
		}
	}
	return "", false
}

// matches reports whether the rule's parts match the first components of a path.
// It goes from left to right, and comes back to the last "**" alone, which takes
// one more component each time: the earliest match is as good as any, for it
// leaves the most components below.
func (r rule) matches(components []string, folder bool) bool {
	i, j := 0, 0 // in parts, in components
	star, from := -1, 0
	for i < len(r.parts) {
		switch {
		case r.parts[i] == anyDepth:
			star, from = i, j
			i++
		case j < len(components) && matchComponent(r.parts[i], components[j]):
			i++
			j++
		case star >= 0 && from < len(components):
			from++
			i, j = star+1, from
		default:
			return false
		}
	}
	return !r.folders || folder || j < len(components)
}

func matchComponent(pattern, name string) bool {
	ok, _ := path.Match(pattern, name) // was checked when it was parsed
	return ok
}
