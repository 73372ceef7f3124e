package delta

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/klauspost/compress/flate"

	"ferry/cas"
	"ferry/chunking/deflate"
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
	m, err := a.complete(ctx)
	if err != nil {
		return place.Stats{}, err
	}
	return place.Tree(ctx, target, m, a.fillOrDiagnose, opts)
}

// complete returns the target's whole manifest, after comparing the base's files
// that stand in the target as they are.
func (a *applier) complete(ctx context.Context) (*manifest.Manifest, error) {
	m, whole, err := a.d.Complete(ctx, func(ctx context.Context, e manifest.Entry) (cas.Digest, error) {
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
	if err == nil && !whole {
		err = fmt.Errorf("%w: the files of the base and the delta's own do not make up manifest %s", ErrInvalid, a.d.plan.target)
	}
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
	var corrupt flate.CorruptInputError // of a member of the base
	if errors.Is(err, place.ErrContent) || errors.As(err, &window) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, fs.ErrNotExist) ||
		errors.As(err, &corrupt) || errors.Is(err, deflate.ErrReconstruction) {
		return a.diagnose(ctx, e, err)
	}
	return err
}
