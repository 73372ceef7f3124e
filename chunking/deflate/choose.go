package deflate

import (
	"cmp"
	"encoding/binary"
	"slices"

	"ferry/chunking/rangecoder"
)

// choose finds the encoder that mispredicts the sample least.
func (a *analysis) choose(sample []byte, all bool) {
	if len(a.blocks) > 1 {
		a.usual = len(a.blocks[0].tokens)
	}
	anews := []restarts{{}}
	if piece := a.pieces(); piece > 0 {
		anews = append(anews, restarts{piece: piece})
	}
	flushes := slices.ContainsFunc(a.blocks, func(b *block) bool { return b.flushed })
	if flushes && !a.flushesBetween(anews[len(anews)-1].piece) {
		anews = append(anews, restarts{flushes: true})
	}
	// First a few tokens for each encoder: most are out of the question soon.
	type candidate struct {
		encoder, misses int
		anew            restarts
	}
	var fit []candidate
	least := int(a.in.used())/(4*costShare) + 64 // a correction is of about four bytes
	best := -1
	var ahead lead
	try := func(c candidate) {
		if n := a.misses(encoders[c.encoder], c.anew, sample, all, sampleTokens, least, &ahead); n < least {
			least, best, a.anew = n, c.encoder, c.anew
		}
	}
	// Where pieces meet, the right encoder is wrong now and then.
	tokens := 0
	for _, b := range a.blocks {
		tokens += len(b.tokens)
	}
	found := func(misses int) bool {
		return misses == 0 || len(anews) > 1 && misses <= sureMisses && tokens >= sampleTokens
	}
	alike := a.beforeRestart(anews) >= firstTokens
	for _, g := range guesses {
		misses := 0
		for i, anew := range anews {
			if i == 0 || !alike {
				misses = a.misses(encoders[g], anew, sample, all, firstTokens, firstMisses, nil)
			}
			c := candidate{g, misses, anew}
			switch {
			case least == 0 || c.misses == firstMisses:
			case c.misses == 0:
				try(c) // most likely it is the one
			default:
				fit = append(fit, c)
			}
		}
		if found(least) {
			break
		}
	}
	slices.SortStableFunc(fit, func(a, b candidate) int { return cmp.Compare(a.misses, b.misses) })
	for _, c := range fit[:min(len(fit), 12)] {
		if !found(least) {
			try(c)
		}
	}
	// A correction takes four bytes or more: where they are more than about half a percent,
	// choices take fewer.
	if best >= 0 && least <= int(a.in.used())/800+sureMisses {
		a.share = costShare
		if a.anew.piece > 0 {
			a.out = binary.AppendUvarint(a.begin(versionPieces, best, sample, ahead), uint64(a.anew.piece))
		} else {
			a.out = a.begin(version, best, sample, ahead)
		}
		return
	}
	if a.anew.piece > 0 {
		a.anew = restarts{flushes: flushes}
	}
	a.chooseUnknown(best, sample, all)
}

// sureMisses are so few that an encoder is the one, however short the stream.
const sureMisses = 16

// unknowns are the encoders that unknown ones are compared with: some of them choose much
// as these do. The slowest comes last, and must be better by far.
var unknowns = []int{zlib15 + 5, zlib15 + 3, zlib15 + 2, zlib15 + 0, zlib15 + 8}

// unknownTokens is how many tokens are looked at to compare them.
const unknownTokens = 2048

// chooseUnknown takes the known encoder, or if that is negative, the one of unknowns that is
// right about most of the sample's first tokens.
func (a *analysis) chooseUnknown(known int, sample []byte, all bool) {
	best, least := known, 0
	if known < 0 {
		for _, e := range unknowns {
			n := a.misses(encoders[e], restarts{}, sample, all, unknownTokens, unknownTokens, nil)
			if e == zlib15+8 {
				n += n / 3
			}
			if best < 0 || n < least {
				best, least = e, n
			}
		}
	}
	a.again = nil // choices are not read back before all are written
	a.chosen = rangecoder.NewWriter()
	a.choices = newChoices(a.chosen)
	a.head = a.begin(versionChoices, best, sample, lead{})
}

// maxPiece bounds the size of pieces in bytes.
const maxPiece = 1 << 30

// usualPiece is how many plain bytes pigz gives each of its threads.
const usualPiece = 128 << 10

// pieces guesses of how many plain bytes the pieces are that were compressed side by side,
// each up to a boundary of blocks, with no more than empty blocks behind it; 0 if there is
// only one.
func (a *analysis) pieces() int64 {
	for _, b := range a.blocks {
		empty := b.whole && b.kind != kindDynamic && len(b.tokens) == 0 && b.stored == 0
		if b.at == usualPiece || b.at >= minPiece && empty && !b.final {
			return b.at
		}
	}
	return 0
}

// flushesBetween reports whether the encoder flushed nowhere but where pieces of pigz's
// usual size meet: it need not be asked whether it began anew at flushes only.
func (a *analysis) flushesBetween(piece int64) bool {
	return piece == usualPiece && !slices.ContainsFunc(a.blocks, func(b *block) bool {
		return b.isFlush() && b.at%piece != 0
	})
}

// beforeRestart counts the tokens before the first block at which an encoder may begin anew.
func (a *analysis) beforeRestart(anews []restarts) (n int) {
	for _, b := range a.blocks {
		for _, anew := range anews {
			if anew.flushes && b.isFlush() || anew.piece > 0 && b.at > 0 && b.at%anew.piece == 0 {
				return n
			}
		}
		n += len(b.tokens)
	}
	return n
}

// lead is a predictor that was right about all that it looked at, and what that was, block
// by block: this need not be predicted again.
type lead struct {
	p      *predictor
	blocks []looked
}

type looked struct {
	tokens int
	forgot bool
}

// misses counts those of the first tokens of the sample that e would not have
// written, up to limit; anew says where it began anew.
// If there are none, and ahead is not nil, that is how far it came.
func (a *analysis) misses(e encoder, anew restarts, sample []byte, all bool, tokens, limit int, ahead *lead) (n int) {
	if e.hash == hashFast && !all && len(sample) < fastPiece+fastPiece/2 {
		return limit // there is too little of it to tell
	}
	p := newPredictor(e)
	p.piece = anew.piece
	var blocks []looked
	defer func() {
		if ahead != nil && n == 0 {
			*ahead = lead{p, blocks}
		} else {
			p.release()
		}
	}()
	p.feed(sample)
	p.last = all
	for _, b := range a.blocks {
		ready, forgot := b.begin(p, anew.flushes)
		if !ready {
			return n
		}
		left := b.tokens[:min(len(b.tokens), tokens)]
		tokens -= len(left)
		blocks = append(blocks, looked{forgot: forgot})
		for len(left) > 0 {
			k, other := p.follow(left, true)
			blocks[len(blocks)-1].tokens += k
			if left = left[k:]; other == noToken {
				break
			}
			if n++; n >= limit {
				return n
			}
			p.accept(left[0])
			left = left[1:]
		}
		if len(left) > 0 || tokens == 0 {
			return n
		}
	}
	return n
}
