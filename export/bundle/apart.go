package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"ferry/cas"
	"ferry/cas/durable"
	"ferry/manifest"
	"ferry/manifest/place"
)

// name is where the item goes.
func (it apartItem) name() string { return filepath.Join(it.dir, filepath.FromSlash(it.Path)) }

// waiting returns the images and packages that go elsewhere and are not there yet.
// Where something else stands, the error matches place.ErrExists, unless it may be
// replaced.
func (m *merger) waiting(ctx context.Context) ([]apartItem, error) {
	var waiting []apartItem
	for _, it := range m.apart {
		fi, err := os.Lstat(it.name())
		if errors.Is(err, fs.ErrNotExist) || place.IsNotDir(err) {
			waiting = append(waiting, it)
			continue
		}
		if err != nil {
			return nil, err
		}
		same, err := holdsBytes(ctx, it.name(), fi, it.Digest)
		if err != nil {
			return nil, err
		}
		if !same && (!m.opts.Force || fi.IsDir()) {
			return nil, fmt.Errorf("%s: %w with other content", it.name(), place.ErrExists)
		}
		if !same {
			waiting = append(waiting, it)
		}
	}
	return waiting, nil
}

// holdsBytes reports whether a file of these bytes stands there.
func holdsBytes(ctx context.Context, name string, fi fs.FileInfo, want cas.Digest) (bool, error) {
	if !fi.Mode().IsRegular() {
		return false, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	digest, err := place.Digest(ctx, f)
	return err == nil && digest == want, err
}

// placeApart writes images and packages that go elsewhere, and returns those that
// were not there.
func placeApart(ctx context.Context, m *merger, waiting []apartItem) (placed []string, err error) {
	for _, it := range waiting {
		_, standErr := os.Lstat(it.name())
		if err := m.placeFile(ctx, it.name(), it.item); err != nil {
			return placed, err
		}
		if errors.Is(standErr, fs.ErrNotExist) {
			placed = append(placed, it.name())
		}
	}
	return placed, nil
}

// placeFile writes a file whole or not at all.
func (m *merger) placeFile(ctx context.Context, name string, it item) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		return err
	}
	out, err := durable.Create(name)
	if err != nil {
		return err
	}
	defer out.Abort()
	if err := out.Chmod(0o644); err != nil {
		return err
	}
	h := cas.NewHasher()
	if err := it.copyTo(ctx, io.MultiWriter(out, h)); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if h.Digest() != it.Digest {
		return fmt.Errorf("%s: %w", name, manifest.ErrChanged)
	}
	if m.opts.Progress != nil {
		m.opts.Progress.Add(it.Size)
	}
	if m.opts.Force {
		return out.Commit()
	}
	err = out.CommitNew()
	if errors.Is(err, fs.ErrExist) {
		err = fmt.Errorf("%s: %w with other content", name, place.ErrExists) // since we looked
	}
	return err
}
