package tree

import (
	"strings"

	"github.com/go-git/go-git/v5/plumbing/format/gitignore"
)

// Filter decides by gitignore patterns what belongs to a tree. The zero Filter
// keeps everything.
type Filter struct {
	patterns []gitignore.Pattern
	includes bool // there are inclusions
	only     bool // the first rule was an inclusion: the rest is left out
}

// Exclude adds a rule that leaves out what pattern matches.
func (f *Filter) Exclude(pattern string) { f.add(pattern) }

// Include adds a rule that keeps what pattern matches, though an earlier rule
// leaves it out. As the first rule, it makes everything else be left out.
func (f *Filter) Include(pattern string) {
	if len(f.patterns) == 0 {
		f.only = true
	}
	f.add("!" + pattern)
}

// AddLines adds the rules of an ignore file: a pattern a line, "#" starts a
// comment, "!" an inclusion.
func (f *Filter) AddLines(text string) {
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if strings.TrimSpace(line) != "" && !strings.HasPrefix(line, "#") {
			f.add(line)
		}
	}
}

func (f *Filter) add(pattern string) {
	f.includes = f.includes || strings.HasPrefix(pattern, "!")
	f.patterns = append(f.patterns, gitignore.ParsePattern(pattern, nil))
}

// closed reports whether nothing below an excluded folder is kept: there is no
// inclusion.
func (f *Filter) closed() bool { return !f.includes }

// Excludes reports whether the node at path is left out. The last rule that
// matches the path, or a folder above it, decides.
func (f *Filter) Excludes(path string, isDir bool) bool {
	parts := strings.Split(path, "/")
	for i := len(f.patterns) - 1; i >= 0; i-- {
		switch f.patterns[i].Match(parts, isDir) {
		case gitignore.Exclude:
			return true
		case gitignore.Include:
			return false
		}
	}
	return f.only
}
