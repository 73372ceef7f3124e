package addon

import (
	"cmp"
	"slices"
	"strings"
)

// mostNear is how many names are suggested, at most.
const mostNear = 3

// near returns names that may have been meant. For an implementation that a known
// addon lacks, those are its implementations.
func (s *Selection) near(text string) []string {
	text = strings.ToLower(text)
	first, _, two := strings.Cut(text, " ")
	if a := s.addon(first); two && a != nil {
		return a.titles()
	}
	type candidate struct {
		title    string
		distance int
	}
	var found []candidate
	for _, a := range s.All {
		for _, im := range a.Implementations {
			d := min(unlike(text, im.Title), unlike(text, im.Export), unlike(text, im.Name), unlike(text, a.Name))
			if d <= max(2, len(text)/4) {
				found = append(found, candidate{im.Title, d})
			}
		}
	}
	slices.SortStableFunc(found, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.distance, b.distance), strings.Compare(a.title, b.title))
	})
	var near []string
	for _, c := range found[:min(mostNear, len(found))] {
		near = append(near, c.title)
	}
	return near
}

// partLength is how many bytes of a name tell which one is meant.
const partLength = 3

// unlike returns how many edits lead from text to a name; 1 when it is a part of
// that.
func unlike(text, name string) int {
	name = strings.ToLower(name)
	d := editDistance(text, name)
	if len(text) >= partLength && strings.Contains(name, text) {
		d = min(d, 1)
	}
	return d
}

// editDistance returns how many bytes have to be inserted, deleted, replaced or
// swapped with their neighbour to get from a to b, none of them twice ("optimal
// string alignment"; Boytsov 2011, section 2.1). It takes len(a)·len(b) steps.
func editDistance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before, last, row = last, row, before
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j]+cost, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
	}
	return row[len(b)]
}
