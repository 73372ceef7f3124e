package profile

import (
	"errors"
	"strings"
	"testing"
)

// TestSchema gives what the decoder would take, and the schema does not.
func TestSchema(t *testing.T) {
	_, err := Load(strings.NewReader("format: ferry.profile/1\nname: app\nexclude:\n  - fine\n  - 17\n"))
	var invalid *InvalidError
	if !errors.As(err, &invalid) || len(invalid.Problems) != 1 {
		t.Fatalf("Load = %v, want one problem", err)
	}
	if p := invalid.Problems[0]; p.Line != 5 || p.Key != "exclude[1]" || !strings.Contains(p.Text, "string") {
		t.Errorf("the problem is %+v", p)
	}
	for _, name := range Names() {
		if p, _, ok := Builtin(name); !ok || p.Name != name {
			t.Errorf("Builtin(%s) = %v, %v", name, p, ok)
		}
	}
}
