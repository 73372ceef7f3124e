package delta

import (
	"archive/zip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"ferry/cas"
	"ferry/delta/codec"
	"ferry/manifest"
	"ferry/manifest/place"
)

// Delta is an open delta. It is safe for concurrent use. Close it.
type Delta struct {
	// Info is what the delta says of itself.
	Info *Info
	// Target is the manifest of what it makes, in which digests of files that all
	// bases have are short: see Complete. Files may be missing in it: see Resolve.
	Target *manifest.Manifest

	parts   parts
	unnamed *unnamed
	plan    *plan
	need    *need
	id      cas.Digest // of the plan
	groups  *groups
}

// Limits of what is read into memory, in bytes.
const (
	maxInfo  = 256 << 20
	maxNeed  = 256 << 20
	maxLines = 1 << 30
)

// IsDelta reports whether what stands at path is a delta, by its content: a file, or
// the folder that one was unpacked to.
func IsDelta(path string) bool {
	if fi, err := os.Stat(path); err == nil && fi.IsDir() {
		return isUnpacked(path)
	}
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() {
		return false
	}
	zr, err := zip.NewReader(f, fi.Size())
	if err != nil {
		return false
	}
	found := 0
	for _, zf := range zr.File {
		if zf.Name == planName || zf.Name == needName || zf.Name == manifestName {
			found++
		}
	}
	return found == 3
}

// isUnpacked reports whether a folder has what a delta has.
func isUnpacked(dir string) bool {
	for _, name := range []string{planName, needName, manifestName, infoName} {
		if fi, err := os.Lstat(filepath.Join(dir, name)); err != nil || !fi.Mode().IsRegular() {
			return false
		}
	}
	return true
}

// Open opens the delta at path, a file or the folder that one was unpacked to, and
// checks that it is complete and consistent. The payload is not read. Errors match
// ErrInvalid when it is no sound delta.
func Open(path string) (*Delta, error) {
	p, err := openParts(path)
	if errors.Is(err, ErrInvalid) {
		return nil, fmt.Errorf("delta %s: %w", path, err)
	}
	if err != nil {
		return nil, err
	}
	d := &Delta{parts: p, groups: &groups{}}
	if err := d.open(); err != nil {
		p.close()
		return nil, fmt.Errorf("delta %s: %w", path, err)
	}
	return d, nil
}

// Close closes the delta's files.
func (d *Delta) Close() error { return d.parts.close() }

// ID identifies the delta: the digest of its plan.
func (d *Delta) ID() cas.Digest { return d.id }

func (d *Delta) open() error {
	if err := d.readInfo(); err != nil {
		return err
	}
	if err := d.readManifest(); err != nil {
		return err
	}
	planData, err := d.entry(planName, maxPlan)
	if err != nil {
		return err
	}
	d.id = cas.Sum(planData)
	if d.plan, err = decodePlan(planData, d.Target.Entries); err != nil {
		return err
	}
	if err := d.readJSON(needName, maxNeed, &d.need); err != nil {
		return err
	}
	if d.need != nil && len(d.need.Bases) == len(d.plan.bases) {
		d.need.complete(d.plan, d.Target)
	}
	if d.Info != nil {
		d.Info.DeltaSize = d.parts.size()
	}
	return d.consistent()
}

func (d *Delta) readManifest() error {
	data, err := d.entry(manifestName, maxLines)
	if err != nil {
		return err
	}
	d.Target, d.unnamed, err = decodeTarget(data, d.Info.listed())
	return err
}

func (d *Delta) readInfo() error {
	data, err := d.entry(infoName, maxInfo)
	if err != nil {
		return err
	}
	if d.Info, err = decodeInfo(data); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrInvalid, infoName, err)
	}
	if d.Info.Format != infoFormat {
		return fmt.Errorf("%w: %s is of format %q, this program reads up to %q", ErrInvalid, infoName, d.Info.Format, infoColumnsFormat)
	}
	return nil
}

func (d *Delta) readJSON(name string, limit int64, v any) error {
	data, err := d.entry(name, limit)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrInvalid, name, err)
	}
	return nil
}

// entry reads an entry of at most limit bytes; a zip's CRC is compared.
func (d *Delta) entry(name string, limit int64) ([]byte, error) {
	r, size, err := d.parts.open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: has no %s", ErrInvalid, name)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, name, err)
	}
	defer r.Close()
	if size > limit {
		return nil, fmt.Errorf("%w: %s of %d bytes", ErrInvalid, name, size)
	}
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = errors.New("longer than it declares")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, name, err)
	}
	return data, nil
}

// consistent compares the parts of the delta with each other.
func (d *Delta) consistent() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
	}
	switch {
	case d.need == nil || d.need.Format != needFormat && d.need.Format != needFormat1 || len(d.need.Bases) != len(d.plan.bases):
		return bad("%s is not of format %q, or of other bases", needName, needFormat)
	case d.unnamed.n > 0 && len(d.plan.bases) > 1:
		return bad("files without names, for several bases")
	case d.unnamed.n == 0 && !slices.ContainsFunc(d.Target.Entries, func(e manifest.Entry) bool { return isShort(e.Digest) }) && d.Target.ID() != d.plan.target:
		return bad("the manifest is not that of the plan")
	}
	for _, g := range d.plan.programs {
		if g.entry >= len(d.Target.Entries) {
			continue
		}
		if e := d.Target.Entries[g.entry]; e.Digest == shortened(e.Digest, shortSize) {
			return bad("%q has a program, but not enough of its digest", e.Path)
		}
	}
	for i, b := range d.plan.bases {
		if d.need.Bases[i].Manifest != b.manifest {
			return bad("%s is of other bases than the plan", needName)
		}
	}
	for i, size := range d.plan.payloads() {
		if have, err := d.parts.stored(payloadName(i)); err != nil || have != size {
			return bad("%s is missing or not of %d bytes", payloadName(i), size)
		}
	}
	for _, g := range d.plan.programs {
		e := manifest.Entry{Type: manifest.TypeFile, Path: "a member"}
		if k := g.entry - len(d.Target.Entries); k >= 0 {
			e.Size = d.plan.streams[k]
		} else {
			e = d.Target.Entries[g.entry]
		}
		if pieces, whole := d.piecemeal(g.ops); whole > pieces {
			return bad("program of %q uses %d bytes of streams of %d", e.Path, pieces, whole)
		}
		sum := int64(0)
		for _, o := range g.ops {
			sum += o.size
			if sum < 0 || sum > e.Size {
				break
			}
		}
		if e.Type != manifest.TypeFile || sum != e.Size {
			return bad("program of %q does not give its %d bytes", e.Path, e.Size)
		}
	}
	return nil
}

// piecemeal returns how many bytes a program takes of streams that it uses in pieces, and
// how many those have: they are made as a whole, so that they must all be used.
func (d *Delta) piecemeal(ops []op) (pieces, whole int64) {
	seen := map[int]bool{}
	eachOp(ops, func(o op) {
		if o.kind != opStream || o.size == d.plan.streams[o.ref] {
			return
		}
		if pieces += o.size; !seen[o.ref] {
			seen[o.ref] = true
			whole += d.plan.streams[o.ref]
		}
		if pieces < 0 || whole < 0 {
			pieces, whole = 0, 1<<62
		}
	})
	return pieces, whole
}

// window reads and decodes window i; dict gives bytes of sources.
func (d *Delta) window(ctx context.Context, i int, dict func(ctx context.Context, dst []byte, s span) ([]byte, error)) ([]byte, error) {
	w := d.plan.windows[i]
	if w.kind == codec.Unpacked {
		d.groups.drop() // for the memory that it takes
	}
	base := make([]byte, 0, w.dictSize())
	for _, s := range w.dict {
		var err error
		if base, err = dict(ctx, base, s); err != nil {
			return nil, err
		}
	}
	plain, err := d.decode(w, base)
	if err != nil {
		return nil, &windowError{i, w.at, err}
	}
	if checkOf(plain) != w.check {
		return nil, &windowError{i, w.at, errors.New("gives other bytes than it should")}
	}
	return plain, nil
}

// decode gives the plain bytes of a window, made of base.
func (d *Delta) decode(w window, base []byte) ([]byte, error) {
	if w.kind == codec.Grouped {
		g, err := d.group(w.leader)
		if err != nil {
			return nil, err
		}
		return g.Decode(nil, w.item, base, w.plain)
	}
	data, err := d.coded(w)
	if err != nil {
		return nil, err
	}
	return decodeWindow(data, base, w.kind, w.plain)
}

// coded reads the coded bytes of a window.
func (d *Delta) coded(w window) ([]byte, error) {
	data := make([]byte, w.coded)
	if err := d.parts.readAt(payloadName(w.at.file), data, w.at.off); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, payloadName(w.at.file), err)
	}
	return data, nil
}

// openGroup is a group being unpacked, or unpacked.
type openGroup struct {
	leader int
	ready  chan struct{}
	g      *codec.Group
	err    error
}

// groups are those last unpacked.
type groups struct {
	mu   sync.Mutex
	open []*openGroup
}

// has reports whether the group that window leader begins is unpacked, or being so.
func (s *groups) has(leader int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.open, func(o *openGroup) bool { return o.leader == leader })
}

// drop forgets the groups.
func (s *groups) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = nil
}

// maxGroups bounds the unpacked groups kept: files come in the order of the groups.
const maxGroups = 2

// group unpacks the group that window leader begins.
func (d *Delta) group(leader int) (*codec.Group, error) {
	s := d.groups
	s.mu.Lock()
	for _, o := range s.open {
		if o.leader == leader {
			s.mu.Unlock()
			<-o.ready
			return o.g, o.err
		}
	}
	o := &openGroup{leader: leader, ready: make(chan struct{})}
	s.open = append(s.open, o)
	if len(s.open) > maxGroups {
		s.open = s.open[1:]
	}
	s.mu.Unlock()
	defer close(o.ready)
	data, err := d.coded(d.plan.windows[leader])
	if err == nil {
		o.g, err = codec.OpenGroup(data)
	}
	o.err = err
	return o.g, err
}

// windowError says that a window did not decode: its payload is damaged, or the
// base bytes are not those that it was coded against.
type windowError struct {
	window int
	at     payloadAt
	err    error
}

func (e *windowError) Error() string {
	return fmt.Sprintf("%s, window %d at offset %d: %v", payloadName(e.at.file), e.window, e.at.off, e.err)
}

func (e *windowError) Unwrap() error { return e.err }

// checkEntry reads an entry to compare its checksum.
func (d *Delta) checkEntry(ctx context.Context, name string) error {
	r, _, err := d.parts.open(name)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = place.Digest(ctx, r)
	return err
}

// Finding is something wrong with a delta.
type Finding struct {
	Object string `json:"object"`
	Detail string `json:"detail"`
}

// Verify reads all of the delta: entries against their checksums, and windows
// that need no base against their digests. Findings go to report.
func (d *Delta) Verify(ctx context.Context, report func(Finding)) error {
	for _, name := range slices.Sorted(slices.Values(d.parts.names())) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if strings.HasPrefix(name, toolDir) {
			if err := d.checkEntry(ctx, name); err != nil {
				report(Finding{name, err.Error()})
			}
			continue
		}
		limit := int64(maxLines)
		if strings.HasPrefix(name, payloadDir) {
			limit = payloadSize + maxWindow
		}
		if _, err := d.entry(name, limit); err != nil {
			report(Finding{name, err.Error()})
		}
	}
	for i, w := range d.plan.windows {
		if len(w.dict) > 0 || w.kind.NeedsBase() {
			continue
		}
		if _, err := d.window(ctx, i, nil); err != nil {
			report(Finding{payloadName(w.at.file), err.Error()})
		}
	}
	return ctx.Err()
}
