// Package partition reads the partition table of a disk: GPT (UEFI Specification
// 2.10, chapter 5) and MBR with logical partitions.
//
// The bytes may be hostile. No input makes it panic or loop; it takes at most
// 16 MiB, for two copies of a GPT with 1024 entries of 4096 bytes each, usually
// 64 KiB. It reads the table only, nothing of the partitions.
package partition

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"ferry/chunking/ondisk"
)

var (
	// ErrFormat says that there is no partition table.
	ErrFormat = errors.New("partition: no partition table")
	// ErrUnsupported says that there is one, but not one that this package reads.
	ErrUnsupported = errors.New("partition: unsupported")
	// ErrInvalid says that there was one, and all copies of it are damaged.
	ErrInvalid = errors.New("partition: malformed")
)

// What [Table].Scheme may be.
const (
	GPT = "gpt"
	MBR = "mbr"
)

// Table is a disk's partition table.
type Table struct {
	Scheme string // [GPT] or [MBR]
	ID     string // of the disk: a GUID, or "0x" and eight digits
	// Partitions are in the order of their numbers. Each lies in the disk.
	Partitions []Partition
	// Areas are where the table itself is, in the order of the disk.
	Areas []Area
	// Overlap says that partitions or areas overlap, so that they do not tell whose
	// bytes those of the disk are. An extended partition is not counted: it holds
	// logical ones.
	Overlap bool

	findings []finding
}

// Partition is a run of the disk, in bytes.
type Partition struct {
	// Number is that of the entry, from 1 on. In an MBR 1 to 4 are primary, 5 and
	// more are logical partitions in the order of their chain.
	Number    int
	Off, Size int64
	Type      string // a GUID, as "c12a7328-f81f-11d2-ba4b-00a0c93ec93b", or "0x" and two digits
	Name      string // only in a GPT, may be empty
	ID        string // GUID of the partition, or the disk's ID and the number, as "1234abcd-02"
	Extended  bool   // it holds logical partitions, in an MBR
}

// Area is a run of the disk that belongs to the table, in bytes.
type Area struct {
	Name      string
	Off, Size int64
}

// finding is something that is not as it should be.
type finding struct {
	off  int64 // on the disk
	text string
}

var le = binary.LittleEndian

func invalid(format string, args ...any) error {
	return ondisk.Errorf("partition", ErrInvalid, format, args...)
}

func unsupported(format string, args ...any) error {
	return ondisk.Errorf("partition", ErrUnsupported, format, args...)
}

// disk is what a table is read from.
type disk struct {
	r      io.ReaderAt
	size   int64 // bytes, whole sectors
	sector int64 // bytes
	table  *Table

	backupOnly bool // the primary GPT is no good
}

func (d *disk) sectors() int64 { return d.size / d.sector }

// read returns n bytes from off on, which lie in the disk.
func (d *disk) read(off, n int64) ([]byte, error) {
	b := make([]byte, n)
	if got, err := d.r.ReadAt(b, off); int64(got) < n {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("partition: disk at %d: %w", off, err)
	}
	return b, nil
}

func (d *disk) found(off int64, format string, args ...any) {
	d.table.findings = append(d.table.findings, finding{off, fmt.Sprintf(format, args...)})
}

func (d *disk) area(name string, off, size int64) {
	d.table.Areas = append(d.table.Areas, Area{name, off, size})
}

// Read reads the table of a disk of size bytes with sectors of 512 or 4096 bytes. If
// a GPT's primary copy is damaged, the backup counts.
//
// The error is [ErrFormat] if there is no table, wraps [ErrUnsupported] or
// [ErrInvalid], or comes from r. A boot sector of a filesystem is no table.
func Read(r io.ReaderAt, size, sector int64) (*Table, error) {
	if sector != 512 && sector != 4096 {
		return nil, unsupported("sectors of %d bytes", sector)
	}
	if size < 2*sector {
		return nil, ErrFormat
	}
	d := &disk{r: r, size: size - size%sector, sector: sector, table: &Table{}}
	boot, err := d.read(0, 512)
	if err != nil {
		return nil, err
	}
	entries := mbrEntries(boot)
	switch {
	case slices.ContainsFunc(entries, mbrEntry.protective):
		err = d.readGPT()
	case d.isMBR(entries):
		err = d.readMBR(boot, entries)
	default:
		// A GPT whose protective MBR was lost is one if the rest is right.
		d.found(0, "protective MBR: none")
		// A backup alone may be what is left of another use of the disk.
		if err = d.readGPT(); errors.Is(err, ErrInvalid) || err == nil && d.backupOnly {
			err = ErrFormat
		}
	}
	if err != nil {
		return nil, err
	}
	d.finish()
	return d.table, nil
}

// finish sorts the table's areas and finds what overlaps.
func (d *disk) finish() {
	t := d.table
	slices.SortStableFunc(t.Areas, func(a, b Area) int { return cmp.Compare(a.Off, b.Off) })
	all := slices.Clone(t.Areas)
	for _, p := range t.Partitions {
		if !p.Extended {
			all = append(all, Area{fmt.Sprintf("partition %d", p.Number), p.Off, p.Size})
		}
	}
	slices.SortStableFunc(all, func(a, b Area) int { return cmp.Compare(a.Off, b.Off) })
	for i := 1; i < len(all); i++ {
		last := &all[i-1]
		if all[i].Off < last.Off+last.Size {
			t.Overlap = true
			d.found(all[i].Off, "%s overlaps %s", all[i].Name, last.Name)
			if last.Off+last.Size > all[i].Off+all[i].Size { // it may overlap the next one too
				all[i] = Area{last.Name, all[i].Off, last.Off + last.Size - all[i].Off}
			}
		}
	}
}

// Check reports what is not right with the table: damage of one copy of a GPT,
// copies that differ, a backup that is not at the disk's end, partitions that are not
// in the disk or overlap. Offsets are on the disk. An error of report ends it and is
// returned.
func (t *Table) Check(report func(off int64, text string) error) error {
	for _, f := range t.findings {
		if err := report(f.off, f.text); err != nil {
			return err
		}
	}
	return nil
}
