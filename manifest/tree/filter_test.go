package tree

import (
	"slices"
	"testing"
)

// rule is a call of Filter: "-pattern" excludes, "+pattern" includes, anything
// else is the text of an ignore file.
func newFilter(rules ...string) *Filter {
	f := &Filter{}
	for _, rule := range rules {
		switch rule[0] {
		case '-':
			f.Exclude(rule[1:])
		case '+':
			f.Include(rule[1:])
		default:
			f.AddLines(rule)
		}
	}
	return f
}

func TestFilter(t *testing.T) {
	tests := []struct {
		name      string
		rules     []string
		keep, out []string // a slash at the end says that it is a folder
	}{
		{"none", nil, []string{"a", "b/c", "d/"}, nil},
		{"name anywhere", []string{"-tmp"}, []string{"tmp2", "a/tmpx", "temp"}, []string{"tmp", "a/tmp", "tmp/x", "a/tmp/b/c", "tmp/"}},
		{"star", []string{"-*.log"}, []string{"log", "a.logs", "a/log"}, []string{"a.log", "b/a.log", ".log", "x.log/inner"}},
		{"question mark", []string{"-a?c"}, []string{"ac", "abbc", "a/c"}, []string{"abc", "d/axc"}},
		{"class", []string{"-[ab].c"}, []string{"c.c", "ab.c"}, []string{"a.c", "d/b.c"}},
		{"anchored", []string{"-/build"}, []string{"a/build", "builds"}, []string{"build", "build/x/y"}},
		{"with a slash inside, anchored", []string{"-docs/*.txt"}, []string{"a/docs/x.txt", "docs/sub/x.txt", "docs/x.md"}, []string{"docs/x.txt"}},
		{"folder only", []string{"-cache/"}, []string{"cache", "a/cache"}, []string{"cache/", "cache/x", "a/cache/", "a/cache/x"}},
		{"stars in front", []string{"-**/out"}, []string{"outer"}, []string{"out", "a/out", "a/b/out", "a/out/x"}},
		{"stars inside", []string{"-a/**/z"}, []string{"b/z", "a/y"}, []string{"a/z", "a/b/z", "a/b/c/z"}},
		{"stars behind", []string{"-a/**"}, []string{"b", "b/a"}, []string{"a/b", "a/b/c"}},
		{"case counts", []string{"-Readme"}, []string{"readme"}, []string{"Readme"}},
		{"include again", []string{"-*.o", "+keep.o"}, []string{"keep.o", "a/keep.o", "a.c"}, []string{"a.o", "a/b.o"}},
		{"last rule wins", []string{"-*.o", "+keep.o", "-old/"}, []string{"keep.o"}, []string{"old/keep.o", "a.o"}},
		{"include in an excluded folder", []string{"-build", "+build/keep"}, []string{"build/keep", "build/keep/x"}, []string{"build/", "build/other"}},
		{"include only", []string{"+*.txt"}, []string{"a.txt", "b/c.txt"}, []string{"a", "b/", "b/c"}},
		{"include only some folders", []string{"+src/", "+/readme", "-*.tmp"}, []string{"src/", "src/a", "x/src/a", "readme"}, []string{"src", "a/readme", "src/a.tmp", "other"}},
		{"exclude first, include does not limit", []string{"-a", "+b"}, []string{"b", "c"}, []string{"a"}},
		{"ignore file", []string{"# comment\n\n*.o\r\n!keep.o\n  \n/top\nspace behind   \n"},
			[]string{"keep.o", "a/top", "# comment", "space behind x"}, []string{"a.o", "top", "space behind"}},
		{"ignore file that starts with an inclusion does not limit", []string{"!a\n"}, []string{"a", "b"}, nil},
		{"ignore file without line end", []string{"a"}, []string{"b"}, []string{"a"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFilter(test.rules...)
			for _, path := range test.keep {
				if excludes(f, path) {
					t.Errorf("%q leave out %s, want it kept", test.rules, path)
				}
			}
			for _, path := range test.out {
				if !excludes(f, path) {
					t.Errorf("%q keep %s, want it left out", test.rules, path)
				}
			}
		})
	}
}

func excludes(f *Filter, path string) bool {
	if path[len(path)-1] == '/' {
		return f.Excludes(path[:len(path)-1], true)
	}
	return f.Excludes(path, false)
}

func TestFilteredTree(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, "a.txt", "b.log", "sub/c.txt", "sub/d.log")
	tr, err := Open(dir, Options{Filter: newFilter("-*.log")})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	got, want := paths(t, tr), []string{"a.txt", "sub/", "sub/c.txt"}
	if !slices.Equal(got, want) {
		t.Errorf("walk = %v, want %v", got, want)
	}
}
