package manifest

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"ferry/manifest/tree"
)

// Portability warns of paths that some systems cannot hold: names that Windows
// forbids, and names that differ only in case or Unicode form, which Windows and
// macOS take for one.
func Portability(m *Manifest) []Warning {
	var warnings []Warning
	seen := map[string]string{} // folded to first
	told := map[string]bool{}
	folder := cases.Fold()
	for _, e := range m.Entries {
		if err := tree.CheckWindows(e.Path); err != nil {
			warnings = append(warnings, Warning{Path: e.Path, Text: "cannot be unpacked on Windows: " + err.(*tree.UnsafePathError).Reason})
		}
		for path := e.Path; path != ""; path = parent(path) {
			key := fold(folder, path)
			first, ok := seen[key]
			if ok && first == path {
				break // this folder was looked at before
			}
			if ok && !told[path] {
				told[path] = true
				warnings = append(warnings, Warning{Path: path,
					Text: fmt.Sprintf("differs from %q only in case or Unicode form: Windows and macOS take them for one", first)})
			}
			if ok {
				break
			}
			seen[key] = path
		}
	}
	return warnings
}

// fold returns what a path is to a file system that ignores case and Unicode form.
func fold(folder cases.Caser, path string) string {
	for i := range len(path) {
		if path[i] >= utf8.RuneSelf {
			return folder.String(norm.NFC.String(path))
		}
	}
	return strings.ToLower(path) // the same, faster
}
