package deflate

// token is a literal byte, or a copy of earlier bytes.
type token uint32

const matchFlag token = 1 << 31

// Bounds of RFC 1951, section 3.2.5.
const (
	minMatch   = 3
	maxMatch   = 258
	windowSize = 32 << 10
)

func literal(b byte) token { return token(b) }

func match(length, dist int) token {
	return matchFlag | token(length)<<16 | token(dist-1)
}

func (t token) isMatch() bool { return t&matchFlag != 0 }
func (t token) length() int   { return int(t >> 16 & 0x1ff) }
func (t token) dist() int     { return int(t&0xffff) + 1 }

// size is how many plain bytes the token stands for.
func (t token) size() int {
	if t.isMatch() {
		return t.length()
	}
	return 1
}

// Symbols of RFC 1951, section 3.2.5 and 3.2.7.
const (
	endOfBlock  = 256
	maxLit      = 286
	maxDist     = 30
	maxCodeLens = 19
)

var (
	lengthBase  [29]uint16
	lengthExtra = [29]uint8{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
	lengthCode  [maxMatch + 1]uint8 // by length
	distBase    [30]uint16          // less 1
	distExtra   = [30]uint8{0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13}
	distLow     [256]uint8 // code by dist-1 below 256
	distHigh    [256]uint8 // code by (dist-1)>>7
	codeOrder   = [maxCodeLens]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

	fixedLit  [288]uint8
	fixedDist [32]uint8
)

func init() {
	n := minMatch
	for c := range lengthBase {
		lengthBase[c] = uint16(n)
		for range 1 << lengthExtra[c] {
			if n <= maxMatch {
				lengthCode[n] = uint8(c)
			}
			n++
		}
	}
	lengthBase[28], lengthCode[maxMatch] = maxMatch, 28
	d := 0
	for c := range distBase {
		distBase[c] = uint16(d)
		for range 1 << distExtra[c] {
			if d < 256 {
				distLow[d] = uint8(c)
			}
			distHigh[d>>7] = uint8(c)
			d++
		}
	}
	for i := range fixedLit {
		switch {
		case i < 144:
			fixedLit[i] = 8
		case i < 256:
			fixedLit[i] = 9
		case i < 280:
			fixedLit[i] = 7
		default:
			fixedLit[i] = 8
		}
	}
	for i := range fixedDist {
		fixedDist[i] = 5
	}
}

func distCode(dist int) uint8 {
	if d := dist - 1; d < 256 {
		return distLow[d]
	} else {
		return distHigh[d>>7]
	}
}
