package codec

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// image is what is known of an executable or object file: where its bytes stand
// in memory. Addresses count from the image's base address; sections that have
// none (of object files, and those not loaded) are given addresses behind the
// loaded ones.
type image struct {
	machine  machine
	start    uint64 // base address, which absolute pointers include
	sections []section
	extent   uint32 // end of the last section, as an address

	inFile  sectionsByOffset // once asked for
	anchors []uint32         // once asked for
}

// machine is an instruction set whose references are known.
type machine uint8

const (
	noMachine machine = iota
	amd64
	i386
	arm64
)

// section is a run of bytes of a file with its place in memory.
type section struct {
	addr uint32
	size uint32 // in memory
	off  uint32 // in the file
	have uint32 // bytes in the file, at most size
	code bool
	// numbers says that the section is not loaded: what counts in it are numbers
	// rather than addresses. It is of use to the encoder only, and not coded.
	numbers bool
}

// maxSections bounds the table of an image.
const maxSections = 4096

// maxAddress bounds addresses, counted from the base address.
const maxAddress = 1 << 31

// parseImage recognises PE and ELF files ("PE Format", Microsoft; "System V ABI",
// chapter 4). It returns nil for anything else, or what is not sound.
func parseImage(b []byte) *image {
	if len(b) < 64 || len(b) > 1<<30 {
		return nil
	}
	var img *image
	switch {
	case bytes.HasPrefix(b, []byte("MZ")):
		img = parsePE(b)
	case bytes.HasPrefix(b, []byte("\x7fELF")):
		img = parseELF(b)
	}
	if img == nil || len(img.sections) == 0 {
		return nil
	}
	slices.SortStableFunc(img.sections, func(a, b section) int { return int(int64(a.addr) - int64(b.addr)) })
	// Sections that lie over each other would make addresses ambiguous.
	kept := img.sections[:0]
	for _, s := range img.sections {
		if n := len(kept); n > 0 && s.addr < kept[n-1].addr+kept[n-1].size {
			continue
		}
		kept = append(kept, s)
	}
	img.sections = kept
	last := kept[len(kept)-1]
	img.extent = last.addr + last.size
	return img
}

var le = binary.LittleEndian

func parsePE(b []byte) *image {
	at := int64(le.Uint32(b[60:]))
	if at+24+96 > int64(len(b)) || string(b[at:at+4]) != "PE\x00\x00" {
		return nil
	}
	h := b[at+4:]
	img := &image{}
	switch le.Uint16(h) {
	case 0x8664:
		img.machine = amd64
	case 0x14c:
		img.machine = i386
	case 0xaa64:
		img.machine = arm64
	}
	n, optSize := int(le.Uint16(h[2:])), int(le.Uint16(h[16:]))
	opt := h[20:]
	switch le.Uint16(opt) {
	case 0x20b:
		img.start = le.Uint64(opt[24:])
	case 0x10b:
		img.start = uint64(le.Uint32(opt[28:]))
	default:
		return nil
	}
	if n > maxSections || optSize+n*40 > len(opt) {
		return nil
	}
	for i := range n {
		s := opt[optSize+i*40:]
		sec := section{addr: le.Uint32(s[12:]), size: le.Uint32(s[8:]), off: le.Uint32(s[20:]), have: le.Uint32(s[16:]), code: le.Uint32(s[36:])&0x20000020 != 0}
		sec.size = max(sec.size, sec.have)
		img.add(b, sec)
	}
	return img
}

// add keeps a section if it lies within the file and the address space.
func (img *image) add(b []byte, s section) {
	if s.size == 0 || uint64(s.addr)+uint64(s.size) > maxAddress || uint64(s.off)+uint64(s.have) > uint64(len(b)) {
		return
	}
	img.sections = append(img.sections, s)
}

const (
	elfNoBits  = 8
	elfRel     = 1 // an object file
	elfAlloc   = 2 // flag of sections that are loaded
	elfExec    = 4 // flag of sections that hold code
	elfTLS     = 0x400
	elfSecSize = 64
)

func parseELF(b []byte) *image {
	if b[4] != 2 || b[5] != 1 { // 64 bits, little endian
		return nil
	}
	img := &image{}
	switch le.Uint16(b[18:]) {
	case 62:
		img.machine = amd64
	case 183:
		img.machine = arm64
	}
	at, n := le.Uint64(b[40:]), int(le.Uint16(b[60:]))
	if int(le.Uint16(b[58:])) != elfSecSize || n > maxSections || at > uint64(len(b)) || at+uint64(n*elfSecSize) > uint64(len(b)) {
		return nil
	}
	headers := b[at : at+uint64(n*elfSecSize)]
	// Addresses count from the page of the lowest section.
	low, high := ^uint64(0), uint64(0)
	object := le.Uint16(b[16:]) == elfRel
	each := func(do func(kind uint32, flags, addr, off, size uint64)) {
		for s := headers; len(s) > 0; s = s[elfSecSize:] {
			do(le.Uint32(s[4:]), le.Uint64(s[8:]), le.Uint64(s[16:]), le.Uint64(s[24:]), le.Uint64(s[32:]))
		}
	}
	loaded := func(flags, addr uint64) bool { return flags&elfAlloc != 0 && addr != 0 && !object }
	each(func(kind uint32, flags, addr, _, size uint64) {
		if loaded(flags, addr) && !(kind == elfNoBits && flags&elfTLS != 0) && size > 0 && size < maxAddress && addr+size > addr {
			low, high = min(low, addr), max(high, addr+size)
		}
	})
	if low < high {
		img.start = low &^ 0xfffff // 1 MiB: what comes before belongs to the same image
		if high-img.start > maxAddress {
			return nil
		}
		high -= img.start
	} else {
		high = 0
	}
	next := (high + 0xffff) &^ 0xffff
	each(func(kind uint32, flags, addr, off, size uint64) {
		if kind == elfNoBits && flags&elfTLS != 0 {
			return // lies over what comes next: each thread has its own
		}
		if kind == 0 || size == 0 || size > maxAddress || off > uint64(len(b)) {
			return
		}
		have := size
		if kind == elfNoBits {
			have, off = 0, 0
		}
		numbers := !loaded(flags, addr)
		if !numbers {
			addr -= img.start
		} else {
			addr = next
			next = (next + size + 0xfff) &^ 0xfff
		}
		if addr < maxAddress {
			img.add(b, section{addr: uint32(addr), size: uint32(size), off: uint32(off), have: uint32(have), code: flags&elfExec != 0, numbers: numbers})
		}
	})
	return img
}

// byOffset returns the sections that have bytes in the file, in its order and
// apart from each other.
func (img *image) byOffset() sectionsByOffset {
	if img.inFile != nil {
		return img.inFile
	}
	out := sectionsByOffset{}
	for _, s := range img.sections {
		if s.have > 0 {
			out = append(out, s)
		}
	}
	slices.SortStableFunc(out, func(a, b section) int { return int(int64(a.off) - int64(b.off)) })
	kept := out[:0]
	for _, s := range out {
		if n := len(kept); n > 0 && s.off < kept[n-1].off+kept[n-1].have {
			continue
		}
		kept = append(kept, s)
	}
	img.inFile = kept
	return kept
}

// encode appends the image's table, and takeImage reads it back.
func (img *image) encode(dst []byte) []byte {
	dst = append(dst, byte(img.machine))
	dst = binary.AppendUvarint(dst, img.start)
	dst = binary.AppendUvarint(dst, uint64(len(img.sections)))
	addr, off := uint32(0), uint32(0)
	for _, s := range img.sections {
		code := uint64(0)
		if s.code {
			code = 1
		}
		dst = binary.AppendUvarint(dst, uint64(s.addr-addr)<<1|code)
		dst = binary.AppendUvarint(dst, uint64(s.size))
		dst = binary.AppendUvarint(dst, uint64(s.size-s.have))
		dst = binary.AppendVarint(dst, int64(s.off)-int64(off))
		addr, off = s.addr+s.size, s.off+s.have
	}
	return dst
}

// takeImage reads the table of an image whose file has size bytes.
func takeImage(r *reader, size int) *image {
	img := &image{machine: machine(r.byte()), start: r.uvarint()}
	n := r.upTo(maxSections)
	addr, off := uint64(0), int64(0)
	for range n {
		v := r.uvarint()
		length, rest, step := r.uvarint(), r.uvarint(), r.varint()
		addr += v >> 1
		off += step
		if r.err != nil || v > 1<<33 || addr > maxAddress || length > maxAddress || addr+length > maxAddress || rest > length || off < 0 || off > int64(size) || int64(length-rest) > int64(size)-off {
			r.fail("section outside its image")
			return nil
		}
		s := section{addr: uint32(addr), size: uint32(length), off: uint32(off), have: uint32(length - rest), code: v&1 != 0}
		img.sections = append(img.sections, s)
		addr += length
		off += int64(s.have)
		img.extent = uint32(addr)
	}
	if n == 0 {
		r.fail("image without sections")
		return nil
	}
	return img
}
