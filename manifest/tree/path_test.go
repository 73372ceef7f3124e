package tree

import (
	"errors"
	"strings"
	"testing"
)

func TestCheckPath(t *testing.T) {
	component := strings.Repeat("x", maxComponent)
	for _, path := range []string{
		"a", "a/b", "A/b.c/D", " ", "...", "..a", "a..", ".a", ".ferry", "-", "~", "gr\u00fc\u00df", "gru\u0308\u00df", "\u2028", "a\nb", "\x01", "ab:c", "1:", "a/C:/b", "con", "a*?",
		component, component + "/" + component, strings.Repeat("\u00fc", 127), strings.Repeat("a/", maxPath/2-1) + "a",
	} {
		if err := CheckPath(path); err != nil {
			t.Errorf("CheckPath(%.40q) = %v, want nil", path, err)
		}
	}
	for path, reason := range map[string]string{
		"":                                    "empty",
		"/":                                   "absolute",
		"/a":                                  "absolute",
		"//a":                                 "absolute",
		"a/":                                  "empty component",
		"a//b":                                "empty component",
		".":                                   "component .",
		"..":                                  "component ..",
		"./a":                                 "component .",
		"a/.":                                 "component .",
		"../a":                                "component ..",
		"a/../b":                              "component ..",
		"a/..":                                "component ..",
		`a\b`:                                 "backslash",
		`\a`:                                  "backslash",
		`..\a`:                                "backslash",
		`\\server\share`:                      "backslash",
		"C:":                                  "drive letter",
		"c:/a":                                "drive letter",
		"z:a":                                 "drive letter",
		"a\x00":                               "NUL",
		"a\xff":                               "UTF-8",
		"\xc0\xae\xc0\xae/a":                  "UTF-8", // ".." in overlong form
		"\xed\xa0\x80":                        "UTF-8", // a surrogate
		component + "x":                       "255",
		strings.Repeat("\u00fc", 128):         "255",
		strings.Repeat("a/", maxPath/2) + "a": "longer",
	} {
		err := CheckPath(path)
		var unsafe *UnsafePathError
		if !errors.As(err, &unsafe) || unsafe.Path != path || !strings.Contains(unsafe.Reason, reason) {
			t.Errorf("CheckPath(%.40q) = %v, want %q", path, err, reason)
		}
		if err != nil && len(err.Error()) > 2000 {
			t.Errorf("CheckPath(%.40q) has a text of %d bytes", path, len(err.Error()))
		}
	}
}

func TestCheckWindows(t *testing.T) {
	for _, path := range []string{
		"a", "a/b.c", ".a", "..a", "gr\u00fc\u00df", "console", "con1", "com", "com10", "com0", "lpt", "lptx", "nul_", "aux-1", "comx", "a con", "conin", "COM\u00b4", "a'b", "(a)",
	} {
		if err := CheckWindows(path); err != nil {
			t.Errorf("CheckWindows(%q) = %v, want nil", path, err)
		}
	}
	for path, reason := range map[string]string{
		"con":        "device",
		"CON":        "device",
		"Con.txt":    "device",
		"con.tar.gz": "device",
		"dir/nul":    "device",
		"nul/file":   "device",
		"prn":        "device",
		"aux .c":     "device",
		"com1":       "device",
		"LPT9.x":     "device",
		"com\u00b9":  "device",
		"lpt\u00b3":  "device",
		"conin$":     "device",
		"CONOUT$":    "device",
		"a.":         "dot or space",
		"a ":         "dot or space",
		"a./b":       "dot or space",
		"a /b":       "dot or space",
		"a:b":        "':'",
		"a<b":        "'<'",
		"a>":         "'>'",
		`"a"`:        `'"'`,
		"a|b":        "'|'",
		"a?":         "'?'",
		"*":          "'*'",
		"a\tb":       `'\t'`,
		"\x1f":       "'\\x1f'",
	} {
		err := CheckWindows(path)
		var unsafe *UnsafePathError
		if !errors.As(err, &unsafe) || unsafe.Path != path || !strings.Contains(unsafe.Reason, reason) {
			t.Errorf("CheckWindows(%q) = %v, want %q", path, err, reason)
		}
	}
}

func TestCleanName(t *testing.T) {
	for name, want := range map[string]string{
		"a": "a", "./a": "a", "././a": "a", ".//a": "a", "a/": "a", "a//": "a", "./": "", ".": "", "": "", "/": "", "./.": "", "../a": "../a", "/a": "/a", ".a": ".a", "..": "..", "./../a": "../a",
	} {
		if got := cleanName(name); got != want {
			t.Errorf("cleanName(%q) = %q, want %q", name, got, want)
		}
	}
}
