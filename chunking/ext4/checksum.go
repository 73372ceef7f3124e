package ext4

import "hash/crc32"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// crc32c goes on with a checksum as the file system counts it: a start of all ones
// where there is none yet, and no inversion at the end.
func crc32c(sum uint32, b []byte) uint32 {
	return ^crc32.Update(^sum, castagnoli, b)
}

// crc32cNumbers goes on with little-endian 32-bit numbers.
func crc32cNumbers(sum uint32, numbers ...uint32) uint32 {
	var b [4]byte
	for _, n := range numbers {
		le.PutUint32(b[:], n)
		sum = crc32c(sum, b[:])
	}
	return sum
}

// crc32cWithout goes on with b, but as if the n bytes at each place were zero.
// The places ascend.
func crc32cWithout(sum uint32, b []byte, n int, places ...int) uint32 {
	var zero [8]byte
	from := 0
	for _, at := range places {
		sum = crc32c(sum, b[from:at])
		sum = crc32c(sum, zero[:n])
		from = at + n
	}
	return crc32c(sum, b[from:])
}

// crc16 is the CRC-16 with the reflected polynomial 0xA001, without inversions.
func crc16(sum uint16, b []byte) uint16 {
	for _, c := range b {
		sum ^= uint16(c)
		for range 8 {
			carry := sum & 1
			sum >>= 1
			if carry != 0 {
				sum ^= 0xA001
			}
		}
	}
	return sum
}

// descSum computes the checksum of a group descriptor.
func (fs *FS) descSum(g int64) uint16 {
	b := fs.desc(g)
	if fs.hasChecksums() {
		return uint16(crc32cWithout(crc32cNumbers(fs.seed, uint32(g)), b, 2, 0x1E))
	}
	var number [4]byte
	le.PutUint32(number[:], uint32(g))
	sum := crc16(^uint16(0), fs.super[0x68:0x78])
	sum = crc16(crc16(sum, number[:]), b[:0x1E])
	return crc16(sum, b[0x20:])
}

// bitmapSumMatches reports whether a bitmap has the checksum of its descriptor, of
// which small descriptors hold one half.
func (fs *FS) bitmapSumMatches(bitmap []byte, want uint32) bool {
	sum := crc32c(fs.seed, bitmap)
	if fs.descSize < 64 {
		sum &= 0xFFFF
	}
	return sum == want
}

// inodeSeed is where checksums of what belongs to an inode begin.
func (fs *FS) inodeSeed(in *inode) uint32 {
	return crc32cNumbers(fs.seed, in.num, in.generation)
}

// inodeSumMatches reports whether an inode has the right checksum.
func (fs *FS) inodeSumMatches(in *inode) bool {
	want := uint32(le.Uint16(in.raw[0x7C:]))
	if in.extra >= 4 { // the upper half is there
		want |= uint32(le.Uint16(in.raw[0x82:])) << 16
		return crc32cWithout(fs.inodeSeed(in), in.raw, 2, 0x7C, 0x82) == want
	}
	return crc32cWithout(fs.inodeSeed(in), in.raw, 2, 0x7C)&0xFFFF == want
}

// extentSumMatches reports whether a block of an extent tree has the right checksum.
// It stands behind as many entries as the block has room for.
func (fs *FS) extentSumMatches(in *inode, b []byte) bool {
	tail := 12 + 12*int(le.Uint16(b[4:]))
	if tail+4 > len(b) {
		return false
	}
	return crc32c(fs.inodeSeed(in), b[:tail]) == le.Uint32(b[tail:])
}

// attributeSumMatches reports whether a block of extended attributes has the right
// checksum.
func (fs *FS) attributeSumMatches(block int64, b []byte) bool {
	sum := crc32cNumbers(fs.seed, uint32(block), uint32(block>>32))
	return crc32cWithout(sum, b, 4, 0x10) == le.Uint32(b[0x10:])
}

// dirSum finds the checksum of a directory's block: behind its entries, or, in a
// block of the index, behind as many index entries as there is room for.
func (fs *FS) dirSum(in *inode, b []byte) (sum, want uint32, found bool) {
	if tail, ok := fs.dirTail(b); ok {
		return crc32c(fs.inodeSeed(in), b[:tail]), le.Uint32(b[tail+8:]), true
	}
	start, ok := fs.indexStart(b)
	if !ok {
		return 0, 0, false
	}
	limit, count := int(le.Uint16(b[start:])), int(le.Uint16(b[start+2:]))
	tail := start + 8*limit
	if count > limit || tail+8 > len(b) {
		return 0, 0, false
	}
	sum = crc32c(fs.inodeSeed(in), b[:start+8*count])
	return crc32cWithout(sum, b[tail:tail+8], 4, 4), le.Uint32(b[tail+4:]), true
}

// dirTail returns where the entry stands that is none but holds the checksum: in the
// last 12 bytes of a block.
func (fs *FS) dirTail(b []byte) (int, bool) {
	tail := len(b) - 12
	at := 0
	for at < tail {
		d, ok := fs.direntAt(b, at)
		if !ok {
			return 0, false
		}
		at += d.size
	}
	if at != tail || le.Uint32(b[tail:]) != 0 || le.Uint16(b[tail+4:]) != 12 ||
		le.Uint16(b[tail+6:]) != 0xDE00 {
		return 0, false
	}
	return tail, true
}

// indexStart returns where the index entries of a hashed directory begin in a block:
// behind an empty entry that fills it, or, in the root, behind the entries for the
// directory and its parent, and 8 bytes about the hash.
func (fs *FS) indexStart(b []byte) (int, bool) {
	first, ok := fs.direntAt(b, 0)
	if !ok {
		return 0, false
	}
	if first.size == len(b) && len(first.name) == 0 {
		return 8, true
	}
	if first.size != 12 {
		return 0, false
	}
	second, ok := fs.direntAt(b, 12)
	if !ok || second.size != len(b)-12 || le.Uint32(b[24:]) != 0 || b[29] != 8 {
		return 0, false
	}
	return 32, true
}
