package fat

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf16"

	"ferry/chunking/ondisk"
)

// Node is a file or a directory.
type Node struct {
	Path    string // with slashes, "." for the root directory
	IsDir   bool
	Size    int64     // bytes; 0 for a directory
	ModTime time.Time // to 2 seconds, the local time of its writer taken for UTC; may be zero
	// Extents are where the bytes are, in the order of the file. Those of a file have
	// Size bytes, those of a directory whole clusters.
	Extents []Extent
}

// Extent is a run of a file's bytes.
type Extent struct {
	File, Disk int64 // where it is in the file, and on the volume
	Size       int64
}

// Area is a run of the volume that is not of a file, in bytes.
type Area struct {
	Name      string
	Off, Size int64
}

const (
	entrySize    = 32      // bytes of a directory entry, "FAT Directory Structure"
	maxDirectory = 2 << 20 // bytes of a directory: 65,536 entries
	maxDepth     = 128     // of directories in one another

	attrVolume    = 0x08
	attrDirectory = 0x10
	attrLong      = 0x0f // of an entry that is a part of a long name
	attrMask      = 0x3f
)

// directory is one that is still to be read.
type directory struct {
	node  *Node
	depth int
}

// Walk gives all files and directories to fn: a directory, its files, then its
// directories, each in the order in which they stand. The error wraps [ErrInvalid]
// if the filesystem is malformed, which may be found late; an error of fn or of ctx
// is returned as it is.
func (v *Volume) Walk(ctx context.Context, fn func(*Node) error) error {
	w := &walk{Volume: v, fn: fn, used: make([]uint64, (v.clusters+2+63)/64)}
	root := &Node{Path: ".", IsDir: true}
	if v.rootSize > 0 {
		root.Extents = []Extent{{Disk: v.root, Size: v.rootSize}}
	} else {
		var err error
		if root.Extents, err = w.chain(v.first, -1); err != nil {
			return err
		}
	}
	todo := []directory{{root, 0}}
	for len(todo) > 0 {
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		below, err := w.directory(ctx, d)
		if err != nil {
			return err
		}
		slices.Reverse(below)
		todo = append(todo, below...)
	}
	return nil
}

type walk struct {
	*Volume
	fn   func(*Node) error
	used []uint64 // a bit for each cluster that was met
}

// chain returns the runs of a chain of clusters: up to size bytes of it, all of it if
// size is negative.
func (w *walk) chain(first, size int64) (extents []Extent, err error) {
	at := int64(0)
	for c := first; c != entryEnd; c = w.entry(c) {
		if !w.isCluster(c) {
			return nil, invalid("chain from cluster %d: it goes on with %d", first, c)
		}
		bit := uint64(1) << (c % 64)
		if w.used[c/64]&bit != 0 {
			return nil, invalid("chain from cluster %d: %d is there twice", first, c)
		}
		w.used[c/64] |= bit
		n := w.cluster
		if size >= 0 {
			n = min(n, size-at)
		}
		if n > 0 {
			if k := len(extents); k > 0 && extents[k-1].Disk+extents[k-1].Size == w.offset(c) {
				extents[k-1].Size += n
			} else {
				extents = append(extents, Extent{File: at, Disk: w.offset(c), Size: n})
			}
			at += n
		}
	}
	if at < size {
		return nil, invalid("chain from cluster %d: %d bytes, a file has %d", first, at, size)
	}
	return extents, nil
}

// directory gives a directory and its files, and returns the directories in it.
func (w *walk) directory(ctx context.Context, d directory) (below []directory, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b, err := w.read(d.node)
	if err != nil {
		return nil, err
	}
	if err := w.fn(d.node); err != nil {
		return nil, err
	}
	var long longName
	for ; len(b) >= entrySize && b[0] != 0; b = b[entrySize:] {
		e := b[:entrySize]
		attr := e[11] & attrMask
		switch {
		case e[0] == 0xe5: // it was removed
			long = longName{}
			continue
		case attr == attrLong:
			long.add(e)
			continue
		case attr&attrVolume != 0 || e[0] == '.':
			long = longName{}
			continue
		}
		name := long.name(e)
		long = longName{}
		if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
			return nil, invalid("directory %q: a file of the name %q", d.node.Path, name)
		}
		n, err := w.node(e, attr)
		if err != nil {
			return nil, fmt.Errorf("%w, file %q in %q", err, name, d.node.Path)
		}
		if n.Path = name; d.node.Path != "." {
			n.Path = d.node.Path + "/" + name
		}
		if n.IsDir {
			if d.depth == maxDepth {
				return nil, invalid("more than %d directories in one another", maxDepth)
			}
			below = append(below, directory{n, d.depth + 1})
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := w.fn(n); err != nil {
			return nil, err
		}
	}
	return below, nil
}

// read returns a directory's bytes.
func (w *walk) read(n *Node) ([]byte, error) {
	size := int64(0)
	for _, e := range n.Extents {
		size += e.Size
	}
	if size > maxDirectory {
		return nil, invalid("directory %q: %d bytes", n.Path, size)
	}
	b := make([]byte, size)
	for _, e := range n.Extents {
		if err := ondisk.ReadFull(w.r, b[e.File:][:e.Size], e.Disk); err != nil {
			return nil, fmt.Errorf("fat: directory %q: %w", n.Path, err)
		}
	}
	return b, nil
}

// node returns what a directory entry is, without its path.
func (w *walk) node(e []byte, attr byte) (*Node, error) {
	n := &Node{IsDir: attr&attrDirectory != 0, ModTime: modTime(le.Uint16(e[24:]), le.Uint16(e[22:]))}
	first, size := int64(le.Uint16(e[26:])), int64(-1)
	if w.bits == 32 {
		first |= int64(le.Uint16(e[20:])) << 16
	}
	if !n.IsDir {
		n.Size = int64(le.Uint32(e[28:]))
		size = n.Size
	}
	if first == 0 && size == 0 { // nothing was ever written
		return n, nil
	}
	var err error
	n.Extents, err = w.chain(first, size)
	return n, err
}

// modTime returns a time. "Date and Time Formats".
func modTime(date, clock uint16) time.Time {
	if date == 0 {
		return time.Time{}
	}
	return time.Date(1980+int(date>>9), time.Month(date>>5&15), int(date&31),
		int(clock>>11), int(clock>>5&63), 2*int(clock&31), 0, time.UTC)
}

// longName collects the entries of a long name, which stand before that of the file,
// the last part first. "FAT Long Directory Entries".
type longName struct {
	units    []uint16
	next     byte // number of the part that is to follow; 0 when all are there
	checksum byte // of the short name
	ok       bool
}

// add adds a part; what is out of order makes no long name.
func (l *longName) add(e []byte) {
	number := e[0] & 0x3f
	if e[0]&0x40 != 0 && number >= 1 && number <= 20 {
		*l = longName{next: number, checksum: e[13], ok: true}
	}
	if !l.ok || number != l.next || number == 0 || e[13] != l.checksum {
		*l = longName{}
		return
	}
	var part []uint16
	for _, at := range []int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30} {
		part = append(part, le.Uint16(e[at:]))
	}
	l.units = append(part, l.units...)
	l.next--
}

// name returns the name of a file, its long one if there is one that is its.
func (l *longName) name(e []byte) string {
	sum := byte(0)
	for _, c := range e[:11] {
		sum = sum>>1 | sum<<7
		sum += c
	}
	if !l.ok || l.next != 0 || l.checksum != sum {
		return shortName(e)
	}
	units := l.units
	if end := slices.Index(units, 0); end >= 0 {
		units = units[:end]
	}
	return string(utf16.Decode(units))
}

// shortName returns a name of 8 and 3 characters. Bits 3 and 4 of byte 12 say that
// name and extension are in small letters.
func shortName(e []byte) string {
	raw := slices.Clone(e[:11])
	if raw[0] == 0x05 {
		raw[0] = 0xe5
	}
	name, ext := decode437(raw[:8]), decode437(raw[8:])
	if e[12]&0x08 != 0 {
		name = strings.ToLower(name)
	}
	if e[12]&0x10 != 0 {
		ext = strings.ToLower(ext)
	}
	if ext != "" {
		name += "." + ext
	}
	return name
}

// code437 are the characters from 128 on of code page 437, which is what most
// systems write short names in.
var code437 = []rune("ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐" +
	"└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u00a0")

func decode437(b []byte) string {
	var s strings.Builder
	for _, c := range b {
		if c < 128 {
			s.WriteByte(c)
		} else {
			s.WriteRune(code437[c-128])
		}
	}
	return strings.TrimRight(s.String(), " ")
}

// Areas returns what of the volume is not of a file: the reserved sectors with the
// boot sector, the FATs, and the directories. It walks all of it; errors are as with
// [Volume.Walk]. They are in the order of the volume and do not overlap.
func (v *Volume) Areas(ctx context.Context) ([]Area, error) {
	areas := []Area{{"reserved sectors", 0, v.reserved}}
	for i := range v.fats {
		areas = append(areas, Area{fmt.Sprintf("FAT %d", i+1), v.reserved + i*v.fatSize, v.fatSize})
	}
	err := v.Walk(ctx, func(n *Node) error {
		if n.IsDir {
			for _, e := range n.Extents {
				areas = append(areas, Area{"directory " + n.Path, e.Disk, e.Size})
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(areas, func(a, b Area) int { return cmp.Compare(a.Off, b.Off) })
	return areas, nil
}
