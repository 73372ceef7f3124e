package bundle

import (
	"errors"
	"fmt"
	"strings"

	"ferry/cas"
)

// ErrInvalid says that a bundle is malformed, damaged, or of an unknown version.
var ErrInvalid = errors.New("malformed bundle")

// ErrNotBundle says that a file is no addon bundle at all. It matches
// [ErrInvalid].
var ErrNotBundle = fmt.Errorf("%w: no addon bundle", ErrInvalid)

func invalidf(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...)
}

// Kind says what an addon needs.
type Kind string

// What addons need.
const (
	KindImage    Kind = "image"
	KindDebian   Kind = "debian"
	KindDownload Kind = "download"
)

// Missing is something that an addon needs and nobody gave.
type Missing struct {
	Addon          string `json:"addon"`
	Implementation string `json:"implementation"`
	Kind           Kind   `json:"kind"`
	System         string `json:"system"` // linux or windows
	Name           string `json:"name"`   // reference, package name or URL
	In             string `json:"in,omitempty"`
}

func (m Missing) String() string {
	what := map[Kind]string{KindImage: "image", KindDebian: "Debian package", KindDownload: "download"}[m.Kind]
	text := fmt.Sprintf("%s %s, for %s on %s", what, m.Name, title(m.Addon, m.Implementation), m.System)
	if m.In != "" {
		text += " (" + m.In + ")"
	}
	return text
}

// MissingError lists all that a bundle should hold and that was not found. It
// matches cas.ErrNotFound.
type MissingError struct {
	Missing []Missing
	// Unreadable lists archives that were looked into and are none, each with the
	// reason: what is missing may be in them.
	Unreadable []string
}

func (e *MissingError) Error() string {
	var b strings.Builder
	things := "things that the addons need are"
	if len(e.Missing) == 1 {
		things = "thing that the addons need is"
	}
	fmt.Fprintf(&b, "%d %s not there:", len(e.Missing), things)
	for _, m := range e.Missing {
		fmt.Fprintf(&b, "\n  %s", m)
	}
	for _, name := range e.Unreadable {
		fmt.Fprintf(&b, "\n  not read: %s", name)
	}
	return b.String()
}

func (e *MissingError) Unwrap() error { return cas.ErrNotFound }

// NotInBundleError says that a bundle lacks an addon, and which it has. It matches
// cas.ErrNotFound.
type NotInBundleError struct {
	Has []string // such as "ingress nginx"
	Err error    // what was asked for
}

func (e *NotInBundleError) Error() string {
	return fmt.Sprintf("%v; the bundle has: %s", e.Err, strings.Join(e.Has, ", "))
}

func (e *NotInBundleError) Unwrap() []error { return []error{e.Err, cas.ErrNotFound} }
