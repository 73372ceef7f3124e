package manifest

import (
	"errors"
	"strings"
	"testing"
)

func TestParseRef(t *testing.T) {
	for s, want := range map[string]Ref{
		"a@1":                 {"a", "1"},
		"K2s@4.11":            {"K2s", "4.11"},
		"0ad@v0.0.1+build-7_": {"0ad", "v0.0.1+build-7_"},
		"com@9.0":             {"com", "9.0"},
		"con.x-1@2":           {}, // below
		"compare@lpt":         {"compare", "lpt"},
		strings.Repeat("n", 100) + "@" + strings.Repeat("V", 100): {strings.Repeat("n", 100), strings.Repeat("V", 100)},
	} {
		got, err := ParseRef(s)
		if want == (Ref{}) {
			if !errors.Is(err, ErrRef) {
				t.Errorf("ParseRef(%q) = %v, %v, want %v", s, got, err, ErrRef)
			}
			continue
		}
		if err != nil || got != want {
			t.Errorf("ParseRef(%q) = %v, %v, want %v", s, got, err, want)
		}
		if got.String() != s {
			t.Errorf("String() = %q, want %q", got, s)
		}
	}
}

func TestParseRefRefuses(t *testing.T) {
	for _, s := range []string{
		"", "@", "a", "a@", "@1", "a@@1", "a@1@2", "a@1 ", " a@1", "a b@1", "a@1\n", "a/b@1", `a\b@1`, "../a@1", "a@..", ".a@1", "-a@1", "_a@1", "+a@1",
		"a@.1", "a.@1", "a@1.", "gr\u00fc\u00df@1", "a:b@1", "a*@1", "a\x00@1", "con@1", "a@NUL", "Aux.txt@1", "a@com1", "a@lpt9.2",
		strings.Repeat("n", 101) + "@1", "a@" + strings.Repeat("1", 101),
	} {
		if got, err := ParseRef(s); got != (Ref{}) || !errors.Is(err, ErrRef) {
			t.Errorf("ParseRef(%q) = %v, %v, want %v", s, got, err, ErrRef)
		}
	}
}

func TestEscape(t *testing.T) {
	for s, want := range map[string]string{"K2s": "!k2s", "abc": "abc", "ABC": "!a!b!c", "a.B-C_d+9": "a.!b-!c_d+9", "": ""} {
		if got := escape(s); got != want {
			t.Errorf("escape(%q) = %q, want %q", s, got, want)
		}
		if got := unescape(want); got != s {
			t.Errorf("unescape(%q) = %q, want %q", want, got, s)
		}
	}
}
