package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// mayImport says which rooms a room may import, itself apart. Data flows one way:
// arrows point down only (docs/design.md, "Rooms").
var mayImport = map[string][]string{
	"chunking": {},
	"cas":      {},
	"manifest": {"cas", "chunking"},
	"export":   {"manifest", "cas", "chunking"},
	"delta":    {"manifest", "cas", "chunking"},
	"cmd":      {"export", "delta", "manifest", "cas", "chunking"},
}

// leaves may import nothing of the project. The store reads what the patch codec
// wrote, so it may import that one.
var leaves = map[string]bool{"ferry/delta/codec": true, "ferry/cas/durable": true, "ferry/cas/pack": true}

func TestImportsPointDown(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports", "ferry/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	type listed struct {
		ImportPath           string
		Imports, TestImports []string
	}
	n := 0
	for d := json.NewDecoder(strings.NewReader(string(out))); ; n++ {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		for _, imported := range append(p.Imports, p.TestImports...) {
			if reason := forbidden(p.ImportPath, imported); reason != "" {
				t.Errorf("%s -> %s: %s", p.ImportPath, imported, reason)
			}
		}
	}
	if n < 10 {
		t.Errorf("listed %d packages, want at least 10", n)
	}
}

func forbidden(from, to string) string {
	if !strings.HasPrefix(to, "ferry/") {
		return ""
	}
	if leaves[from] {
		return "a leaf imports nothing of the project"
	}
	fromRoom, toRoom := room(from), room(to)
	if fromRoom == toRoom {
		return ""
	}
	if fromRoom == "cas" && to == "ferry/delta/codec" {
		return ""
	}
	for _, ok := range mayImport[fromRoom] {
		if ok == toRoom {
			return ""
		}
	}
	return fromRoom + " must not know " + toRoom
}

func room(path string) string { return strings.Split(path, "/")[1] }
