package vhdx

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"ferry/chunking/ondisk"
)

// Known regions. 2.2.3.2.
var (
	batRegion      = mustGUID("2DC27766-F623-4200-9D64-115E9BFD4A08")
	metadataRegion = mustGUID("8B7CA206-4790-4B9A-B8FE-575F050F886E")
)

// Known metadata items. 2.6.2.
var (
	fileParametersItem = mustGUID("CAA16737-FA36-4D43-B3B6-33F0AA44E76B")
	diskSizeItem       = mustGUID("2FA54224-CD1B-4876-B211-5DBED83BF4B8")
	diskIDItem         = mustGUID("BECA12AB-B2E6-4523-93EF-C309E000C746")
	logicalSectorItem  = mustGUID("8141BF1D-A96F-4709-BA47-F233A8FAAB5F")
	physicalSectorItem = mustGUID("CDA348C7-445D-4471-9CC9-E9885251C556")
	parentLocatorItem  = mustGUID("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C")

	vhdxLocator = mustGUID("B04AEFB7-D19E-4A81-B789-25B8E9445913") // 2.6.2.6.3
)

const (
	maxEntries = 2047    // of a region table or metadata table
	maxDisk    = 1 << 46 // 64 TiB, 2.6.2.2
	minBlock   = mib     // 2.6.2.1
	maxBlock   = 256 * mib

	flagUser     = 1 // of a metadata item, 2.6.1.2
	flagDisk     = 2
	flagRequired = 4

	flagAllocated = 1 // of the file parameters, 2.6.2.1
	flagParent    = 2
)

// region is a range of the file that a region table tells of.
type region struct {
	id        guid
	off, size int64
}

func (r region) name() string {
	switch r.id {
	case batRegion:
		return "block allocation table"
	case metadataRegion:
		return "metadata"
	}
	return "region " + r.id.String()
}

// readTable reads region table i. A problem says why it is not valid.
func readTable(f *file, i int) (raw []byte, problem string, err error) {
	b := make([]byte, tableSize)
	if err := ondisk.ReadFull(f, b, tableOffs[i]); err != nil {
		return nil, "", fmt.Errorf("vhdx: region table %d: %w", i+1, err)
	}
	switch {
	case string(b[:4]) != "regi":
		return nil, "wrong signature", nil
	case le.Uint32(b[4:]) != checksum(b):
		return nil, "wrong checksum", nil
	case le.Uint32(b[8:]) > maxEntries:
		return nil, fmt.Sprintf("%d entries", le.Uint32(b[8:])), nil
	}
	return b, "", nil
}

// readRegions returns the regions of the first valid table, in the order of the
// file. They do not overlap one another or the log.
func readRegions(f *file, h header) ([]region, error) {
	var problems []string
	for i := range tableOffs {
		b, problem, err := readTable(f, i)
		if err != nil {
			return nil, err
		}
		if problem == "" {
			return parseRegions(f, h, b)
		}
		problems = append(problems, fmt.Sprintf("region table %d: %s", i+1, problem))
	}
	return nil, invalid("%s", strings.Join(problems, ", "))
}

func parseRegions(f *file, h header, table []byte) ([]region, error) {
	var all []region
	if h.logSize > 0 {
		all = append(all, region{off: h.logOff, size: h.logSize})
	}
	seen := map[guid]bool{}
	for i := range int(le.Uint32(table[8:])) {
		b := table[16+32*i:][:32]
		r := region{id: guid(b[:16]), off: int64(min(le.Uint64(b[16:]), 1<<62)), size: int64(le.Uint32(b[24:]))}
		known := r.id == batRegion || r.id == metadataRegion
		switch required := le.Uint32(b[28:])&1 != 0; {
		case seen[r.id]:
			return nil, invalid("region table entry %d: %s is there twice", i, r.name())
		case !known && required:
			return nil, unsupported("%s is required", r.name())
		case !known && r.size == 0:
			continue
		}
		if problem := rangeProblem(f, r.off, r.size); problem != "" {
			return nil, invalid("%s: %s", r.name(), problem)
		}
		seen[r.id] = true
		all = append(all, r)
	}
	if !seen[batRegion] || !seen[metadataRegion] {
		return nil, invalid("region table: no metadata or no block allocation table")
	}
	slices.SortFunc(all, func(a, b region) int { return cmp.Compare(a.off, b.off) })
	for i := 1; i < len(all); i++ {
		if all[i].off < all[i-1].off+all[i-1].size {
			return nil, invalid("regions overlap at the offset %d", all[i].off)
		}
	}
	return slices.DeleteFunc(all, func(r region) bool { return r.id == guid{} }), nil
}

func find(regions []region, id guid) region {
	return regions[slices.IndexFunc(regions, func(r region) bool { return r.id == id })]
}

// metadata is what the metadata items say. 2.6.
type metadata struct {
	diskSize          int64
	blockSize         int64
	logical, physical int64 // sector sizes
	id                guid
	allocated         bool         // a fixed image
	hasParent         bool         // a differencing image
	parent            *ParentError // of the parent locator
}

// item is an entry of the metadata table. 2.6.1.2.
type item struct {
	id        guid
	off, size int64 // a range of the region
	flags     uint32
}

func readItems(r io.ReaderAt, region region) ([]item, error) {
	table := make([]byte, tableSize)
	if err := ondisk.ReadFull(r, table, region.off); err != nil {
		return nil, fmt.Errorf("vhdx: metadata: %w", err)
	}
	if string(table[:8]) != "metadata" {
		return nil, invalid("metadata: wrong signature")
	}
	n := int(le.Uint16(table[10:]))
	if n > maxEntries {
		return nil, invalid("metadata: %d entries", n)
	}
	items := make([]item, n)
	for i := range items {
		b := table[32+32*i:][:32]
		it := item{id: guid(b[:16]), off: int64(le.Uint32(b[16:])), size: int64(le.Uint32(b[20:])), flags: le.Uint32(b[24:])}
		if it.size > mib || it.size > 0 && (it.off < tableSize || it.off > region.size-it.size) {
			return nil, invalid("metadata item %s: %d bytes at %d", it.id, it.size, it.off)
		}
		items[i] = it
	}
	return items, nil
}

func readMetadata(r io.ReaderAt, region region) (m metadata, err error) {
	items, err := readItems(r, region)
	if err != nil {
		return m, err
	}
	known := m.items()
	seen := map[guid]bool{}
	for _, it := range items {
		k := slices.IndexFunc(known, func(k knownItem) bool { return k.id == it.id })
		switch {
		case it.flags&flagUser != 0 || k < 0:
			if it.flags&flagRequired != 0 {
				return m, unsupported("metadata item %s is required", it.id)
			}
			continue
		case seen[it.id]:
			return m, invalid("metadata item %s is there twice", it.id)
		case it.size < known[k].size:
			return m, invalid("metadata item %s: %d bytes", it.id, it.size)
		}
		seen[it.id] = true
		b := make([]byte, it.size) // at most 1 MiB
		if err := ondisk.ReadFull(r, b, region.off+it.off); err != nil {
			return m, fmt.Errorf("vhdx: metadata item %s: %w", it.id, err)
		}
		if err := known[k].parse(b); err != nil {
			return m, err
		}
	}
	for _, k := range known {
		if k.id != parentLocatorItem && !seen[k.id] {
			return m, invalid("metadata item %s is missing", k.id)
		}
	}
	err = m.check()
	return m, err
}

// knownItem is a metadata item that this package understands.
type knownItem struct {
	id    guid
	size  int64 // at least, in bytes
	parse func([]byte) error
}

func (m *metadata) items() []knownItem {
	return []knownItem{
		{fileParametersItem, 8, func(b []byte) error {
			flags := le.Uint32(b[4:])
			m.blockSize = int64(le.Uint32(b))
			m.allocated, m.hasParent = flags&flagAllocated != 0, flags&flagParent != 0
			return nil
		}},
		{diskSizeItem, 8, func(b []byte) error {
			m.diskSize = int64(min(le.Uint64(b), 1<<62))
			return nil
		}},
		{diskIDItem, 16, func(b []byte) error {
			m.id = guid(b[:16])
			return nil
		}},
		{logicalSectorItem, 4, func(b []byte) error {
			m.logical = int64(le.Uint32(b))
			return nil
		}},
		{physicalSectorItem, 4, func(b []byte) error {
			m.physical = int64(le.Uint32(b))
			return nil
		}},
		{parentLocatorItem, 20, m.locator},
	}
}

func (m *metadata) check() error {
	switch {
	case m.blockSize < minBlock || m.blockSize > maxBlock || m.blockSize&(m.blockSize-1) != 0:
		return invalid("block size %d", m.blockSize)
	case m.logical != 512 && m.logical != 4096:
		return invalid("logical sector size %d", m.logical)
	case m.physical != 512 && m.physical != 4096:
		return invalid("physical sector size %d", m.physical)
	case m.diskSize > maxDisk || m.diskSize%m.logical != 0:
		return invalid("virtual disk size %d", m.diskSize)
	case m.hasParent && m.parent == nil:
		return invalid("a differencing image without a parent locator")
	}
	return nil
}

// maxKey bounds the keys that are looked at in a parent locator, in bytes.
const maxKey = 64

// locator reads a parent locator. 2.6.2.6.
func (m *metadata) locator(b []byte) error {
	if guid(b[:16]) != vhdxLocator {
		return unsupported("parent locator of the type %s", guid(b[:16]))
	}
	inside := func(off uint32, size uint16) bool { return int64(off)+int64(size) <= int64(len(b)) }
	values := map[string]string{"parent_linkage": "", "relative_path": "", "volume_path": "", "absolute_win32_path": ""}
	for i := range int(le.Uint16(b[18:])) {
		if 20+12*(i+1) > len(b) {
			return invalid("parent locator entry %d: outside the item", i)
		}
		e := b[20+12*i:]
		key, keySize, value, valueSize := le.Uint32(e), le.Uint16(e[8:]), le.Uint32(e[4:]), le.Uint16(e[10:])
		if !inside(key, keySize) || !inside(value, valueSize) {
			return invalid("parent locator entry %d: outside the item", i)
		}
		if keySize > maxKey {
			continue
		}
		// A key is taken once, so a hostile item costs little.
		name := ondisk.UTF16(b[key:][:keySize], le)
		if v, known := values[name]; known && v == "" {
			values[name] = ondisk.UTF16(b[value:][:valueSize], le)
		}
	}
	m.parent = &ParentError{ID: strings.ToLower(strings.Trim(values["parent_linkage"], "{}"))}
	for _, key := range []string{"relative_path", "volume_path", "absolute_win32_path"} {
		if path := values[key]; path != "" {
			m.parent.Paths = append(m.parent.Paths, path)
		}
	}
	return nil
}
