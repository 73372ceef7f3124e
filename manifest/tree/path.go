package tree

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of paths, in bytes. A component of 255 bytes is what common file
// systems take; the whole is far more than Windows takes even with long paths.
const (
	maxComponent = 255
	maxPath      = 16 << 10
)

// UnsafePathError says why a path is refused.
type UnsafePathError struct {
	Path   string
	Reason string
}

func (e *UnsafePathError) Error() string { return fmt.Sprintf("path %.200q: %s", e.Path, e.Reason) }

// CheckPath returns an [*UnsafePathError] unless path is canonical: UTF-8, one
// or more components separated by single slashes, none of them "." or "..", no
// backslash, no NUL, no drive letter in front.
func CheckPath(path string) error {
	refuse := func(reason string) error { return &UnsafePathError{path, reason} }
	switch {
	case path == "":
		return refuse("empty")
	case len(path) > maxPath:
		return refuse(fmt.Sprintf("longer than %d bytes", maxPath))
	case !utf8.ValidString(path):
		return refuse("not valid UTF-8")
	case strings.ContainsRune(path, 0):
		return refuse("contains a NUL byte")
	case strings.ContainsRune(path, '\\'):
		return refuse("contains a backslash, which other systems take for a separator")
	case path[0] == '/':
		return refuse("absolute")
	case len(path) >= 2 && path[1] == ':' && isLetter(path[0]):
		return refuse("starts with a drive letter")
	}
	for part := range strings.SplitSeq(path, "/") {
		switch {
		case part == "":
			return refuse("has an empty component")
		case part == "." || part == "..":
			return refuse("has a component " + part)
		case len(part) > maxComponent:
			return refuse(fmt.Sprintf("has a component longer than %d bytes", maxComponent))
		}
	}
	return nil
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

// windowsDevices are names that Windows takes for devices in every folder, with
// any extension ("Naming Files, Paths, and Namespaces", Microsoft).
var windowsDevices = map[string]bool{"con": true, "prn": true, "aux": true, "nul": true, "conin$": true, "conout$": true}

// CheckWindows returns an [*UnsafePathError] when Windows cannot hold a file of
// this path: device names, characters that it forbids, a dot or space at the end
// of a component.
func CheckWindows(path string) error {
	for part := range strings.SplitSeq(path, "/") {
		if i := strings.IndexFunc(part, func(r rune) bool { return r < 32 || strings.ContainsRune(`<>:"|?*`, r) }); i >= 0 {
			return &UnsafePathError{path, fmt.Sprintf("Windows forbids the character %q", part[i])}
		}
		if strings.HasSuffix(part, ".") || strings.HasSuffix(part, " ") {
			return &UnsafePathError{path, "Windows drops a dot or space at the end of a name"}
		}
		if isWindowsDevice(part) {
			return &UnsafePathError{path, "Windows takes the name for a device"}
		}
	}
	return nil
}

func isWindowsDevice(part string) bool {
	base, _, _ := strings.Cut(strings.ToLower(part), ".")
	base = strings.TrimRight(base, " ")
	if windowsDevices[base] {
		return true
	}
	port, ok := strings.CutPrefix(base, "com")
	if !ok {
		port, ok = strings.CutPrefix(base, "lpt")
	}
	return ok && len([]rune(port)) == 1 && strings.ContainsAny(port, "123456789¹²³")
}
