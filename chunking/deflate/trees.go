package deflate

import "math/bits"

// treeHeap builds Huffman codes as zlib does (trees.c: build_tree, gen_bitlen,
// gen_codes), which decides ties in a way of its own.
type treeHeap struct {
	heap [2*288 + 1]int16
	n    int               // heap[1:n+1] is the heap
	top  int               // heap[top:] are nodes by growing frequency
	key  [2*288 + 1]uint64 // frequency, then depth in the lowest 8 bits
	dad  [2*288 + 1]int16
	bits [2*288 + 1]uint8
}

// down puts the node at k where it belongs. Of two that are alike, the upper stays, and the
// right child goes before the left.
func (t *treeHeap) down(k int) {
	heap := t.heap[:t.n+1]
	v := heap[k]
	key := t.key[v]
	for j := 2 * k; j < len(heap); j *= 2 {
		least := t.key[heap[j]]
		if j+1 < len(heap) {
			if right := t.key[heap[j+1]]; right <= least {
				j, least = j+1, right
			}
		}
		if key <= least {
			break
		}
		heap[k] = heap[j]
		k = j
	}
	heap[k] = v
}

// lengths sets lens to the code lengths, at most limit, of symbols of these
// frequencies, and returns the largest symbol that has one.
func (t *treeHeap) lengths(lens []uint8, freq []uint32, limit int) (largest int) {
	const size = 2*288 + 1
	elems := len(freq)
	t.n, t.top, largest = 0, size, -1
	for i, f := range freq {
		lens[i] = 0
		t.key[i] = uint64(f) << 8
		if f != 0 {
			t.n++
			t.heap[t.n] = int16(i)
			largest = i
		}
	}
	for t.n < 2 { // there are always two codes
		sym := 0
		if largest < 2 {
			largest++
			sym = largest
		}
		t.n++
		t.heap[t.n] = int16(sym)
		t.key[sym] = 1 << 8
	}
	for k := t.n / 2; k >= 1; k-- {
		t.down(k)
	}
	node := int16(elems)
	for t.n >= 2 {
		a := t.heap[1]
		t.heap[1] = t.heap[t.n]
		t.n--
		t.down(1)
		b := t.heap[1]
		t.top--
		t.heap[t.top] = a
		t.top--
		t.heap[t.top] = b
		t.key[node] = (t.key[a]>>8+t.key[b]>>8)<<8 | (max(t.key[a]&0xff, t.key[b]&0xff) + 1)
		t.dad[a], t.dad[b] = node, node
		t.heap[1] = node
		node++
		t.down(1)
	}
	t.top--
	t.heap[t.top] = t.heap[1]

	var count [16]int
	over := 0
	t.bits[t.heap[t.top]] = 0
	h := t.top + 1
	for ; h < size; h++ {
		n := t.heap[h]
		b := int(t.bits[t.dad[n]]) + 1
		if b > limit {
			b = limit
			over++
		}
		t.bits[n] = uint8(b)
		if int(n) < elems {
			count[b]++
		}
	}
	if over > 0 {
		for over > 0 {
			b := limit - 1
			for count[b] == 0 {
				b--
			}
			count[b]--
			count[b+1] += 2
			count[limit]--
			over -= 2
		}
		for b := limit; b > 0; b-- {
			for left := count[b]; left > 0; {
				h--
				if n := t.heap[h]; int(n) < elems {
					t.bits[n] = uint8(b)
					left--
				}
			}
		}
	}
	for _, n := range t.heap[t.top:] {
		if int(n) < elems {
			lens[n] = t.bits[n]
		}
	}
	return largest
}

// codes are Huffman codes ready to be written.
type codes struct {
	code [288]uint16
	bits [288]uint8
}

// set makes the canonical codes of RFC 1951, section 3.2.2.
func (c *codes) set(lens []uint8) {
	var count, next [17]int
	for _, n := range lens {
		count[n]++
	}
	count[0] = 0
	for n := 1; n <= 15; n++ {
		next[n] = (next[n-1] + count[n-1]) << 1
	}
	clear(c.bits[:])
	for i, n := range lens {
		c.bits[i] = n
		if n > 0 {
			c.code[i] = bits.Reverse16(uint16(next[n])) >> (16 - n)
			next[n]++
		}
	}
}

// frequencies counts the symbols of a block.
type frequencies struct {
	lit  [maxLit]uint32
	dist [maxDist]uint32
}

func (f *frequencies) add(t token) {
	if !t.isMatch() {
		f.lit[t]++
		return
	}
	f.lit[endOfBlock+1+int(lengthCode[t.length()])]++
	f.dist[distCode(t.dist())]++
}

// blockCodes makes the codes of a dynamic block and its header as zlib does
// (trees.c: build_bl_tree, send_all_trees). The header is valid until the next call.
type blockCodes struct {
	heap   treeHeap
	lit    codes
	dist   codes
	header bitWriter
}

func (c *blockCodes) predict(f *frequencies) bitString {
	f.lit[endOfBlock] = 1
	var lit [maxLit]uint8
	var dist [maxDist]uint8
	nLit := c.heap.lengths(lit[:], f.lit[:], 15) + 1
	nDist := c.heap.lengths(dist[:], f.dist[:], 15) + 1
	c.lit.set(lit[:])
	c.dist.set(dist[:])

	runs := appendRuns(appendRuns(nil, lit[:nLit]), dist[:nDist])
	var freq [maxCodeLens]uint32
	for _, r := range runs {
		freq[r.sym]++
	}
	var lens [maxCodeLens]uint8
	c.heap.lengths(lens[:], freq[:], 7)
	n := maxCodeLens
	for n > 4 && lens[codeOrder[n-1]] == 0 {
		n--
	}
	var code codes
	code.set(lens[:])
	w := &c.header
	*w = bitWriter{out: w.out[:0]}
	w.put(uint64(nLit-257), 5)
	w.put(uint64(nDist-1), 5)
	w.put(uint64(n-4), 4)
	for _, i := range codeOrder[:n] {
		w.put(uint64(lens[i]), 3)
	}
	for _, r := range runs {
		w.put(uint64(code.code[r.sym]), uint(code.bits[r.sym]))
		w.put(uint64(r.extra), uint(r.bits))
	}
	nBits := w.bits()
	return bitString{w.flush(), nBits}
}

// lengthRun is a symbol of the code lengths' code.
type lengthRun struct{ sym, extra, bits uint8 }

// appendRuns codes code lengths as zlib does (trees.c: send_tree).
func appendRuns(runs []lengthRun, lens []uint8) []lengthRun {
	prev := -1
	for i := 0; i < len(lens); {
		cur := int(lens[i])
		most, least := 6, 3
		switch {
		case cur == 0:
			most = 138
		case cur != prev:
			most, least = 7, 4
		}
		n := 1
		for n < most && i+n < len(lens) && int(lens[i+n]) == cur {
			n++
		}
		switch {
		case n < least:
			for range n {
				runs = append(runs, lengthRun{sym: uint8(cur)})
			}
		case cur != 0:
			if cur != prev {
				runs = append(runs, lengthRun{sym: uint8(cur)})
				runs = append(runs, lengthRun{16, uint8(n - 4), 2})
			} else {
				runs = append(runs, lengthRun{16, uint8(n - 3), 2})
			}
		case n <= 10:
			runs = append(runs, lengthRun{17, uint8(n - 3), 3})
		default:
			runs = append(runs, lengthRun{18, uint8(n - 11), 7})
		}
		prev = cur
		i += n
	}
	return runs
}
