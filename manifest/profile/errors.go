package profile

import (
	"fmt"
	"strings"

	"ferry/cas"
	"ferry/manifest"
)

// Problem is a mistake in a profile.
type Problem struct {
	Line int    `json:"line,omitempty"` // from 1; 0 when it is about the whole
	Key  string `json:"key,omitempty"`  // such as "offline[0].path"
	Text string `json:"text"`
}

func (p Problem) String() string {
	s := p.Text
	if p.Key != "" {
		s = p.Key + ": " + s
	}
	if p.Line > 0 {
		s = fmt.Sprintf("line %d: %s", p.Line, s)
	}
	return s
}

// InvalidError lists what is wrong with a profile. It matches
// manifest.ErrInvalid.
type InvalidError struct{ Problems []Problem }

func (e *InvalidError) Error() string {
	texts := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		texts[i] = p.String()
	}
	return strings.Join(texts, "; ")
}

func (e *InvalidError) Unwrap() error { return manifest.ErrInvalid }

// VariantError says that a profile has no variant of that name.
type VariantError struct {
	Profile string
	Name    string
	Known   []string
}

func (e *VariantError) Error() string {
	if len(e.Known) == 0 {
		return fmt.Sprintf("profile %s has no variants, so no %q", e.Profile, e.Name)
	}
	return fmt.Sprintf("profile %s has no variant %q; it has %s", e.Profile, e.Name, strings.Join(e.Known, ", "))
}

// MissingError lists all that a package must have and its source has not. It
// matches cas.ErrNotFound.
type MissingError struct {
	Offline   []string // offline artefacts
	Mandatory []string // mandatory paths, with the rule that leaves them out if one does
}

func (e *MissingError) Error() string {
	var parts []string
	if len(e.Offline) > 0 {
		parts = append(parts, "missing for an offline installation: "+strings.Join(e.Offline, ", "))
	}
	if len(e.Mandatory) > 0 {
		parts = append(parts, "missing though mandatory: "+strings.Join(e.Mandatory, ", "))
	}
	return strings.Join(parts, "; ")
}

func (e *MissingError) Unwrap() error { return cas.ErrNotFound }
