package delta

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"ferry/chunking"
	"ferry/manifest"
	"ferry/manifest/tree"
)

// files is a tree in memory: content by path. A path that ends in a slash is an
// empty folder; content that starts with "-> " is a symbolic link.
type files map[string]string

// bytesOf returns n bytes that compress about as well as a program does.
func bytesOf(seed uint64, n int) string {
	rng := rand.New(rand.NewPCG(seed, 9))
	words := make([][]byte, 300)
	for i := range words {
		words[i] = make([]byte, 4+rng.IntN(12))
		for k := range words[i] {
			words[i][k] = byte(rng.Uint32())
		}
	}
	var b bytes.Buffer
	for b.Len() < n {
		b.Write(words[rng.IntN(len(words))])
	}
	return b.String()[:n]
}

// splice replaces bytes of s in a few places.
func splice(s string, seed uint64) string {
	rng := rand.New(rand.NewPCG(seed, 10))
	for i := range 5 {
		at := rng.IntN(len(s))
		s = s[:at] + fmt.Sprintf("<edit %d of %d>", i, seed) + s[at:]
	}
	return s
}

// write makes the tree in a new folder and returns it.
func (f files) write(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	f.writeTo(t, dir)
	return dir
}

func (f files) writeTo(t testing.TB, dir string) {
	t.Helper()
	when := time.Unix(1700000000, 0)
	for path, content := range f {
		name := filepath.Join(dir, filepath.FromSlash(path))
		if path[len(path)-1] == '/' {
			must(t, os.MkdirAll(name, 0o777))
			continue
		}
		must(t, os.MkdirAll(filepath.Dir(name), 0o777))
		if len(content) > 3 && content[:3] == "-> " {
			must(t, os.Symlink(content[3:], name))
			continue
		}
		must(t, os.WriteFile(name, []byte(content), 0o666))
		must(t, os.Chtimes(name, when, when))
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// read returns what stands in a folder, Ferry's own state left out.
func read(t testing.TB, dir string) files {
	t.Helper()
	f := files{}
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		rel = filepath.ToSlash(rel)
		switch {
		case rel == tree.StateDir:
			return fs.SkipDir
		case d.IsDir():
			if names, err := os.ReadDir(path); err == nil && len(names) == 0 {
				f[rel+"/"] = ""
			}
		case d.Type()&fs.ModeSymlink != 0:
			link, err := os.Readlink(path)
			f[rel] = "-> " + filepath.ToSlash(link)
			return err
		default:
			data, err := os.ReadFile(path)
			f[rel] = string(data)
			return err
		}
		return nil
	}))
	return f
}

// same fails the test unless two trees are equal.
func same(t testing.TB, got, want files) {
	t.Helper()
	for path, content := range want {
		if have, ok := got[path]; !ok {
			t.Errorf("%s is missing", path)
		} else if have != content {
			t.Errorf("%s: %d bytes, want %d other bytes", path, len(have), len(content))
		}
	}
	for path := range got {
		if _, ok := want[path]; !ok {
			t.Errorf("%s should not be there", path)
		}
	}
}

// with returns a copy of f with changes; "" removes.
func (f files) with(changes files) files {
	out := files{}
	for path, content := range f {
		out[path] = content
	}
	for path, content := range changes {
		if content == "" && path[len(path)-1] != '/' {
			delete(out, path)
			continue
		}
		out[path] = content
	}
	return out
}

// version scans a folder.
func version(t testing.TB, label, dir string) Version {
	t.Helper()
	tr, err := tree.Open(dir, tree.Options{})
	must(t, err)
	t.Cleanup(func() { tr.Close() })
	scan, err := manifest.ScanTree(context.Background(), tr, chunking.Default(), manifest.AddOptions{Members: true})
	must(t, err)
	return Version{Label: label, Manifest: scan.Manifest, Files: scan}
}

// create makes a delta and returns its path.
func create(t testing.TB, target files, bases ...files) (string, *Info) {
	t.Helper()
	var versions []Version
	for i, b := range bases {
		versions = append(versions, version(t, fmt.Sprintf("base-%d", i), b.write(t)))
	}
	path := filepath.Join(t.TempDir(), "delta.ferry")
	f, err := os.Create(path)
	must(t, err)
	info, err := Create(context.Background(), f, versions, version(t, "target", target.write(t)), CreateOptions{})
	must(t, err)
	must(t, f.Close())
	return path, info
}

// open opens a delta for the length of the test.
func open(t testing.TB, path string) *Delta {
	t.Helper()
	d, err := Open(path)
	must(t, err)
	t.Cleanup(func() { d.Close() })
	return d
}

// treeBase opens a folder as a base.
func treeBase(t testing.TB, dir string) Base {
	t.Helper()
	tr, err := tree.Open(dir, tree.Options{})
	must(t, err)
	t.Cleanup(func() { tr.Close() })
	return TreeBase{tr}
}

// v1 and v2 are a base and a target with every kind of change.
func v1() files {
	return files{
		"VERSION":         "1.0.0\n",
		"bin/tool.exe":    bytesOf(1, 900<<10),
		"bin/same.exe":    bytesOf(2, 300<<10),
		"bin/moved.exe":   bytesOf(3, 200<<10),
		"lib/a.ps1":       "Write-Host 'one'\n",
		"lib/b.ps1":       "Write-Host 'two'\n",
		"conf/was-file":   "this becomes a folder",
		"conf/was-dir/in": "this folder becomes a file",
		"old/gone.txt":    "removed",
		"zero.img":        string(make([]byte, 1<<20)) + "end",
		"empty-stays/":    "",
		"empty-goes/":     "",
		"empty.txt":       "",
	}
}

func v2() files {
	return v1().with(files{
		"VERSION":           "1.1.0\n",
		"bin/tool.exe":      splice(bytesOf(1, 900<<10), 4),
		"bin/moved.exe":     "",
		"bin/v2/moved.exe":  bytesOf(3, 200<<10),
		"bin/copy.exe":      bytesOf(2, 300<<10),
		"lib/a.ps1":         "Write-Host 'one, changed'\n",
		"lib/new.ps1":       "Write-Host 'new'\n",
		"conf/was-file":     "",
		"conf/was-file/x/y": "in the folder",
		"conf/was-dir/in":   "",
		"conf/was-dir":      "the file",
		"old/gone.txt":      "",
		"zero.img":          string(make([]byte, 2<<20)) + "end",
		"data/fresh.bin":    bytesOf(7, 400<<10),
		"empty-new/":        "",
	}).without("empty-goes/")
}

func (f files) without(path string) files {
	delete(f, path)
	return f
}
