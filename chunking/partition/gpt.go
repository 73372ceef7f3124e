package partition

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"strings"

	"ferry/chunking/ondisk"
)

const (
	gptSignature = "EFI PART"
	gptHeader    = 92   // bytes, UEFI 2.10 table 5-5
	gptEntry     = 128  // bytes at least, table 5-6
	maxEntries   = 1024 // of a GPT
	maxEntry     = 4096 // bytes
)

// header is one of the two headers of a GPT, with its entries. Numbers of sectors
// are at most 1<<50, so bytes do not overflow.
type header struct {
	lba         int64 // where it is
	alternate   int64 // where the other one is
	first, last int64 // sectors that partitions may have
	id          string
	entriesLBA  int64
	count, size int64 // of entries
	entries     []byte
}

// sectorAt returns the number of a sector.
func sectorAt(b []byte) int64 { return int64(min(le.Uint64(b), 1<<50)) }

// readHeader reads the header in a sector, and its entries. A problem says why it is
// damaged; then the header is nil, or what of it is right, without entries.
func (d *disk) readHeader(lba int64) (h *header, problem string, err error) {
	b, err := d.read(lba*d.sector, d.sector)
	if err != nil {
		return nil, "", err
	}
	size := int64(le.Uint32(b[12:]))
	switch {
	case string(b[:8]) != gptSignature:
		return nil, "no signature", nil
	case size < gptHeader || size > d.sector:
		return nil, fmt.Sprintf("header of %d bytes", size), nil
	}
	sum := le.Uint32(b[16:])
	clear(b[16:20])
	if crc32.ChecksumIEEE(b[:size]) != sum {
		return nil, "wrong checksum", nil
	}
	if revision := le.Uint32(b[8:]); revision>>16 != 1 {
		return nil, "", unsupported("GPT revision %#x", revision)
	}
	h = &header{
		lba:        sectorAt(b[24:]),
		alternate:  sectorAt(b[32:]),
		first:      sectorAt(b[40:]),
		last:       sectorAt(b[48:]),
		id:         ondisk.GUID(b[56:72]),
		entriesLBA: sectorAt(b[72:]),
		count:      int64(le.Uint32(b[80:])),
		size:       int64(le.Uint32(b[84:])),
	}
	switch {
	case h.lba != lba:
		return nil, fmt.Sprintf("header of sector %d", h.lba), nil
	case h.count > maxEntries || h.size < gptEntry || h.size > maxEntry || h.size&(h.size-1) != 0:
		return nil, "", unsupported("GPT with %d entries of %d bytes", h.count, h.size)
	case h.entriesLBA < 1 || h.entriesLBA >= d.sectors() || h.count*h.size > d.size-h.entriesLBA*d.sector:
		return h, fmt.Sprintf("entries at sector %d", h.entriesLBA), nil
	}
	entries, err := d.read(h.entriesLBA*d.sector, h.count*h.size)
	if err != nil {
		return nil, "", err
	}
	if crc32.ChecksumIEEE(entries) != le.Uint32(b[88:]) {
		return h, "wrong checksum of the entries", nil
	}
	h.entries = entries
	return h, "", nil
}

// readGPT reads the better copy of a GPT. UEFI 2.10 section 5.3.2: if the primary
// header is damaged, the backup is in the disk's last sector.
func (d *disk) readGPT() error {
	d.table.Scheme = GPT
	end := d.sectors() - 1
	primary, problem, err := d.readHeader(1)
	if err != nil {
		return err
	}
	at := end
	if primary != nil && primary.alternate != end {
		d.found(d.sector, "primary GPT: the backup is in sector %d, the disk's last is %d", primary.alternate, end)
		if primary.alternate > 1 && primary.alternate < end {
			at = primary.alternate
		}
	}
	backup, problem2, err := d.readHeader(at)
	if err != nil {
		return err
	}
	if problem != "" {
		d.found(d.sector, "primary GPT: %s", problem)
	}
	if problem2 != "" {
		d.found(at*d.sector, "backup GPT: %s", problem2)
	}
	h := primary
	switch {
	case problem != "" && problem2 != "":
		return invalid("primary GPT: %s, backup GPT: %s", problem, problem2)
	case problem != "":
		h, d.backupOnly = backup, true
	case problem2 == "":
		d.compare(primary, backup)
	}
	d.table.ID = h.id
	d.area("protective MBR", 0, d.sector)
	d.headerArea("primary GPT", 1, primary, problem)
	d.headerArea("backup GPT", at, backup, problem2)
	d.partitions(h)
	return nil
}

// headerArea adds the areas of a copy. A header that is damaged does not tell where
// its entries are.
func (d *disk) headerArea(name string, lba int64, h *header, problem string) {
	d.area(name+" header", lba*d.sector, d.sector)
	if problem != "" || h.count == 0 {
		return
	}
	off := h.entriesLBA * d.sector
	size := (h.count*h.size + d.sector - 1) / d.sector * d.sector
	d.area(name+" entries", off, min(size, d.size-off))
}

// compare finds where the copies differ.
func (d *disk) compare(primary, backup *header) {
	var differ []string
	for _, c := range []struct {
		name string
		same bool
	}{
		{"disk GUID", primary.id == backup.id},
		{"usable sectors", primary.first == backup.first && primary.last == backup.last},
		{"alternate sector", backup.alternate == primary.lba && primary.alternate == backup.lba},
		{"number of entries", primary.count == backup.count && primary.size == backup.size},
		{"entries", bytes.Equal(primary.entries, backup.entries)},
	} {
		if !c.same {
			differ = append(differ, c.name)
		}
	}
	if len(differ) > 0 {
		d.found(backup.lba*d.sector, "the copies of the GPT differ: %s", strings.Join(differ, ", "))
	}
}

func (d *disk) partitions(h *header) {
	for i := range h.count {
		e := h.entries[i*h.size:][:h.size]
		if bytes.Equal(e[:16], make([]byte, 16)) {
			continue
		}
		at := h.entriesLBA*d.sector + i*h.size
		first, last := sectorAt(e[32:]), sectorAt(e[40:])
		if first < 1 || first > last || last >= d.sectors() {
			d.found(at, "partition %d: sectors %d to %d, the disk has %d", i+1, first, last, d.sectors())
			continue
		}
		if first < h.first || last > h.last {
			d.found(at, "partition %d: sectors %d to %d, usable are %d to %d", i+1, first, last, h.first, h.last)
		}
		d.table.Partitions = append(d.table.Partitions, Partition{
			Number: int(i) + 1,
			Off:    first * d.sector,
			Size:   (last - first + 1) * d.sector,
			Type:   ondisk.GUID(e[:16]),
			ID:     ondisk.GUID(e[16:32]),
			Name:   ondisk.UTF16(e[56:128], le),
		})
	}
}
