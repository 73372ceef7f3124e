package delta

import (
	"archive/zip"
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"strconv"

	"github.com/klauspost/compress/flate"
	"golang.org/x/sync/semaphore"

	"ferry/cas"
	"ferry/chunking"
	"ferry/delta/codec"
	"ferry/manifest"
	"ferry/manifest/deb"
	"ferry/manifest/tree"
)

// Files gives the content of a version's files.
type Files interface {
	// Recipe returns how a file is cut, and of what streams a container file is.
	Recipe(ctx context.Context, e manifest.Entry) (*manifest.Recipe, error)
	// OpenAt opens a file for reading anywhere.
	OpenAt(ctx context.Context, e manifest.Entry) (tree.Content, error)
	// OpenStream opens stream i of a file's recipe, which stands at that location.
	OpenStream(ctx context.Context, e manifest.Entry, r *manifest.Recipe, i int, at manifest.Location) (tree.Content, error)
}

// Version is a version of a package, in a store or on disk.
type Version struct {
	Label    string // what to call it, such as "k2s@1.5.0"
	Manifest *manifest.Manifest
	Files    Files
	// Number is what the version's own version file says, for Rules.VersionFile; empty
	// when it has none.
	Number string
	// Params is the policy under which Files were cut; zero when unknown. Inventories
	// must have been made under that of the target.
	Params chunking.Params
}

// CreateOptions say how to make a delta.
type CreateOptions struct {
	// FullSize is what the full package takes in bytes; 0 makes it be estimated.
	FullSize int64
	// Effort is how much time coding may take to save bytes.
	Effort codec.Effort
	// Guests is what changed in disk images, for delta.json.
	Guests []GuestDiff
	// Progress is told the new bytes coded; nil is allowed.
	Progress cas.Counter
	// Total, if set, is called once with the bytes that Progress will be told.
	Total func(int64)
	// Rules say how the delta treats what stands at a site. Match compiles them; it is
	// needed when there are any.
	Rules Rules
	Match Matcher
	// RemoveUnknown lets a delta from an inventory take away, in place, files of the site
	// that neither the target nor another base has. Otherwise these stay.
	RemoveUnknown bool
	// Tools are paths of programs to be carried, so that the delta can be applied where
	// no ferry is: "ferry.exe", "ferry", or "ferry-linux-arm64" and the like.
	Tools []string
}

// Names of the entries of a delta.
const (
	readmeName   = "README.txt"
	infoName     = "delta.json"
	manifestName = "target"
	needName     = "base.need"
	planName     = "plan"
	payloadDir   = "payload/"
)

func payloadName(i int) string { return fmt.Sprintf("%s%06d", payloadDir, i) }

// Create writes a delta from any of bases to target, and returns what it holds.
// The same versions always give the same bytes.
func Create(ctx context.Context, w io.Writer, bases []Version, target Version, opts CreateOptions) (*Info, error) {
	if len(bases) == 0 || len(bases) > maxBases {
		return nil, fmt.Errorf("%d bases, want 1 to %d", len(bases), maxBases)
	}
	c := &creator{bases: bases, target: target, opts: opts, debs: map[cas.Digest]deb.Info{}, sources: map[cas.Digest]int{}, pieces: map[piecesKey]int{}, counted: map[int][]extent{}, memory: semaphore.NewWeighted(createMemory)}
	if err := c.check(); err != nil {
		return nil, err
	}
	if err := c.match(ctx); err != nil {
		return nil, err
	}
	if err := c.draft(); err != nil {
		return nil, err
	}
	c.openFiles(ctx)
	defer c.close()
	return c.write(ctx, w)
}

type creator struct {
	bases    []Version
	target   Version
	opts     CreateOptions
	preserve func(path string) bool      // whether a site may keep its own there
	carried  func(e manifest.Entry) bool // whether the delta holds a file whole
	matchers []*matcher
	debs     map[cas.Digest]deb.Info // what Debian package files say of themselves
	upgrades []DebPair               // of the first base
	expanded *expanded               // the target, with streams of those container files that are made anew
	matched  []matchedFile
	plan     plan
	sources  map[cas.Digest]int // into plan.sources
	drafts   []*draft
	memory   *semaphore.Weighted
	pieces   map[piecesKey]int // entries of expanded
	wants    []uint64          // of entries of expanded: for which bases it is made
	costs    []int             // of windows: their share of the payload in bytes
	together int               // windows that may be coded with others; they come first
	mix      bool              // whether literals of groups are mixed
	counted  map[int][]extent  // of windows: pieces that some file has paid for

	fromTarget *tree.Cache // by number of entry
	fromBase   *tree.Cache // by digest
}

// matchedFile is an entry of the target as matched against the bases in mask.
type matchedFile struct {
	entry int
	mask  uint64
	segs  []segment
	ops   []op // of a container file, instead
}

// match matches each file that is not simply there in each base.
func (c *creator) match(ctx context.Context) error {
	c.plan.target = c.target.Manifest.ID()
	for _, b := range c.bases {
		m, err := newMatcher(ctx, b, c.preserve)
		if err != nil {
			return err
		}
		m.readable = c.readable
		debs, err := c.debPairs(ctx, b)
		if err != nil {
			return err
		}
		m.pairDebs(debs)
		if len(c.matchers) == 0 {
			c.upgrades = debs
		}
		c.matchers = append(c.matchers, m)
		c.plan.bases = append(c.plan.bases, planBase{b.Manifest.ID(), b.Label})
	}
	c.expanded = expand(c.target)
	for i := range c.target.Manifest.Entries {
		if err := c.matchContainer(ctx, i); err != nil {
			return fmt.Errorf("%s: %w", c.target.Label, err)
		}
	}
	for i, e := range c.expanded.entries {
		if e.Type != manifest.TypeFile || e.Size == 0 {
			continue
		}
		if err := c.matchFile(ctx, i, e); err != nil {
			return fmt.Errorf("%s: %s: %w", c.target.Label, label(e.Path), err)
		}
	}
	for _, e := range c.expanded.entries[len(c.target.Manifest.Entries):] {
		c.plan.streams = append(c.plan.streams, e.Size)
	}
	return ctx.Err()
}

func (c *creator) matchFile(ctx context.Context, i int, e manifest.Entry) error {
	if c.carried(e) {
		segs, err := c.carry(ctx, i, e)
		c.matched = append(c.matched, matchedFile{entry: i, mask: 1<<len(c.bases) - 1, segs: segs})
		return err
	}
	var chunks []manifest.Chunk
	first := len(c.matched)
	for b, m := range c.matchers {
		if !c.wanted(i, b) {
			continue
		}
		if _, whole := m.byDig[e.Digest]; chunks == nil && !whole {
			var err error
			if chunks, err = c.expanded.chunks(ctx, i); err != nil {
				return err
			}
			if err := covers(chunks, e.Size); err != nil {
				return err
			}
		}
		segs, err := m.segments(ctx, c.expanded, i, chunks)
		if err != nil {
			return err
		}
		c.noteMatch(first, matchedFile{entry: i, mask: 1 << b, segs: segs})
	}
	return nil
}

// carry returns a file's own bytes. What it shares with others of its kind, it still shares;
// with nothing that is coded against a base.
func (c *creator) carry(ctx context.Context, i int, e manifest.Entry) ([]segment, error) {
	chunks, err := c.expanded.chunks(ctx, i)
	if err != nil {
		return nil, err
	}
	if covers(chunks, e.Size) != nil { // a container file, taken as it is
		chunks = nil
		for off := int64(0); off < e.Size; off += carriedPiece {
			key := cas.Sum(binary.LittleEndian.AppendUint64(e.Digest[:], uint64(off)))
			chunks = append(chunks, manifest.Chunk{Off: off, Size: min(carriedPiece, e.Size-off), Key: key})
		}
	}
	var segs []segment
	for _, chunk := range chunks {
		if chunk.Key.IsZero() {
			segs = append(segs, segment{kind: opZero, size: chunk.Size})
			continue
		}
		chunk.Key = cas.Sum(append([]byte("carried"), chunk.Key[:]...))
		segs = appendLiteral(segs, chunk, nil)
	}
	return segs, nil
}

// carriedPiece is the length in bytes of what is told apart in a carried container file.
const carriedPiece = 64 << 10

// noteMatch adds a matching, to an equal one of another base where there is one.
func (c *creator) noteMatch(first int, f matchedFile) {
	for k := range c.matched[first:] {
		if other := &c.matched[first+k]; sameSegments(other.segs, f.segs) && sameOps(other.ops, f.ops) {
			other.mask |= f.mask
			return
		}
	}
	c.matched = append(c.matched, f)
}

// standsIn reports whether a base has the file's content at its path.
func standsIn(base *manifest.Manifest, e manifest.Entry) bool {
	b, ok := base.Find(e.Path)
	return ok && b.Type == manifest.TypeFile && b.Digest == e.Digest
}

func covers(chunks []manifest.Chunk, size int64) error {
	at := int64(0)
	for _, c := range chunks {
		if c.Off != at {
			return fmt.Errorf("chunks leave out bytes %d to %d", at, c.Off)
		}
		at += c.Size
	}
	if at != size {
		return fmt.Errorf("chunks cover %d of %d bytes", at, size)
	}
	return nil
}

// draft makes programs and windows of the matchings: first of those that most
// bases share, then in the order of the paths.
func (c *creator) draft() error {
	slices.SortStableFunc(c.matched, func(a, b matchedFile) int {
		return cmp.Or(-cmp.Compare(bits.OnesCount64(a.mask), bits.OnesCount64(b.mask)), cmp.Compare(a.mask, b.mask), cmp.Compare(a.entry, b.entry))
	})
	d := &drafter{entries: c.expanded.entries, placed: map[cas.Digest]placed{}}
	for _, f := range c.matched {
		if f.ops != nil {
			c.plan.programs = append(c.plan.programs, program{f.entry, f.mask, f.ops})
			continue
		}
		ops := d.file(f.entry, f.mask, f.segs, func(digest cas.Digest) int { return c.source(digest, f.mask) })
		c.plan.programs = append(c.plan.programs, program{f.entry, f.mask, ops})
	}
	slices.SortStableFunc(c.plan.programs, func(a, b program) int { return cmp.Compare(a.entry, b.entry) })
	for _, w := range d.drafts {
		c.plan.windows = append(c.plan.windows, window{plain: int(w.plain), dict: w.spans(func(digest cas.Digest) int { return c.source(digest, w.mask) })})
	}
	c.drafts = d.drafts
	return nil
}

// groupFirst finds the windows that may be coded with others, and puts them before those
// that are coded on their own, so that they make few groups.
func (c *creator) groupFirst(ctx context.Context) error {
	order, alone := make([]int, len(c.drafts)), make([]bool, len(c.drafts))
	for i := range order {
		together, packed, err := c.sniff(ctx, i)
		if err != nil {
			return err
		}
		order[i], alone[i], c.drafts[i].packed = i, !together, packed
		c.together += bit(together)
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(bit(alone[a]), bit(alone[b])) })
	windows, drafts, numbers := c.plan.windows, c.drafts, make([]int, len(order))
	c.plan.windows, c.drafts = make([]window, len(order)), make([]*draft, len(order))
	for i, was := range order {
		c.plan.windows[i], c.drafts[i], numbers[was] = windows[was], drafts[was], i
	}
	for _, g := range c.plan.programs {
		renumberWindows(g.ops, numbers)
	}
	return nil
}

// renumberWindows gives windows their new numbers in instructions.
func renumberWindows(ops []op, numbers []int) {
	for i := range ops {
		if ops[i].kind == opWindow {
			ops[i].ref = numbers[ops[i].ref]
		}
		renumberWindows(ops[i].inner, numbers)
	}
}

// sniff reports whether window i may be coded with others, as a small one or a text, and whether
// it may be unpacked.
func (c *creator) sniff(ctx context.Context, i int) (together, packed bool, err error) {
	w := c.plan.windows[i]
	plain, base := int64(w.plain), w.dictSize()
	if plain <= groupItem && base <= 4*groupItem {
		return true, false, nil
	}
	p := c.drafts[i].pieces[0]
	head, err := c.fromTarget.Read(ctx, nil, strconv.Itoa(p.entry), p.off, min(p.size, codec.TextSample))
	return codec.IsText(head) && plain <= groupText && base <= groupText, isPacked(head), err
}

// source returns the number of the base file with that digest, noting where it
// stands in the bases of mask.
func (c *creator) source(digest cas.Digest, mask uint64) int {
	i, ok := c.sources[digest]
	if !ok {
		i = len(c.plan.sources)
		c.sources[digest] = i
		c.plan.sources = append(c.plan.sources, source{digest: digest, places: make([]sourcePlace, len(c.bases))})
	}
	s := &c.plan.sources[i]
	for b, m := range c.matchers {
		if mask>>b&1 != 0 && s.places[b].path == "" {
			k := m.byDig[digest]
			s.size = m.base.entries[k].Size
			s.places[b].path, s.places[b].at = m.base.location(k)
		}
	}
	return i
}

// openFiles prepares reading from both sides.
func (c *creator) openFiles(ctx context.Context) {
	c.fromTarget = tree.NewCache(ctx, func(ctx context.Context, path string) (tree.Content, error) {
		i, err := strconv.Atoi(path)
		if err != nil {
			return nil, err
		}
		return c.expanded.open(ctx, i)
	})
	c.fromBase = tree.NewCache(ctx, func(ctx context.Context, hex string) (tree.Content, error) {
		digest, err := cas.ParseHex(hex)
		if err != nil {
			return nil, err
		}
		for _, m := range c.matchers {
			ok, err := m.has(ctx, digest)
			if err != nil {
				return nil, err
			}
			if ok {
				return m.base.open(ctx, m.byDig[digest])
			}
		}
		return nil, errors.New("internal error: source of no base")
	})
}

// readable reports whether a base has the content of a source, to be read here.
func (c *creator) readable(ctx context.Context, digest cas.Digest) (bool, error) {
	for _, m := range c.matchers {
		if ok, err := m.has(ctx, digest); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

func (c *creator) close() {
	c.fromTarget.Close()
	c.fromBase.Close()
}

// write codes the windows and writes the delta.
func (c *creator) write(ctx context.Context, w io.Writer) (*Info, error) {
	counted := &countingWriter{w: w}
	zw := zip.NewWriter(counted)
	zw.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, flate.BestCompression) })
	if err := writeEntry(zw, readmeName, zip.Deflate, readme(c.bases, c.target)); err != nil {
		return nil, err
	}
	if err := writeTools(ctx, zw, c.opts.Tools); err != nil {
		return nil, err
	}
	if err := c.writePayload(ctx, zw); err != nil {
		return nil, err
	}
	need, err := c.need(ctx)
	if err != nil {
		return nil, err
	}
	info := c.info()
	heads, err := c.heads(need, info.listed())
	if err != nil {
		return nil, err
	}
	if info.FullSize = c.opts.FullSize; info.FullSize == 0 {
		info.FullEstimated = true
		if info.FullSize, err = c.estimateFull(ctx); err != nil {
			return nil, err
		}
	}
	infoData, err := info.encode()
	if err != nil {
		return nil, err
	}
	for _, entry := range append(heads, entry{infoName, infoData}) {
		if err := writeEntry(zw, entry.name, zip.Deflate, entry.data); err != nil {
			return nil, err
		}
	}
	if err := zw.Close(); err != nil {
		return nil, err
	}
	info.DeltaSize = counted.n
	return info, ctx.Err()
}

// entry is an entry of the delta, to be written.
type entry struct {
	name string
	data []byte
}

// heads codes the plan, what it needs, and the target's manifest.
func (c *creator) heads(n *need, listed []string) ([]entry, error) {
	best, err := c.headsWithout(n, listed, make([]bool, len(c.target.Manifest.Entries)))
	if err != nil {
		return nil, err
	}
	nameless := c.nameless()
	if !slices.Contains(nameless, true) {
		return best, nil
	}
	short, err := c.headsWithout(n, listed, nameless)
	if err != nil {
		return nil, err
	}
	// Names say more of what is wrong at a site.
	if saved, all := sizeOf(best)-sizeOf(short), c.payloadSize()+sizeOf(short); saved*namesWorth > all {
		best = short
	}
	return best, nil
}

// namesWorth is what names are worth: one in so many bytes of the delta.
const namesWorth = 20

func sizeOf(entries []entry) (sum int64) {
	for _, e := range entries {
		sum += int64(len(e.data))
	}
	return sum
}

// headsWithout is heads without names of files.
func (c *creator) headsWithout(n *need, listed []string, nameless []bool) ([]entry, error) {
	m, others, numbers := divided(c.target.Manifest, nameless)
	p := c.plan.renumbered(numbers, len(m.Entries)).asRead()
	needData, err := json.Marshal(n.shortened(p, m))
	if err != nil {
		return nil, err
	}
	planData := p.encode(m.Entries, c.opts.Effort)
	if _, err := decodePlan(planData, m.Entries); err != nil {
		return nil, fmt.Errorf("too much for one delta: %w", err)
	}
	// A site may have its own of what is preserved, which would not tell the digest.
	made := p.made(len(m.Entries))
	keep := func(i int) int {
		switch {
		case c.preserve(m.Entries[i].Path):
			return cas.DigestSize
		case made[i]:
			return frontSize
		}
		return shortSize
	}
	return []entry{{planName, planData}, {needName, needData}, {manifestName, encodeTarget(m, others, listed, keep, c.opts.Effort)}}, nil
}

// made says which of a target's entries have a program: the others stand in all bases.
func (p *plan) made(entries int) []bool {
	made := make([]bool, entries)
	for _, g := range p.programs {
		if g.entry < entries {
			made[g.entry] = true
		}
	}
	return made
}

// payloadSize is the length in bytes of what the windows are coded to.
func (c *creator) payloadSize() (sum int64) {
	for _, w := range c.plan.windows {
		sum += int64(w.coded)
	}
	return sum
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// writeEntry writes an entry of a delta, whose times are always the same.
func writeEntry(zw *zip.Writer, name string, method uint16, data []byte) error {
	w, err := createEntry(zw, name, method)
	if err != nil {
		return err
	}
	_, err = w.Write(data)
	return err
}

func createEntry(zw *zip.Writer, name string, method uint16) (io.Writer, error) {
	//lint:ignore SA1019 Modified would add an extra field that says nothing
	return zw.CreateHeader(&zip.FileHeader{Name: name, Method: method, ModifiedDate: 1<<5 | 1})
}

// unit is windows that are coded together, on their way into the delta.
type unit struct {
	first, n    int
	plain, base int64 // bytes of them all
	data        []byte
}

// Bounds of what is grouped: small windows, that compress better together.
const (
	groupItem  = 1 << 20  // plain bytes of a window, and of its base a few times that
	groupText  = 16 << 20 // of a text, and of its base
	groupPlain = 30 << 20 // plain bytes of a group; twice as many, if that is all there are
	groupBase  = 64 << 20 // base bytes of a group
)

// units divides the windows.
func (c *creator) units() []*unit {
	var units []*unit
	var group *unit // that the next small window may join
	limit, sum := int64(groupPlain), int64(0)
	for _, w := range c.plan.windows[:c.together] {
		sum += int64(w.plain)
	}
	if sum <= 2*groupPlain {
		limit = sum
	}
	for i, w := range c.plan.windows {
		plain, base := int64(w.plain), w.dictSize()
		if i >= c.together {
			if c.drafts[i].packed {
				plain, base = plain*packedMemory, base*packedMemory
			}
			units = append(units, &unit{first: i, n: 1, plain: plain, base: base})
			continue
		}
		if group == nil || group.plain+plain > limit || group.base+base > groupBase || group.n == codec.MaxItems {
			group = &unit{first: i}
			units = append(units, group)
		}
		group.n++
		group.plain += plain
		group.base += base
	}
	return units
}

// mixedPlain bounds the plain bytes of groups, in all, whose literals are mixed: a few
// percent of these are literals, and each megabyte of them takes a second to apply.
const mixedPlain = 128 << 20

// mayMix reports whether literals of groups may be mixed.
func (c *creator) mayMix(units []*unit) bool {
	sum := int64(0)
	for _, u := range units {
		if u.n > 1 {
			sum += u.plain
		}
	}
	return c.opts.Effort != codec.Fast && sum <= mixedPlain
}

// writePayload codes the windows on all cores and writes them in order.
func (c *creator) writePayload(ctx context.Context, zw *zip.Writer) error {
	if c.opts.Total != nil {
		sum := int64(0)
		for _, w := range c.plan.windows {
			sum += int64(w.plain)
		}
		c.opts.Total(sum)
	}
	c.costs = make([]int, len(c.plan.windows))
	if err := c.groupFirst(ctx); err != nil {
		return err
	}
	units := c.units()
	c.mix = c.mayMix(units)
	at := payloadAt{file: -1}
	var entry io.Writer
	return inOrder(ctx, units, c.code, func(u *unit) error {
		for i := u.first; i < u.first+u.n; i++ {
			w := &c.plan.windows[i]
			if i > 0 {
				prev := c.plan.windows[i-1]
				w.at = prev.at.next(prev.coded)
			}
			if w.at.file != at.file {
				var err error
				if entry, err = createEntry(zw, payloadName(w.at.file), zip.Store); err != nil {
					return err
				}
			}
			at = w.at
			if i == u.first {
				if _, err := entry.Write(u.data); err != nil {
					return err
				}
			}
			if c.opts.Progress != nil {
				c.opts.Progress.Add(int64(w.plain))
			}
		}
		u.data = nil
		return nil
	})
}

// code codes a unit, and proves that it decodes.
func (c *creator) code(ctx context.Context, u *unit) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	need := min(codec.EncodeMemory(u.plain, u.base, c.opts.Effort), createMemory)
	if err := c.memory.Acquire(ctx, need); err != nil {
		return err
	}
	defer c.memory.Release(need)
	if u.n == 1 {
		u.data, err = c.codeWindow(ctx, u.first)
	} else {
		u.data, err = c.codeGroup(ctx, u)
	}
	return err
}

// codeGroup codes the windows of a unit together.
func (c *creator) codeGroup(ctx context.Context, u *unit) ([]byte, error) {
	items := make([]codec.Item, u.n)
	for k := range items {
		var err error
		if items[k], err = c.item(ctx, u.first+k); err != nil {
			return nil, err
		}
	}
	data, shares := codec.EncodeGroup(nil, items, c.opts.Effort, c.mix)
	g, err := codec.OpenGroup(data)
	if err != nil {
		return nil, fmt.Errorf("a group of windows from %d on: %w", u.first, err)
	}
	for k, item := range items {
		i := u.first + k
		back, err := g.Decode(nil, k, item.Base, len(item.Target))
		if err != nil || !bytes.Equal(back, item.Target) {
			return nil, c.unsound(i, err)
		}
		w := &c.plan.windows[i]
		w.kind, w.coded, w.check = codec.Grouped, 0, checkOf(item.Target)
		c.costs[i] = shares[k]
	}
	c.plan.windows[u.first].coded = len(data)
	return data, nil
}

func (c *creator) unsound(window int, err error) error {
	return fmt.Errorf("window %d does not decode to what it was made of (%v): is this machine's memory sound?", window, err)
}

// item reads what window i holds, and what it is coded against.
func (c *creator) item(ctx context.Context, i int) (item codec.Item, err error) {
	w := &c.plan.windows[i]
	item.Target = make([]byte, 0, w.plain)
	for _, p := range c.drafts[i].pieces {
		if item.Target, err = c.fromTarget.Read(ctx, item.Target, strconv.Itoa(p.entry), p.off, p.size); err != nil {
			return item, fmt.Errorf("%s: %w", c.target.Label, err)
		}
	}
	item.Base, err = c.dictionary(ctx, w.dict)
	return item, err
}

// codeWindow codes a window of its own.
func (c *creator) codeWindow(ctx context.Context, i int) ([]byte, error) {
	w := &c.plan.windows[i]
	item, err := c.item(ctx, i)
	if err != nil {
		return nil, err
	}
	data, kind := encodeWindow(item.Target, item.Base, c.opts.Effort)
	if !kind.NeedsBase() {
		w.dict, item.Base = nil, nil
	}
	back, err := decodeWindow(data, item.Base, kind, len(item.Target))
	if err != nil || !bytes.Equal(back, item.Target) {
		return nil, c.unsound(i, err)
	}
	w.kind, w.coded, w.check = kind, len(data), checkOf(item.Target)
	c.costs[i] = len(data)
	return data, nil
}

func (c *creator) dictionary(ctx context.Context, spans []span) ([]byte, error) {
	var dict []byte
	for _, s := range spans {
		dict = slices.Grow(dict, int(s.size))
		var err error
		if dict, err = c.fromBase.Read(ctx, dict, c.plan.sources[s.source].digest.Hex(), s.off, s.size); err != nil {
			return nil, fmt.Errorf("base: %w", err)
		}
	}
	return dict, nil
}

// readme is the text that someone who opens a delta finds first.
func readme(bases []Version, target Version) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "This is a Ferry delta. It turns\r\n")
	for _, v := range bases {
		fmt.Fprintf(&b, "  %s (manifest %s)\r\n", v.Label, v.Manifest.ID())
	}
	fmt.Fprintf(&b, "into\r\n  %s (manifest %s)\r\n\r\n", target.Label, target.Manifest.ID())
	b.WriteString("To make a new folder beside the old one:\r\n" +
		"  ferry delta apply FILE --base OLD-FOLDER --to NEW-FOLDER\r\n" +
		"To change a folder where it stands, with a way back (ferry delta undo FOLDER):\r\n" +
		"  ferry delta apply FILE --in-place FOLDER\r\n" +
		"To see what is in it:\r\n" +
		"  ferry delta inspect FILE\r\n" +
		"This file is a zip. Unpacked, its folder does as well as FILE, and apply.ps1\r\n" +
		"(Windows) or apply.sh in it takes the same options: it uses the ferry program\r\n" +
		"in tool, if this delta carries one.\r\n")
	return b.Bytes()
}
