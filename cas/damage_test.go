package cas

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/cas/index"
	"ferry/cas/pack"
)

// damaged is a sound store of two versions, each with a pack and an index of its
// own, and of a pack that is doomed. The chunks of version a are stored as they
// are, those of b are compressed.
type damaged struct {
	*memory
	c              *catalogue
	packA, packB   string
	indexA, indexB string
	mark           string // of the doomed pack
}

func newDamaged(t *testing.T) *damaged {
	t.Helper()
	clock := newClock()
	d := &damaged{memory: newMemory(clock.now), c: newCatalogue()}
	create(t, d)
	a := versionOf(400)
	for seed := range uint64(4) {
		data := chunkOf(seed, 1000)[:500] // the half that does not compress
		a.chunks[Sum(data)] = data
	}
	d.packA, d.indexA = d.add(t, "a", a)
	d.packB, d.indexB = d.add(t, "b", versionOf(500, 11, 12, 13))
	d.add(t, "dead", versionOf(600, 21, 22, 23))
	d.c.remove("dead")
	clock.advance(time.Hour)
	mustPrune(t, d.c, d, PruneOptions{Grace: time.Hour, Now: clock.now})
	marks := d.names(doomedDir)
	if len(marks) != 1 {
		t.Fatalf("marks are %q, want one", marks)
	}
	d.mark = marks[0]
	return d
}

// add adds a version and returns its new pack and index.
func (d *damaged) add(t *testing.T, name string, v version) (packed, indexed string) {
	t.Helper()
	before := d.names("")
	mustAdd(t, d.c, d, name, v)
	for _, name := range d.names("") {
		switch {
		case slices.Contains(before, name):
		case strings.HasPrefix(name, packDir):
			packed = name
		case strings.HasPrefix(name, indexDir):
			indexed = name
		}
	}
	return packed, indexed
}

// swap exchanges the bytes of two objects.
func (d *damaged) swap(t *testing.T, a, b string) {
	t.Helper()
	var bytesOfA, bytesOfB []byte
	d.edit(t, a, func(b []byte) []byte { bytesOfA = b; return b })
	d.edit(t, b, func(b []byte) []byte { bytesOfB = b; return bytesOfA })
	d.edit(t, a, func([]byte) []byte { return bytesOfB })
}

// The ways in which an object is damaged.
func missing([]byte) []byte     { return nil }
func emptied([]byte) []byte     { return []byte{} }
func truncated(b []byte) []byte { return b[:len(b)/2] }
func lengthened(b []byte) []byte {
	return append(b, 0)
}
func foreign(b []byte) []byte { return bytes.Repeat([]byte("foreign "), len(b)/8+1)[:len(b)] }

// flip flips the lowest bit of a byte, counted from the end if off is negative.
func flip(off int) func([]byte) []byte {
	return func(b []byte) []byte {
		b[(off+len(b))%len(b)] ^= 1
		return b
	}
}

// flipEntry flips a bit of a field of the first entry of that kind.
func flipEntry(kind pack.Kind, field int) func([]byte) []byte {
	return func(b []byte) []byte {
		at := indexHead
		for pack.Kind(b[at+inEntryKind]) != kind {
			at += entrySize
		}
		return flip(at + field)(b)
	}
}

// flipDirectory flips a bit of the directory of a pack.
func flipDirectory(b []byte) []byte {
	return flip(int(binary.LittleEndian.Uint64(b[len(b)-16:])) + 10)(b)
}

// Offsets in an index of one pack and few entries, and in its entries.
const (
	indexHead     = 24 + 32 + 4 + 32
	entrySize     = 52
	inEntryKey    = 0
	inEntryPack   = 32
	inEntryFrame  = 36
	inEntryStored = 40
	inEntryOff    = 44
	inEntrySize   = 47
	inEntryCodec  = 50
	inEntryKind   = 51
)

// The kinds of problems, as the matrix lists them: hints are marked.
const hinted = "hint: "

func TestDamage(t *testing.T) {
	misplaced := []string{ProblemDamagedIndex, ProblemNotIndexed, ProblemWrongIndex}
	swapped := []string{
		ProblemDamagedPack, ProblemDamagedPack, ProblemNotIndexed, ProblemNotIndexed, ProblemWrongIndex, ProblemWrongIndex,
	}
	for _, test := range []struct {
		name       string
		damage     func(t *testing.T, d *damaged)
		open       error    // of Open; then nothing else is tried
		problems   []string // kinds, sorted
		unreadable string   // names of the versions that have lost something
		mended     bool     // by RepairIndex
	}{
		{name: "nothing", damage: func(*testing.T, *damaged) {}, mended: true},

		{name: "config missing", damage: edit(configName, missing), open: ErrNotFound},
		{name: "config empty", damage: edit(configName, emptied), open: ErrCorrupt},
		{name: "config truncated", damage: edit(configName, truncated), open: ErrCorrupt},
		{name: "config bit flipped", damage: edit(configName, flip(20)), open: ErrVersion},
		{name: "config foreign", damage: edit(configName, foreign), open: ErrCorrupt},
		{name: "config of an index", damage: swap(config, indexA), open: ErrCorrupt},

		{name: "pack missing", damage: editA(packA, missing), problems: []string{ProblemMissingPack}, unreadable: "a"},
		{name: "pack empty", damage: editA(packA, emptied), problems: []string{ProblemDamagedPack}, unreadable: "a"},
		{name: "pack truncated", damage: editA(packA, truncated), problems: []string{ProblemDamagedPack}, unreadable: "a"},
		{name: "pack lengthened", damage: editA(packA, lengthened), problems: []string{ProblemDamagedPack}},
		{name: "pack foreign", damage: editA(packA, foreign), problems: []string{ProblemDamagedPack}, unreadable: "a"},
		{name: "pack bit flipped in the magic", damage: editA(packA, flip(0)), problems: []string{ProblemDamagedPack}},
		{name: "pack bit flipped in a chunk", damage: editA(packA, flip(8)), problems: []string{ProblemDamagedChunk, ProblemDamagedPack}, unreadable: "a"},
		{name: "pack bit flipped in a frame", damage: editA(packB, flip(10)), problems: []string{ProblemDamagedChunk, ProblemDamagedChunk, ProblemDamagedChunk, ProblemDamagedPack}, unreadable: "b"},
		{name: "pack bit flipped in the directory", damage: editA(packA, flipDirectory), problems: []string{ProblemDamagedPack}},
		{name: "pack bit flipped in the footer", damage: editA(packA, flip(-20)), problems: []string{ProblemDamagedPack}},
		{name: "packs swapped", damage: swap(packA, packB), problems: swapped, unreadable: "ab"},

		{name: "index missing", damage: editA(indexA, missing), problems: []string{hinted + ProblemNotIndexed}, unreadable: "a", mended: true},
		{name: "index empty", damage: editA(indexA, emptied), open: ErrCorrupt, mended: true},
		{name: "index truncated", damage: editA(indexA, truncated), open: ErrCorrupt, mended: true},
		{name: "index lengthened", damage: editA(indexA, lengthened), open: ErrCorrupt, mended: true},
		{name: "index foreign", damage: editA(indexA, foreign), open: ErrCorrupt, mended: true},
		{name: "index bit flipped in the head", damage: editA(indexA, flip(30)), open: ErrCorrupt, mended: true},
		{name: "index bit flipped in a key", damage: editA(indexA, flipEntry(pack.Chunk, inEntryKey)), problems: misplaced, unreadable: "a", mended: true},
		{name: "index bit flipped in a frame offset", damage: editA(indexA, flipEntry(pack.Chunk, inEntryFrame)), problems: misplaced, unreadable: "a", mended: true},
		{name: "index bit flipped in a stored length", damage: editA(indexA, flipEntry(pack.Chunk, inEntryStored+2)), problems: misplaced, unreadable: "a", mended: true},
		{name: "index bit flipped in an offset", damage: editA(indexA, flipEntry(pack.Chunk, inEntryOff)), problems: misplaced, unreadable: "a", mended: true},
		{name: "index bit flipped in a size", damage: editA(indexA, flipEntry(pack.Chunk, inEntrySize)), problems: misplaced, unreadable: "a", mended: true},
		{name: "index bit flipped in a codec", damage: editA(indexA, flipEntry(pack.Chunk, inEntryCodec)), problems: misplaced, unreadable: "a", mended: true},
		{name: "index bit flipped in a kind", damage: editA(indexA, flipEntry(pack.Chunk, inEntryKind)), problems: misplaced, unreadable: "a", mended: true},
		{name: "index bit flipped in a pack number", damage: editA(indexA, flipEntry(pack.Chunk, inEntryPack)), problems: []string{ProblemDamagedIndex}, unreadable: "a", mended: true},
		{name: "index bit flipped in the kind of a record", damage: editA(indexA, flipEntry(pack.Record, inEntryKind)), problems: misplaced, mended: true},
		{name: "indexes swapped", damage: swap(indexA, indexB), problems: []string{ProblemDamagedIndex, ProblemDamagedIndex}, mended: true},
		{name: "index of another store", damage: editA(indexA, otherIndex), problems: []string{ProblemDamagedIndex, hinted + ProblemNotIndexed, ProblemMissingPack}, unreadable: "a", mended: true},

		{name: "mark missing", damage: editA(mark, missing), mended: true},
		{name: "mark foreign", damage: editA(mark, func([]byte) []byte { return []byte("foreign") }), mended: true},
		{name: "mark of another pack", damage: markOf(packA), mended: true},
		{name: "mark of no pack", damage: rename(mark, doomedDir+strings.Repeat("0", 64)), mended: true},

		{name: "foreign file among packs", damage: rename(mark, packDir+"readme"), problems: []string{hinted + ProblemForeignObject}, mended: true},
		{name: "pack in a wrong folder", damage: misfile, problems: []string{hinted + ProblemForeignObject, ProblemMissingPack}, unreadable: "a"},
		{name: "foreign file among indexes", damage: rename(mark, indexDir+"readme"), open: ErrCorrupt, mended: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := newDamaged(t)
			test.damage(t, d)
			wantDamage(t, d, test.open, test.problems, test.unreadable)
			if !test.mended {
				return
			}
			if _, err := RepairIndex(t.Context(), d, func(p Problem) { t.Errorf("RepairIndex found %s: %s", p.Kind, p.Detail) }); err != nil {
				t.Fatalf("RepairIndex: %v", err)
			}
			d.c.wantSound(t, d)
		})
	}
}

// The objects of a damaged store.
func config(*damaged) string   { return configName }
func packA(d *damaged) string  { return d.packA }
func packB(d *damaged) string  { return d.packB }
func indexA(d *damaged) string { return d.indexA }
func indexB(d *damaged) string { return d.indexB }
func mark(d *damaged) string   { return d.mark }

func edit(name string, fn func([]byte) []byte) func(*testing.T, *damaged) {
	return func(t *testing.T, d *damaged) { d.edit(t, name, fn) }
}

func editA(object func(*damaged) string, fn func([]byte) []byte) func(*testing.T, *damaged) {
	return func(t *testing.T, d *damaged) { d.edit(t, object(d), fn) }
}

func swap(a, b func(*damaged) string) func(*testing.T, *damaged) {
	return func(t *testing.T, d *damaged) { d.swap(t, a(d), b(d)) }
}

// markOf moves the mark to another pack.
func markOf(object func(*damaged) string) func(*testing.T, *damaged) {
	return func(t *testing.T, d *damaged) {
		rename(mark, doomedDir+object(d)[len(packDir+"ab/"):])(t, d)
	}
}

// misfile puts a pack into a folder that its name does not belong to.
func misfile(t *testing.T, d *damaged) {
	rename(packA, strings.Replace(d.packA, packDir, packDir+"x", 1))(t, d)
}

func rename(object func(*damaged) string, to string) func(*testing.T, *damaged) {
	return func(t *testing.T, d *damaged) {
		d.objects[to] = d.objects[object(d)]
		d.edit(t, object(d), missing)
	}
}

func otherIndex([]byte) []byte {
	data := chunkOf(1, 100)
	return index.Build([]index.Entry{{Key: Sum(data), Pack: Sum(nil), Kind: pack.Chunk, Frame: 8, Stored: 100, Size: 100}})
}

// wantDamage opens, checks and reads a damaged store.
func wantDamage(t *testing.T, d *damaged, wantOpen error, wantProblems []string, unreadable string) {
	t.Helper()
	s, err := Open(t.Context(), d)
	if err != nil || wantOpen != nil {
		if !errors.Is(err, wantOpen) {
			t.Errorf("Open = %v, want %v", err, wantOpen)
		}
		return
	}
	defer s.Close()
	var problems []string
	lost := map[Digest]bool{}
	_, err = s.Check(t.Context(), true, nil, func(p Problem) {
		kind := p.Kind
		if p.Hint {
			kind = hinted + kind
		}
		problems = append(problems, kind)
		if p.Key != nil {
			lost[*p.Key] = true
		}
	})
	if slices.Sort(problems); !slices.Equal(problems, wantProblems) || err != nil {
		t.Errorf("Check = %q, %v, want %q", problems, err, wantProblems)
	}
	for name, v := range d.c.snapshot() {
		failed := false
		for key, data := range v.chunks {
			s.frames = newFrameCache() // a frame at hand may hide damage
			got, err := s.Get(t.Context(), key)
			failed = failed || err != nil
			if lost[key] != (err != nil) && len(lost) > 0 {
				t.Errorf("Get(%s) = %v, Check called it lost: %v", key.Short(), err, lost[key])
			}
			if err == nil && !bytes.Equal(got, data) || err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNotFound) {
				t.Errorf("Get(%s) = %d bytes, %v, want the right %d bytes or that they are damaged or lost", key.Short(), len(got), err, len(data))
			}
		}
		for name, body := range v.records {
			got, err := s.Record(t.Context(), name)
			failed = failed || err != nil
			if err == nil && !bytes.Equal(got, body) || err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNotFound) {
				t.Errorf("Record(%s) = %d bytes, %v, want the right bytes or that they are damaged or lost", name.Short(), len(got), err)
			}
		}
		if failed != strings.Contains(unreadable, name) {
			t.Errorf("version %s has lost something: %v, want %v", name, failed, !failed)
		}
	}
}
