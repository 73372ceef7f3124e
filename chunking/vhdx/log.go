package vhdx

import (
	"fmt"
	"hash/crc32"
	"slices"

	"ferry/chunking/ondisk"
)

const (
	logSector      = 4 * kib
	maxLog         = 256 * mib // bytes of a log that is replayed
	maxDescriptors = 1 << 20
)

// replay lets f read as it will once the log that h tells of was replayed, and
// reports whether there was one. 2.3.3.
func replay(f *file, h header) (bool, error) {
	if h.logID == (guid{}) {
		return false, nil
	}
	if h.logVersion != 0 {
		return false, unsupported("log: version %d", h.logVersion)
	}
	if h.logSize > maxLog {
		return false, unsupported("log: %d bytes", h.logSize)
	}
	l := &ring{b: make([]byte, h.logSize), id: h.logID, budget: 8 * h.logSize}
	if err := ondisk.ReadFull(f.r, l.b, h.logOff); err != nil {
		return false, fmt.Errorf("vhdx: log: %w", err)
	}
	entries := l.active()
	if l.budget < 0 {
		return false, unsupported("log: its entries overlap too much")
	}
	if len(entries) == 0 {
		return false, invalid("log: no valid sequence of entries")
	}
	head := entries[len(entries)-1]
	if head.flushed > f.real {
		return false, invalid("log: the file had %d bytes and now has %d", head.flushed, f.real)
	}
	writes, err := l.writes(entries)
	if err != nil {
		return false, err
	}
	f.over = flatten(writes)
	f.size = max(f.real, head.last)
	if n := len(f.over); n > 0 {
		f.size = max(f.size, f.over[n-1].end())
	}
	return true, nil
}

// ring is the log's bytes. They are a multiple of 1 MiB, so a sector never wraps.
type ring struct {
	b      []byte
	id     guid
	budget int64 // bytes whose checksum may still be computed
}

// logEntry is an entry that is valid. 2.3.1.1.
type logEntry struct {
	at, size      int64 // where it stands in the log, multiples of 4 KiB
	tail          int64 // where its sequence begins
	sequence      uint64
	descriptors   int64
	flushed, last int64 // sizes of the file
}

// descriptor is a write that an entry tells of. 2.3.1.2 and 2.3.1.3.
type descriptor struct {
	off, size int64
	sector    []byte // of a data descriptor: its data sector
	desc      []byte // of a data descriptor: itself
}

func (l *ring) sector(at int64) []byte {
	at %= int64(len(l.b))
	return l.b[at:][:logSector]
}

// active returns the entries to be replayed: those of the newest sequence that is
// complete, from the tail to which its head points.
//
// The scan is that of 2.3.3. A chain is as many entries as follow one another. No
// entry begins inside a valid one, and a chain that lacks its tail lacks it from
// each of its entries on, so the scan goes on behind a chain: its cost is linear.
func (l *ring) active() []logEntry {
	var best []logEntry
	for at := int64(0); at < int64(len(l.b)) && l.budget >= 0; {
		chain, size := l.chain(at)
		if len(chain) == 0 {
			at += logSector
			continue
		}
		head := chain[len(chain)-1]
		tail := slices.IndexFunc(chain, func(e logEntry) bool { return e.at == head.tail })
		if tail >= 0 && (best == nil || head.sequence > best[len(best)-1].sequence) {
			best = chain[tail:]
		}
		at += size
	}
	return best
}

// chain returns the entries that follow one another from at on, and how many bytes
// they take.
func (l *ring) chain(at int64) (chain []logEntry, size int64) {
	for n := int64(len(l.b)); size < n; {
		e, ok := l.entry((at + size) % n)
		if !ok || e.size > n-size || len(chain) > 0 && e.sequence != chain[len(chain)-1].sequence+1 {
			break
		}
		chain = append(chain, e)
		size += e.size
	}
	return chain, size
}

// entry returns the entry that begins at a place, if a valid one does.
func (l *ring) entry(at int64) (e logEntry, ok bool) {
	h := l.sector(at)
	if string(h[:4]) != "loge" || guid(h[32:48]) != l.id {
		return e, false
	}
	flushed, last := le.Uint64(h[48:]), le.Uint64(h[56:])
	e = logEntry{
		at:          at,
		size:        int64(le.Uint32(h[8:])),
		tail:        int64(le.Uint32(h[12:])),
		sequence:    le.Uint64(h[16:]),
		descriptors: int64(le.Uint32(h[24:])),
		flushed:     int64(min(flushed, 1<<62)),
		last:        int64(min(last, 1<<62)),
	}
	n := int64(len(l.b))
	if e.size == 0 || e.size%logSector != 0 || e.size > n || e.tail%logSector != 0 || e.tail >= n ||
		e.sequence == 0 || e.flushed > maxFile || e.last > maxFile {
		return e, false
	}
	if !l.each(e, func(descriptor) error { return nil }) {
		return e, false
	}
	if l.budget -= e.size; l.budget < 0 {
		return e, false
	}
	return e, l.checksum(e) == le.Uint32(h[4:])
}

func (l *ring) checksum(e logEntry) uint32 {
	h := l.sector(e.at)
	sum := crc32.Update(0, castagnoli, h[:4])
	sum = crc32.Update(sum, castagnoli, make([]byte, 4))
	sum = crc32.Update(sum, castagnoli, h[8:])
	for at := int64(logSector); at < e.size; at += logSector {
		sum = crc32.Update(sum, castagnoli, l.sector(e.at+at))
	}
	return sum
}

// each gives the descriptors of an entry in their order. It returns false if one of
// them, or its data sector, is not right, or if fn fails.
func (l *ring) each(e logEntry, fn func(descriptor) error) bool {
	if e.descriptors > e.size/32 {
		return false
	}
	data := (64 + e.descriptors*32 + logSector - 1) / logSector * logSector // where data sectors begin
	if data > e.size {
		return false
	}
	for i := range e.descriptors {
		at := 64 + 32*i
		b := l.sector(e.at + at - at%logSector)[at%logSector:][:32]
		d := descriptor{size: logSector}
		switch string(b[:4]) {
		case "zero":
			d.size = int64(min(le.Uint64(b[8:]), 1<<62))
		case "desc":
			if data == e.size {
				return false
			}
			d.desc, d.sector = b, l.sector(e.at+data)
			data += logSector
			if string(d.sector[:4]) != "data" || le.Uint32(d.sector[4:]) != uint32(e.sequence>>32) ||
				le.Uint32(d.sector[logSector-4:]) != uint32(e.sequence) {
				return false
			}
		default:
			return false
		}
		d.off = int64(min(le.Uint64(b[16:]), 1<<62))
		// Headers are never written through the log.
		if d.off < tableOffs[0] || d.off > maxFile || d.size > maxFile-d.off || d.off%logSector != 0 || d.size%logSector != 0 ||
			le.Uint64(b[24:]) != e.sequence || fn(d) != nil {
			return false
		}
	}
	return true
}

// writes returns what entries write. It makes data sectors into what they write:
// their first 8 and last 4 bytes stand in the descriptor (2.3.1.3). After it the
// entries are not valid any more.
func (l *ring) writes(entries []logEntry) ([]write, error) {
	var writes []write
	errMany := unsupported("log: more than %d descriptors", maxDescriptors)
	for _, e := range entries {
		ok := l.each(e, func(d descriptor) error {
			if len(writes) == maxDescriptors {
				return errMany
			}
			if d.sector != nil {
				copy(d.sector, d.desc[8:16])
				copy(d.sector[logSector-4:], d.desc[4:8])
			}
			if d.size > 0 {
				writes = append(writes, write{off: d.off, size: d.size, data: d.sector, order: len(writes)})
			}
			return nil
		})
		if !ok {
			return nil, errMany // all else was checked before
		}
	}
	return writes, nil
}
