package lz4

import "encoding/binary"

// The block format ("LZ4 Block Format Description"): sequences of a token, whose halves
// are the length of literals and that of a match less 4, 15 meaning that more bytes are
// added; literals; and how far back the match is. The last sequence has literals only.
const (
	minMatch   = 4
	longLength = 15 // in a half of a token: more follows
)

// decodeBlock appends at most blockSize bytes that a block decodes to.
func decodeBlock(dst, src []byte) (out []byte, ok bool) {
	start := len(dst)
	length := func(n int) int {
		for n >= longLength && len(src) > 0 && n <= blockSize {
			b := src[0]
			src = src[1:]
			if n += int(b); b < 255 {
				return n
			}
		}
		return blockSize + 1
	}
	for len(src) > 0 {
		token := src[0]
		src = src[1:]
		n := int(token >> 4)
		if n == longLength {
			n = length(n)
		}
		if n > len(src) || n > blockSize-(len(dst)-start) {
			return dst, false
		}
		dst = append(dst, src[:n]...)
		src = src[n:]
		if len(src) == 0 {
			return dst, true
		}
		if len(src) < 2 {
			return dst, false
		}
		back := int(binary.LittleEndian.Uint16(src))
		src = src[2:]
		if n = int(token & 15); n == longLength {
			n = length(n)
		}
		n += minMatch
		if back == 0 || back > len(dst)-start || n > blockSize-(len(dst)-start) {
			return dst, false
		}
		for n > 0 { // a match may reach into itself
			k := min(n, back)
			dst = append(dst, dst[len(dst)-back:][:k]...)
			n -= k
		}
	}
	return dst, false
}

// appendSequence appends a sequence; a match of no length ends the block.
func appendSequence(dst, literals []byte, back, n int) []byte {
	token := byte(min(len(literals), longLength)) << 4
	if n > 0 {
		token |= byte(min(n-minMatch, longLength))
	}
	dst = append(dst, token)
	dst = appendLength(dst, len(literals))
	dst = append(dst, literals...)
	if n == 0 {
		return dst
	}
	dst = binary.LittleEndian.AppendUint16(dst, uint16(back))
	return appendLength(dst, n-minMatch)
}

// appendLength appends what of a length is not in the token.
func appendLength(dst []byte, n int) []byte {
	if n < longLength {
		return dst
	}
	for n -= longLength; n >= 255; n -= 255 {
		dst = append(dst, 255)
	}
	return append(dst, byte(n))
}
