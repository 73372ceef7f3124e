package delta

import (
	"context"
	"errors"
	"io"
	"io/fs"

	"ferry/cas"
	"ferry/chunking/coded"
	"ferry/manifest"
	"ferry/manifest/place"
)

// Apply is ApplyRules for a delta without rules.
func Apply(ctx context.Context, d *Delta, base Base, target string, opts place.Options) (place.Stats, error) {
	r, err := ApplyRules(ctx, d, base, target, ApplyOptions{Options: opts})
	return r.Stats, err
}

// ApplyOptions say how to make a target in a new folder.
type ApplyOptions struct {
	place.Options
	// Match knows the delta's rules; it is needed when there are any.
	Match Matcher
	// Name is what to call the base in messages, such as its path.
	Name string
	// Force goes on when the base says that it is another version. What is read of it
	// is verified all the same.
	Force bool
}

// ApplyReport says what was made.
type ApplyReport struct {
	place.Stats
	// Preserved lists files of the base that are its own by the delta's rules: those Kept
	// are in the new folder as they are in the base.
	Preserved []Modified `json:"preserved,omitempty"`
	// Forced says what was passed over by force.
	Forced string `json:"forced,omitempty"`
}

// ApplyRules makes the target in a new folder from base, which is only read. The
// folder must not exist or be empty; interrupted, the same call goes on. Errors:
// [*BaseMismatchError] when the base is another or differs where it is read,
// ErrInvalid when the delta is damaged, [place.ErrExists] and [*place.SpaceError].
func ApplyRules(ctx context.Context, d *Delta, base Base, target string, opts ApplyOptions) (ApplyReport, error) {
	var r ApplyReport
	keep, err := opts.Match.compile(d.Info.Preserve)
	if err != nil {
		return r, err
	}
	if r.Forced, err = forced(d.checkNumber(ctx, base, opts.Name), opts.Force); err != nil {
		return r, err
	}
	a, err := newApplier(ctx, d, base, keep)
	if err != nil {
		return r, err
	}
	defer a.close()
	m, err := a.complete(ctx)
	if err != nil {
		return r, err
	}
	whole := m
	opts.Agrees, opts.Verify = agrees, func(made map[string]cas.Digest) error { return a.d.verify(whole, made) }
	fill := a.fillOrDiagnose
	if len(d.Info.Preserve) > 0 {
		if m, fill, r.Preserved, err = a.preserve(ctx, base, m); err != nil {
			return r, err
		}
	}
	r.Stats, err = place.Tree(ctx, target, m, fill, opts.Options)
	return r, err
}

// complete returns the target's manifest with the whole digests of those files that stand
// in it as they do in the base, after comparing these.
func (a *applier) complete(ctx context.Context) (*manifest.Manifest, error) {
	stands := func(e manifest.Entry) bool { return a.programs[e.Path] == nil }
	m, _, err := a.d.complete(ctx, stands, func(ctx context.Context, e manifest.Entry) (cas.Digest, error) {
		digest, err := a.digest(ctx, e.Path, 0, e.Size)
		if ctx.Err() != nil {
			return digest, ctx.Err()
		}
		if err != nil {
			return digest, a.mismatch(e.Path, "%v", err)
		}
		if !agrees(digest, e.Digest) {
			return digest, a.mismatch(e.Path, "its content differs")
		}
		return digest, nil
	})
	return m, err
}

// fillOrDiagnose is fill with errors that say whose fault it is.
func (a *applier) fillOrDiagnose(ctx context.Context, e manifest.Entry, w io.Writer) error {
	err := a.fill(ctx, e, w)
	if err == nil {
		if c, ok := w.(interface{ Matches() bool }); ok && !c.Matches() {
			err = place.ErrContent
		}
	}
	var window *windowError
	if errors.Is(err, place.ErrContent) || errors.As(err, &window) || errors.Is(err, fs.ErrNotExist) || coded.Damaged(err) {
		return a.diagnose(ctx, e, err)
	}
	return err
}
