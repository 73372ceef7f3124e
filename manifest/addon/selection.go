package addon

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"ferry/cas"
)

// Selection is some of a product's addons. A nil Selection is all of them.
type Selection struct {
	// All is what there is to choose from.
	All []Addon

	every  bool
	chosen map[string]bool // titles
}

// Words that stand for no addon and for all.
const (
	wordNone = "none"
	wordAll  = "all"
)

// ErrSelection says that a list of addons contradicts itself or is empty.
var ErrSelection = errors.New("no list of addons")

// UnknownError says that there is no addon of that name. It matches
// cas.ErrNotFound.
type UnknownError struct {
	Name string
	// Near are the names that are most like it, the nearest first. When the addon is
	// known and the implementation is not, they are its implementations.
	Near []string
}

func (e *UnknownError) Error() string {
	s := fmt.Sprintf("addon %q: not found", e.Name)
	if len(e.Near) > 0 {
		s += "; nearest: " + strings.Join(e.Near, ", ")
	}
	return s
}

func (e *UnknownError) Unwrap() error { return cas.ErrNotFound }

// unknownErrors are several of them.
type unknownErrors []error

func (e unknownErrors) Error() string {
	texts := make([]string, len(e))
	for i, err := range e {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

func (e unknownErrors) Unwrap() []error { return e }

// ParseSelection chooses addons by name. An argument is a name, or a list of names
// with commas between. A name is an addon, which means all its implementations
// ("ingress"); an addon and an implementation, in one argument or in two that
// follow each other ("ingress nginx"); or the name that both have in file names
// ("ingress-nginx"). "none" alone is no addon; no argument, or "all", is all of
// them. Case does not count.
//
// The error matches [ErrSelection], or is of an [*UnknownError] for each name that
// is not known.
func ParseSelection(all []Addon, args []string) (*Selection, error) {
	names := splitArgs(args)
	s := &Selection{All: all, chosen: map[string]bool{}}
	for _, word := range []string{wordNone, wordAll} {
		if !slices.ContainsFunc(names, func(n name) bool { return strings.EqualFold(n.text, word) }) {
			continue
		}
		if len(names) > 1 {
			return nil, fmt.Errorf("%w: %q stands alone", ErrSelection, word)
		}
		s.every = word == wordAll
		return s, nil
	}
	if len(names) == 0 {
		if slices.ContainsFunc(args, func(arg string) bool { return strings.TrimSpace(arg) != "" }) {
			return nil, fmt.Errorf("%w: %q", ErrSelection, args)
		}
		s.every = true
		return s, nil
	}
	if err := s.addAll(names); err != nil {
		return nil, err
	}
	return s, nil
}

// name is a name in a list.
type name struct {
	text  string // words with single spaces between
	alone bool   // an argument of its own, so that it may go with the next
}

func splitArgs(args []string) []name {
	var names []name
	for _, arg := range args {
		parts := strings.Split(arg, ",")
		for _, part := range parts {
			if text := strings.Join(strings.Fields(part), " "); text != "" {
				names = append(names, name{text, len(parts) == 1})
			}
		}
	}
	return names
}

func (s *Selection) addAll(names []name) error {
	var unknown unknownErrors
	for i := 0; i < len(names); i++ {
		text := names[i].text
		if i+1 < len(names) && names[i].alone && names[i+1].alone && s.continues(text, names[i+1].text) {
			i++
			text += " " + names[i].text
		}
		err := s.add(text)
		if err == nil {
			continue
		}
		if i > 0 && names[i].alone && names[i-1].alone && len(err.Near) == 0 {
			err = s.asImplementation(names[i-1].text, err)
		}
		unknown = append(unknown, err)
	}
	switch len(unknown) {
	case 0:
		return nil
	case 1:
		return unknown[0]
	}
	return unknown
}

// continues reports whether next is an implementation of the addon first, and
// nothing by itself.
func (s *Selection) continues(first, next string) bool {
	a := s.addon(first)
	return a != nil && a.find(next) != nil && len(s.titles(next)) == 0
}

func (s *Selection) addon(name string) *Addon {
	for i := range s.All {
		if strings.EqualFold(s.All[i].Name, name) {
			return &s.All[i]
		}
	}
	return nil
}

// titles returns what a name means, nothing if it is not known.
func (s *Selection) titles(text string) []string {
	if a := s.addon(text); a != nil {
		return a.titles()
	}
	first, rest, two := strings.Cut(text, " ")
	if a := s.addon(first); two && a != nil {
		if im := a.find(strings.ReplaceAll(rest, " ", "-")); im != nil {
			return []string{im.Title}
		}
		return nil
	}
	for _, a := range s.All {
		for _, im := range a.Implementations {
			if strings.EqualFold(im.Export, text) {
				return []string{im.Title}
			}
		}
	}
	return nil
}

func (a *Addon) titles() []string {
	var titles []string
	for _, im := range a.Implementations {
		titles = append(titles, im.Title)
	}
	return titles
}

// asImplementation returns the error for a name that may have been meant as an
// implementation of the addon before it.
func (s *Selection) asImplementation(first string, err *UnknownError) *UnknownError {
	if a := s.addon(first); a != nil {
		return &UnknownError{a.Name + " " + err.Name, a.titles()}
	}
	return err
}

func (s *Selection) add(text string) *UnknownError {
	titles := s.titles(text)
	if len(titles) == 0 && s.addon(text) == nil {
		return &UnknownError{text, s.near(text)}
	}
	for _, title := range titles {
		s.chosen[title] = true
	}
	return nil
}

// Everything reports whether nothing was left out by name.
func (s *Selection) Everything() bool { return s == nil || s.every }

// Has reports whether an implementation was chosen.
func (s *Selection) Has(im Implementation) bool { return s.Everything() || s.chosen[im.Title] }

// Addons returns the chosen addons with their chosen implementations, sorted.
func (s *Selection) Addons() []Addon {
	if s == nil {
		return nil
	}
	var chosen []Addon
	for _, a := range s.All {
		all := a.Implementations
		a.Implementations = nil
		for _, im := range all {
			if s.Has(im) {
				a.Implementations = append(a.Implementations, im)
			}
		}
		if len(a.Implementations) > 0 {
			chosen = append(chosen, a)
		}
	}
	return chosen
}

// Titles returns the names of the chosen implementations, sorted as Addons.
func (s *Selection) Titles() []string {
	titles := []string{}
	for _, a := range s.Addons() {
		titles = append(titles, a.titles()...)
	}
	return titles
}

// ExportName returns what a file that holds the selection is called: "all", or the
// names of all implementations, as "ingress-nginx-monitoring".
func (s *Selection) ExportName() string {
	if s.Everything() {
		return wordAll
	}
	var names []string
	for _, a := range s.Addons() {
		for _, im := range a.Implementations {
			names = append(names, strings.ReplaceAll(strings.ToLower(im.Export), "_", "-"))
		}
	}
	if len(names) == 0 {
		return wordNone
	}
	return strings.Join(names, "-")
}

// Drops reports whether a path belongs to an addon or an implementation that was
// not chosen, and names that. What several implementations share goes with the
// last of them.
func (s *Selection) Drops(path string) (what string, dropped bool) {
	if s.Everything() {
		return "", false
	}
	for i := range s.All {
		if a := &s.All[i]; under(path, a.Folder) {
			return s.dropsOf(a, path)
		}
	}
	return "", false
}

func (s *Selection) dropsOf(a *Addon, path string) (what string, dropped bool) {
	some := false
	for _, im := range a.Implementations {
		if s.Has(im) {
			some = true
		} else if im.Folder != a.Folder && under(path, im.Folder) {
			what, dropped = im.Title, true
		}
	}
	if !some {
		return a.Name, true
	}
	return what, dropped
}

// Rewritten returns new bytes, by path, for the manifests of addons of which only
// some implementations were chosen.
func (s *Selection) Rewritten() (map[string][]byte, error) {
	rewritten := map[string][]byte{}
	if s.Everything() {
		return rewritten, nil
	}
	for _, a := range s.Addons() {
		if len(a.Implementations) == len(s.addon(a.Name).Implementations) {
			continue
		}
		var keep []string
		for _, im := range a.Implementations {
			keep = append(keep, im.Name)
		}
		data, err := Filtered(a.raw, keep)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", a.ManifestPath, err)
		}
		rewritten[a.ManifestPath] = data
	}
	return rewritten, nil
}
