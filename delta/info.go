package delta

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/klauspost/compress/zstd"

	"ferry/cas"
	"ferry/chunking/disk"
	"ferry/manifest"
	"ferry/manifest/guest"
	"ferry/manifest/tree"
)

// Info is delta.json: what a delta holds, for people and tools. Fields in CamelCase
// have the names and meaning that K2s' delta-manifest.json (2.0) gives them.
type Info struct {
	Format          string `json:"format"`
	ManifestVersion string `json:"ManifestVersion"`
	// GeneratedUtc is the time of the target's newest file: the same versions always give
	// the same delta.
	GeneratedUtc  string     `json:"GeneratedUtc"`
	BasePackage   string     `json:"BasePackage"`
	TargetPackage string     `json:"TargetPackage"`
	BaseVersion   string     `json:"BaseVersion"`
	TargetVersion string     `json:"TargetVersion"`
	Bases         []InfoSide `json:"bases"`
	Target        InfoSide   `json:"target"`
	Added         []string   `json:"Added"`
	Changed       []string   `json:"Changed"`
	Removed       []string   `json:"Removed"`
	AddedCount    int        `json:"AddedCount"`
	ChangedCount  int        `json:"ChangedCount"`
	RemovedCount  int        `json:"RemovedCount"`
	HashAlgorithm string     `json:"HashAlgorithm"`
	// WholeDirectories, Preserve and Mandatory are the texts of the rules that the delta
	// was made with; VersionFile is the path of the file that says what version a tree is.
	WholeDirectories         []string `json:"WholeDirectories"`
	WholeDirectoriesCount    int      `json:"WholeDirectoriesCount"`
	SpecialSkippedFiles      []string `json:"SpecialSkippedFiles"`
	SpecialSkippedFilesCount int      `json:"SpecialSkippedFilesCount"`
	Preserve                 []string `json:"Preserve,omitempty"`
	Mandatory                []string `json:"Mandatory,omitempty"`
	IgnoreCase               bool     `json:"ignore_case,omitempty"` // of the rules
	VersionFile              string   `json:"version_file,omitempty"`
	// DeltaType is "node-package" where the target is one, as K2s has it.
	DeltaType string `json:"DeltaType,omitempty"`
	// DebianPackageDiff is of the .deb files of a node package. Of the system in a disk
	// image, it and the next two are those of the image of the first of Guests.
	DebianPackageDiff  any              `json:"DebianPackageDiff"`
	ContainerImageDiff *guest.ImageDiff `json:"ContainerImageDiff"`
	GuestConfigDiff    *guest.FileDiff  `json:"GuestConfigDiff"`
	Guests             []GuestDiff      `json:"guests,omitempty"`

	Files       []InfoFile `json:"files"` // in delta.json in columns, see infofiles.go
	Unchanged   int        `json:"unchanged_files"`
	Meta        int        `json:"meta_files"` // of which only time or mode differ
	PayloadSize int64      `json:"payload_bytes"`
	// DeltaSize is not in the file itself: it is set by Create and Open.
	DeltaSize int64 `json:"delta_bytes,omitempty"`
	// FullSize is what the whole target takes, packed.
	FullSize      int64 `json:"full_bytes"`
	FullEstimated bool  `json:"full_is_estimated,omitempty"`
}

// InfoSide is a version that a delta starts from or leads to.
type InfoSide struct {
	Label    string     `json:"label"`
	Manifest cas.Digest `json:"manifest"`
	Files    int        `json:"files"`
	Size     int64      `json:"size_bytes"`
	Version  string     `json:"version,omitempty"` // what its version file says
}

// InfoFile says what one path of the target costs, and why.
type InfoFile struct {
	Path   string              `json:"path"`
	Change manifest.ChangeKind `json:"change"`
	From   string              `json:"from,omitempty"` // base path that it comes from
	Size   int64               `json:"size_bytes"`
	// Cost is its share of the payload in bytes; shared windows are divided by
	// the plain bytes that each file has in them.
	Cost int64 `json:"cost_bytes"`
	// Copied, Zero and New say where its bytes come from; they add up to Size, but
	// of a container file with deflated members, whose decoded bytes they count.
	Copied int64 `json:"copied_bytes"`
	Zero   int64 `json:"zero_bytes"`
	New    int64 `json:"new_bytes"`
	// How says in words how it is made.
	How string `json:"how"`
	// Members are those of a container file that cost something, the dearest first.
	Members []InfoMember `json:"members,omitempty"`
}

// InfoMember says what a member of a container file costs.
type InfoMember struct {
	// Name is its path in the container, a "!" behind each container around it;
	// empty of what stands between members.
	Name string `json:"name"`
	From string `json:"from,omitempty"` // where the base has what it is coded against
	Size int64  `json:"size_bytes"`
	Cost int64  `json:"cost_bytes"`
	How  string `json:"how"`
}

// infoFormat is the version of an Info as it is, with files in rows, and of older
// delta.json; infoColumnsFormat that of delta.json with files in columns.
const (
	infoFormat        = "ferry.delta/1"
	infoColumnsFormat = "ferry.delta/2"
)

func infoSide(v Version) InfoSide {
	return InfoSide{v.Label, v.Manifest.ID(), v.Manifest.Files(), v.Manifest.Size(), v.Number}
}

// info describes the delta, the changes being those against the first base.
func (c *creator) info() *Info {
	info := &Info{
		Format: infoFormat, ManifestVersion: "2.0", GeneratedUtc: c.target.newest().Format(time.RFC3339),
		BasePackage: c.bases[0].Label, TargetPackage: c.target.Label, HashAlgorithm: "BLAKE3",
		BaseVersion: cmp.Or(c.bases[0].Number, c.bases[0].Label), TargetVersion: cmp.Or(c.target.Number, c.target.Label), Target: infoSide(c.target),
		Added: []string{}, Changed: []string{}, Removed: []string{}, Files: []InfoFile{}, SpecialSkippedFiles: []string{},
		WholeDirectories: append([]string{}, c.opts.Rules.Wholesale...), WholeDirectoriesCount: len(c.opts.Rules.Wholesale),
		Preserve: c.opts.Rules.Preserve, Mandatory: c.opts.Rules.Mandatory, IgnoreCase: c.opts.Rules.IgnoreCase, VersionFile: c.opts.Rules.VersionFile,
	}
	for _, b := range c.bases {
		info.Bases = append(info.Bases, infoSide(b))
	}
	info.PayloadSize = c.payloadSize()
	programs := map[int]*program{} // for the first base, by entry
	for i, g := range c.plan.programs {
		if g.mask&1 != 0 {
			programs[g.entry] = &c.plan.programs[i]
		}
	}
	info.debian(c.upgrades, c.opts.Guests, c.target.Number)
	changes := upgraded(manifest.Diff(c.bases[0].Manifest, c.target.Manifest), c.upgrades)
	gone := func(e manifest.Entry) {
		if c.removes(0, e) {
			info.Removed = append(info.Removed, e.Path)
		}
	}
	for _, ch := range changes {
		switch ch.Kind {
		case manifest.Same:
			info.Unchanged++
			if !c.carried(ch.Target) {
				continue
			}
		case manifest.Removed:
			gone(ch.Base)
			continue
		case manifest.Meta: // the manifest says it all
			info.Meta++
			continue
		case manifest.Renamed:
			gone(ch.Base)
			info.Added = append(info.Added, ch.Target.Path)
		case manifest.Added:
			info.Added = append(info.Added, ch.Target.Path)
		case manifest.Copied:
			if _, ok := c.bases[0].Manifest.Find(ch.Target.Path); !ok {
				info.Added = append(info.Added, ch.Target.Path)
				break
			}
			info.Changed = append(info.Changed, ch.Target.Path)
		default:
			info.Changed = append(info.Changed, ch.Target.Path)
		}
		entry, _ := c.target.Manifest.Index(ch.Target.Path)
		info.Files = append(info.Files, c.infoFile(ch, entry, programs))
	}
	slices.Sort(info.Removed)
	info.AddedCount, info.ChangedCount, info.RemovedCount = len(info.Added), len(info.Changed), len(info.Removed)
	return info
}

// newest returns the time of the newest file, of 1970 when there is none.
func (v Version) newest() time.Time {
	newest := int64(0)
	for _, e := range v.Manifest.Entries {
		newest = max(newest, e.ModTime)
	}
	return time.Unix(newest, 0).UTC()
}

// upgraded makes one change of a Debian package that is removed in one release and
// added in another.
func upgraded(changes []manifest.Change, pairs []DebPair) []manifest.Change {
	added, removed := map[string]bool{}, map[string]bool{}
	for _, ch := range changes {
		switch ch.Kind {
		case manifest.Added:
			added[ch.Target.Path] = true
		case manifest.Removed:
			removed[ch.Base.Path] = true
		}
	}
	bases, gone := map[string]manifest.Entry{}, map[string]bool{} // by path of the target, and of the base
	for _, p := range pairs {
		if added[p.Target.Path] && removed[p.Base.Path] {
			bases[p.Target.Path], gone[p.Base.Path] = p.Base, true
		}
	}
	var out []manifest.Change
	for _, ch := range changes {
		base, ok := bases[ch.Target.Path]
		switch {
		case ch.Kind == manifest.Removed && gone[ch.Base.Path]:
			continue
		case ch.Kind == manifest.Added && ok:
			ch.Kind, ch.Base = manifest.Changed, base
		}
		out = append(out, ch)
	}
	return out
}

func (c *creator) infoFile(ch manifest.Change, entry int, programs map[int]*program) InfoFile {
	f := InfoFile{Path: ch.Target.Path, Change: ch.Kind, Size: ch.Target.Size, How: string(ch.Target.Type)}
	if ch.Kind != manifest.Added && ch.Base.Path != ch.Target.Path {
		f.From = ch.Base.Path
	}
	if ch.Target.Type != manifest.TypeFile {
		return f
	}
	f.How = "copied from the base"
	g := programs[entry]
	if g == nil { // stands in the base, only its mode or time differ
		f.Copied = f.Size
		return f
	}
	sum := c.sum(g)
	seen := map[int]bool{}
	eachOp(g.ops, func(o op) {
		if n := len(c.target.Manifest.Entries) + o.ref; o.kind == opStream && !seen[n] {
			seen[n] = true
			c.infoMember(&f, n, programs[n], &sum)
		}
	})
	slices.SortStableFunc(f.Members, func(a, b InfoMember) int { return -cmp.Compare(a.Cost, b.Cost) })
	f.Copied, f.Zero, f.New, f.Cost = sum.copied, sum.zero, sum.literal, sum.cost
	if ch.Kind == manifest.Added && f.From == "" && sum.dict {
		f.From = c.otherPath(sum.from, f.Path)
	}
	if f.New > 0 {
		f.How = joinKinds(sum.kinds, f.Copied > 0)
	}
	return f
}

// infoMember adds a stream of a container file to what is said of the file.
func (c *creator) infoMember(f *InfoFile, entry int, g *program, whole *costSum) {
	if g == nil {
		return
	}
	sum := c.sum(g)
	whole.copied, whole.zero, whole.literal, whole.cost = whole.copied+sum.copied, whole.zero+sum.zero, whole.literal+sum.literal, whole.cost+sum.cost
	for k := range sum.kinds {
		whole.kinds[k] = true
	}
	if sum.cost == 0 {
		return
	}
	m := InfoMember{Size: c.expanded.entries[entry].Size, Cost: sum.cost, How: joinKinds(sum.kinds, sum.copied > 0)}
	if sum.dict {
		if k, ok := c.matchers[0].byDig[c.plan.sources[sum.from].digest]; ok {
			m.From = label(c.matchers[0].base.entries[k].Path)
		}
	}
	p, _ := c.expanded.part(entry)
	if p.stream >= 0 {
		m.Name = c.expanded.recipes[p.file].Streams[p.stream].Name
	}
	if p.stream < 0 || m.From == label(c.expanded.entries[entry].Path) {
		m.From = ""
	}
	f.Members = append(f.Members, m)
}

// GuestDiff is what changed in the Linux system of a disk image.
type GuestDiff struct {
	Path string `json:"path"`
	*guest.Diff
}

// debian fills in what changed of Debian packages.
func (i *Info) debian(debs []DebPair, guests []GuestDiff, number string) {
	if d := debianDiff(debs); d != nil {
		i.DebianPackageDiff = d
		if number == "" && len(guests) == 0 {
			i.DeltaType = "node-package"
		}
	}
	if i.Guests = guests; len(guests) > 0 {
		d := guests[0].Diff
		i.DebianPackageDiff, i.ContainerImageDiff, i.GuestConfigDiff = d.DebianPackageDiff, &d.ContainerImageDiff, &d.GuestConfigDiff
	}
}

// Leftovers returns what the delta spends on free blocks of disk images, in bytes.
func (i *Info) Leftovers() (n int64) {
	for _, f := range i.Files {
		for _, m := range f.Members {
			if disk.IsFree(m.Name) {
				n += m.Cost
			}
		}
	}
	return n
}

// costSum sums up what instructions give and cost.
type costSum struct {
	copied, zero, literal, cost int64
	kinds                       map[string]bool
	from                        int  // source of the first window that is coded against one
	dict                        bool // there is such a one
}

// sum sums up a program, but for the streams that it names.
func (c *creator) sum(g *program) costSum {
	s := costSum{kinds: map[string]bool{}}
	eachOp(g.ops, func(o op) {
		switch o.kind {
		case opCopy:
			s.copied += o.size
		case opZero:
			s.zero += o.size
		case opWindow:
			w := c.plan.windows[o.ref]
			s.literal += o.size
			s.cost += int64(c.costs[o.ref]) * c.firstUse(o) / int64(w.plain)
			s.kinds[w.kind.String()] = true
			if len(w.dict) > 0 && !s.dict {
				s.from, s.dict = w.dict[0].source, true
			}
		}
	})
	return s
}

// firstUse returns how many of the bytes that an instruction takes of a window were not
// counted before: who takes them again pays nothing.
func (c *creator) firstUse(o op) int64 {
	counted := c.counted[o.ref]
	before := total(counted)
	counted = union(counted, extent{o.off, o.off + o.size})
	c.counted[o.ref] = counted
	return total(counted) - before
}

// otherPath returns where a source stands in the first base, if not at path.
func (c *creator) otherPath(source int, path string) string {
	if p := c.plan.sources[source].places[0].path; p != path {
		return p
	}
	return ""
}

func joinKinds(kinds map[string]bool, copies bool) string {
	var names []string
	for k := range kinds {
		names = append(names, k)
	}
	slices.Sort(names)
	text := ""
	if copies {
		text = "copies"
	}
	for _, n := range names {
		if text != "" {
			text += " + "
		}
		text += n
	}
	return text
}

// Dearest returns the n files that cost most.
func (i *Info) Dearest(n int) []InfoFile {
	files := slices.Clone(i.Files)
	slices.SortStableFunc(files, func(a, b InfoFile) int { return -cmp.Compare(a.Cost, b.Cost) })
	files = slices.DeleteFunc(files, func(f InfoFile) bool { return f.Cost == 0 })
	return files[:min(n, len(files))]
}

// Sampling of the estimate of a full package's size.
const (
	sampleSize  = 64 << 10
	sampleEvery = 2 << 20
)

// estimateFull estimates what the target takes when packed, from samples of
// every file.
func (c *creator) estimateFull(ctx context.Context) (int64, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault))
	if err != nil {
		return 0, err
	}
	defer enc.Close()
	sum := int64(0)
	for i, e := range c.target.Manifest.Entries {
		if e.Type != manifest.TypeFile || e.Size == 0 {
			continue
		}
		if r, err := c.target.Files.Recipe(ctx, e); err != nil {
			return 0, err
		} else if !r.Plain() {
			sum += e.Size // it is packed already
			continue
		}
		var sample bytes.Buffer
		err := c.fromTarget.With(ctx, strconv.Itoa(i), func(content tree.Content) error {
			buf := make([]byte, sampleSize)
			for off := int64(0); off < e.Size && sample.Len() < 64*sampleSize; off += sampleEvery {
				n, err := content.ReadAt(buf[:min(sampleSize, e.Size-off)], off)
				if n == 0 && err != nil {
					return err
				}
				sample.Write(buf[:n])
			}
			return ctx.Err()
		})
		if err != nil {
			return 0, err
		}
		packed := len(enc.EncodeAll(sample.Bytes(), nil))
		sum += int64(float64(e.Size) * float64(packed) / float64(sample.Len()))
	}
	return sum, nil
}
