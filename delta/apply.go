package delta

import (
	"context"
	"errors"
	"io"
	"io/fs"

	"ferry/manifest"
	"ferry/manifest/place"
)

// Apply makes the target in a new folder from base, which is only read. The
// folder must not exist or be empty; interrupted, the same call goes on. Errors:
// [*BaseMismatchError] when the base is another or differs where it is read,
// ErrInvalid when the delta is damaged, [place.ErrExists] and [*place.SpaceError].
func Apply(ctx context.Context, d *Delta, base Base, target string, opts place.Options) (place.Stats, error) {
	a, err := newApplier(ctx, d, base)
	if err != nil {
		return place.Stats{}, err
	}
	defer a.close()
	return place.Tree(ctx, target, d.Target, a.fillOrDiagnose, opts)
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
	if errors.Is(err, place.ErrContent) || errors.As(err, &window) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, fs.ErrNotExist) {
		return a.diagnose(ctx, e, err)
	}
	return err
}
