package delta

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"ferry/chunking"
	"ferry/manifest"
)

// Rules say how a delta treats what stands at a site. The texts of rules are the
// caller's: a [Matcher] knows what they mean. They are recorded in the delta.
type Rules struct {
	// Preserve is for what a site may keep as its own: a file there that is not as its
	// base has it stays, whatever the target says. The delta never reads such files.
	Preserve []string
	// Wholesale is for folders that an apply in place makes just as the target has them:
	// what the site put in goes.
	Wholesale []string
	// CarryWholesale has the delta carry those folders whole, whatever the bases have of
	// them: so nothing that a site changed there stops an apply in place.
	CarryWholesale bool
	// Mandatory is for files that a target must have: each rule must match one.
	Mandatory []string
	// IgnoreCase says that rules match whatever the case of letters.
	IgnoreCase bool
	// VersionFile is the path of a file that says which version a tree is. If all bases
	// have one, a tree that says another version is refused before anything is read.
	VersionFile string
}

// Matcher returns what reports whether one of the rules matches a path.
type Matcher func(rules []string) (func(path string) bool, error)

// compile is the Matcher for any number of rules.
func (m Matcher) compile(rules []string) (func(path string) bool, error) {
	switch {
	case len(rules) == 0:
		return func(string) bool { return false }, nil
	case m == nil:
		return nil, errors.New("the delta has rules, and nothing to match them with")
	}
	return m(rules)
}

// check looks at what must be right before a delta is made.
func (c *creator) check() (err error) {
	if c.preserve, err = c.opts.Match.compile(c.opts.Rules.Preserve); err != nil {
		return err
	}
	wholesale, err := c.opts.Match.compile(c.opts.Rules.Wholesale)
	if err != nil {
		return err
	}
	c.carried = func(e manifest.Entry) bool {
		return c.opts.Rules.CarryWholesale && e.Type == manifest.TypeFile && wholesale(e.Path) && !c.preserve(e.Path)
	}
	if err := c.checkMandatory(); err != nil {
		return err
	}
	for _, b := range c.bases {
		if b.inventory() && c.target.Params != (chunking.Params{}) && b.Params != c.target.Params {
			return fmt.Errorf("%s %w than %s: make the inventory again with this version of ferry", b.Label, ErrPolicy, c.target.Label)
		}
	}
	return nil
}

func (c *creator) checkMandatory() error {
	var missing []string
	for _, rule := range c.opts.Rules.Mandatory {
		match, err := c.opts.Match.compile([]string{rule})
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(c.target.Manifest.Entries, func(e manifest.Entry) bool { return match(e.Path) }) {
			missing = append(missing, rule)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%s: %w: %s", c.target.Label, ErrMandatory, strings.Join(missing, ", "))
	}
	return nil
}

// maxNumber bounds a version file in bytes.
const maxNumber = 256

// ReadNumber reads what a version file says, without white space around it; nothing
// when there is no such file, its content is not at hand, or is no line of text.
func ReadNumber(ctx context.Context, m *manifest.Manifest, files Files, path string) (string, error) {
	e, ok := m.Find(path)
	if !ok || e.Type != manifest.TypeFile || e.Size > maxNumber {
		return "", nil
	}
	c, err := files.OpenAt(ctx, e)
	if errors.Is(err, ErrNoContent) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer c.Close()
	return numberIn(io.NewSectionReader(c, 0, c.Size()))
}

func numberIn(r io.Reader) (string, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxNumber+1))
	if err != nil || len(data) > maxNumber {
		return "", err
	}
	number := strings.TrimSpace(strings.TrimPrefix(string(data), "\uFEFF"))
	if strings.ContainsFunc(number, func(r rune) bool { return r < ' ' || r == '\uFFFD' }) {
		return "", nil
	}
	return number, nil
}

// checkNumber compares what the version file of a tree says with what the bases say,
// and with others that are allowed. The error is a [*BaseMismatchError]; where names
// the tree in it.
func (d *Delta) checkNumber(ctx context.Context, b Base, where string, others ...string) error {
	if d.Info.VersionFile == "" {
		return nil
	}
	want := make([]string, 0, len(d.Info.Bases))
	for _, base := range d.Info.Bases {
		if base.Version == "" {
			return nil // one that cannot be told this way
		}
		if !slices.Contains(want, base.Version) {
			want = append(want, base.Version)
		}
	}
	have := ""
	if c, err := b.OpenAt(ctx, d.Info.VersionFile); err == nil {
		have, err = numberIn(io.NewSectionReader(c, 0, c.Size()))
		c.Close()
		if err != nil {
			return err
		}
	} else if ctx.Err() != nil {
		return ctx.Err()
	}
	if have != "" && (slices.Contains(want, have) || slices.Contains(others, have)) || len(want) == 0 {
		return nil
	}
	if have == "" {
		have = "of no version that " + d.Info.VersionFile + " tells"
	}
	return &BaseMismatchError{Base: strings.Join(want, " or "), Path: where, Have: have}
}

// forced returns what to report of a mismatch that the caller wants to go on with, or
// the error if not.
func forced(err error, force bool) (string, error) {
	var mismatch *BaseMismatchError
	if err == nil || !force || !errors.As(err, &mismatch) {
		return "", err
	}
	return err.Error() + "; going on, as it is forced", nil
}
