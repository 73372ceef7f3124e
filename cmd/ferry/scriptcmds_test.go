package main

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gofrs/flock"
	"github.com/rogpeppe/go-internal/testscript"

	"ferry/chunking/disk/disktest"
	"ferry/manifest/tree"
)

// sampleTime is the time of made files. Zips know even seconds only.
var sampleTime = time.Date(2024, 5, 6, 7, 8, 10, 0, time.UTC)

// wants fails a script unless a command has its arguments.
func wants(ts *testscript.TestScript, neg bool, args []string, n int, usage string) {
	if neg || len(args) != n {
		ts.Fatalf("usage: %s", usage)
	}
}

// seededBytes returns size bytes that depend on seed alone: blocks of 4 KiB, of
// which every other one compresses to about five eighths.
func seededBytes(size int64, seed uint64) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	b := make([]byte, size)
	rand.NewChaCha8(key).Read(b)
	for i := range b {
		if i>>12&1 != 0 {
			b[i] = b[i]&0x1f | 0x40
		}
	}
	return b
}

// cmdMkReleases writes n releases of a file, DIR/0/bin/app and so on: each differs in
// single bytes, one in each 8 KiB, from the one before.
func cmdMkReleases(ts *testscript.TestScript, neg bool, args []string) {
	wants(ts, neg, args, 2, "mkreleases DIR N")
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	data := seededBytes(1<<20, 77)
	for i := range n {
		for at := i * 501; i > 0 && at < len(data); at += 8 << 10 {
			data[at] += byte(i)
		}
		ts.Check(writeFile(ts.MkAbs(filepath.Join(args[0], strconv.Itoa(i), "bin", "app")), data, 0o755, sampleTime))
	}
}

// writeFile writes a file and sets its time, making the folders above it.
func writeFile(path string, data []byte, mode fs.FileMode, t time.Time) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	if err := os.WriteFile(path, data, mode); err != nil {
		return err
	}
	return os.Chtimes(path, t, t)
}

// parseSize reads bytes, with an optional K or M for the power of 1024.
func parseSize(s string) (int64, error) {
	shift := 0
	if number, ok := strings.CutSuffix(s, "K"); ok {
		s, shift = number, 10
	} else if number, ok := strings.CutSuffix(s, "M"); ok {
		s, shift = number, 20
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n << shift, err
}

func cmdMkfile(ts *testscript.TestScript, neg bool, args []string) {
	wants(ts, neg, args, 3, "mkfile PATH SIZE SEED")
	size, err := parseSize(args[1])
	ts.Check(err)
	seed, err := strconv.ParseUint(args[2], 10, 64)
	ts.Check(err)
	ts.Check(writeFile(ts.MkAbs(args[0]), seededBytes(size, seed), 0o644, sampleTime))
}

// cmdImage writes a disk image: base, or target, which it became in an upgrade.
func cmdImage(ts *testscript.TestScript, neg bool, args []string) {
	wants(ts, neg, args, 2, "image base|target PATH")
	var t testing.T // what unpacking an embedded image reports to; it does not fail
	data := disktest.Base(&t)
	if args[0] == "target" {
		data = disktest.Target(&t)
	}
	ts.Check(writeFile(ts.MkAbs(args[1]), data, 0o644, sampleTime))
}

// theFile returns the one file that a pattern matches.
func theFile(ts *testscript.TestScript, pattern string) string {
	names, err := filepath.Glob(ts.MkAbs(pattern))
	ts.Check(err)
	if len(names) != 1 {
		ts.Fatalf("%s matches %d files, want 1", pattern, len(names))
	}
	return names[0]
}

// change rewrites a file; an offset below 0 counts from its end.
func change(ts *testscript.TestScript, pattern, offset string, fn func(data []byte, off int64)) string {
	name := theFile(ts, pattern)
	data, err := os.ReadFile(name)
	ts.Check(err)
	off, err := parseSize(offset)
	ts.Check(err)
	if off < 0 {
		off += int64(len(data))
	}
	if off < 0 || off >= int64(len(data)) {
		ts.Fatalf("%s has %d bytes, none at %s", pattern, len(data), offset)
	}
	fn(data, off)
	fi, err := os.Stat(name)
	ts.Check(err)
	ts.Check(os.Chmod(name, 0o666)) // objects of a store may be read-only
	ts.Check(os.WriteFile(name, data, 0o666))
	ts.Check(os.Chmod(name, fi.Mode().Perm()))
	ts.Check(os.Chtimes(name, fi.ModTime(), fi.ModTime()))
	return name
}

func cmdEdit(ts *testscript.TestScript, neg bool, args []string) {
	wants(ts, neg, args, 3, "edit PATH OFFSET TEXT")
	name := change(ts, args[0], args[1], func(data []byte, off int64) { copy(data[off:], args[2]) })
	ts.Check(os.Chtimes(name, time.Now(), time.Now()))
}

func cmdFlip(ts *testscript.TestScript, neg bool, args []string) {
	wants(ts, neg, args, 2, "flip PATH OFFSET")
	change(ts, args[0], args[1], func(data []byte, off int64) { data[off] ^= 0x20 })
}

func cmdCut(ts *testscript.TestScript, neg bool, args []string) {
	wants(ts, neg, args, 2, "cut PATH SIZE")
	size, err := parseSize(args[1])
	ts.Check(err)
	ts.Check(os.Truncate(theFile(ts, args[0]), size))
}

func cmdAge(ts *testscript.TestScript, neg bool, args []string) {
	wants(ts, neg, args, 2, "age PATH TIME")
	t, err := time.Parse(time.RFC3339, args[1])
	ts.Check(err)
	ts.Check(os.Chtimes(theFile(ts, args[0]), t, t))
}

func cmdHold(ts *testscript.TestScript, neg bool, args []string) {
	wants(ts, neg, args, 1, "hold FILE")
	name := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(filepath.Dir(name), 0o777))
	lock := flock.New(name)
	if ok, err := lock.TryLock(); !ok || err != nil {
		ts.Fatalf("cannot lock %s: %v", args[0], err)
	}
	ts.Defer(func() { lock.Unlock() })
}

// cmdJSONField looks a field up in the last line of a file, or of stdout or
// stderr. KEY goes down with dots: "findings.0.kind"; "#" is a list's length.
// What stands there, a text as it is and all else as JSON, must match PATTERN as
// a whole. A field that is not there is "absent".
func cmdJSONField(ts *testscript.TestScript, neg bool, args []string) {
	wants(ts, neg, args, 3, "jsonfield FILE KEY PATTERN")
	lines := strings.Split(strings.TrimSpace(ts.ReadFile(args[0])), "\n")
	var v any
	d := json.NewDecoder(strings.NewReader(lines[len(lines)-1]))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		ts.Fatalf("%s: %v", args[0], err)
	}
	if _, err := d.Token(); err != io.EOF {
		ts.Fatalf("%s: more than one value on its last line", args[0])
	}
	got := fieldText(v, strings.Split(args[1], "."))
	if ok, err := regexp.MatchString("^(?:"+args[2]+")$", got); err != nil || !ok {
		ts.Fatalf("%s: %s is %q, want %q (%v)", args[0], args[1], got, args[2], err)
	}
}

func fieldText(v any, keys []string) string {
	for _, key := range keys {
		switch in := v.(type) {
		case map[string]any:
			next, ok := in[key]
			if !ok {
				return "absent"
			}
			v = next
		case []any:
			i, err := strconv.Atoi(key)
			switch {
			case key == "#":
				v = len(in)
			case err != nil || i < 0 || i >= len(in):
				return "absent"
			default:
				v = in[i]
			}
		default:
			return "absent"
		}
	}
	if s, ok := v.(string); ok {
		return s
	}
	text, _ := json.Marshal(v)
	return string(text)
}

// node is an entry of a folder, for packing and comparing.
type node struct {
	path string // with slashes
	mode fs.FileMode
	time time.Time
	data []byte // or a link's target
}

// exec reports whether somebody may execute the file. Windows has no such bits.
func (n node) exec() bool { return n.mode.IsRegular() && n.mode&0o111 != 0 && !winBuild() }

// readTree reads all of a folder but Ferry's own state.
func readTree(dir string) ([]node, error) {
	var nodes []node
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if rel == tree.StateDir {
			return fs.SkipDir
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		n := node{path: filepath.ToSlash(rel), mode: fi.Mode(), time: fi.ModTime()}
		switch {
		case fi.Mode().IsRegular():
			n.data, err = os.ReadFile(path)
		case fi.Mode()&fs.ModeSymlink != 0:
			var target string
			target, err = os.Readlink(path)
			n.data = []byte(target)
		}
		nodes = append(nodes, n)
		return err
	})
	return nodes, err
}

// writeTree writes nodes to a new folder.
func writeTree(dir string, nodes []node) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	for _, n := range nodes {
		path := filepath.Join(dir, filepath.FromSlash(n.path))
		var err error
		switch {
		case n.mode.IsDir():
			err = os.MkdirAll(path, 0o777)
		case n.mode&fs.ModeSymlink != 0:
			err = os.Symlink(string(n.data), path)
		default:
			err = writeFile(path, n.data, n.mode.Perm(), n.time)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// diffTrees lists how two folders differ.
func diffTrees(a, b string) ([]string, error) {
	nodesA, err := readTree(a)
	if err != nil {
		return nil, err
	}
	nodesB, err := readTree(b)
	if err != nil {
		return nil, err
	}
	return diffNodes(nodesA, nodesB), nil
}

// diffNodes lists how what is there differs from what is wanted.
func diffNodes(got, want []node) []string {
	have := map[string]node{}
	for _, n := range got {
		have[n.path] = n
	}
	var diffs []string
	differ := func(path, format string, args ...any) {
		diffs = append(diffs, path+": "+fmt.Sprintf(format, args...))
	}
	for _, want := range want {
		got, ok := have[want.path]
		delete(have, want.path)
		switch {
		case !ok:
			differ(want.path, "only in the second")
		case got.mode.Type() != want.mode.Type():
			differ(want.path, "%s and %s", got.mode, want.mode)
		case string(got.data) != string(want.data):
			differ(want.path, "content differs (%d and %d bytes)", len(got.data), len(want.data))
		case got.exec() != want.exec():
			differ(want.path, "executable %t and %t", got.exec(), want.exec())
		case got.mode.IsRegular() && got.time.Unix() != want.time.Unix():
			differ(want.path, "times %s and %s", got.time.UTC(), want.time.UTC())
		}
	}
	for path := range have {
		differ(path, "only in the first")
	}
	slices.Sort(diffs)
	return diffs
}

func cmdSameTree(ts *testscript.TestScript, neg bool, args []string) {
	wants(ts, false, args, 2, "[!] sametree A B")
	diffs, err := diffTrees(ts.MkAbs(args[0]), ts.MkAbs(args[1]))
	ts.Check(err)
	switch {
	case neg && len(diffs) == 0:
		ts.Fatalf("%s and %s are the same", args[0], args[1])
	case !neg && len(diffs) > 0:
		ts.Fatalf("%s and %s differ:\n%s", args[0], args[1], strings.Join(diffs, "\n"))
	}
}

func cmdCopyTree(ts *testscript.TestScript, neg bool, args []string) {
	wants(ts, neg, args, 2, "copytree FROM TO")
	nodes, err := readTree(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Check(writeTree(ts.MkAbs(args[1]), nodes))
}

// create writes a file with fn.
func create(name string, fn func(w io.Writer) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(fn(f), f.Close())
}

func cmdMkzip(ts *testscript.TestScript, neg bool, args []string) {
	wants(ts, neg, args, 2, "mkzip DIR ARCHIVE")
	nodes, err := readTree(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Check(create(ts.MkAbs(args[1]), func(w io.Writer) error {
		zw := zip.NewWriter(w)
		for _, n := range nodes {
			h := &zip.FileHeader{Name: n.path, Method: zip.Deflate, Modified: n.time.UTC()}
			h.SetMode(n.mode)
			if n.mode.IsDir() {
				h.Name += "/"
			}
			entry, err := zw.CreateHeader(h)
			if err != nil {
				return err
			}
			if _, err := entry.Write(n.data); err != nil {
				return err
			}
		}
		return zw.Close()
	}))
}

func writeTar(w io.Writer, nodes []node) error {
	tw := tar.NewWriter(w)
	for _, n := range nodes {
		h := &tar.Header{Name: "./" + n.path, Mode: int64(n.mode.Perm()), ModTime: n.time, Typeflag: tar.TypeReg, Size: int64(len(n.data))}
		switch {
		case n.mode.IsDir():
			h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
		case n.mode&fs.ModeSymlink != 0:
			h.Typeflag, h.Linkname, h.Size, n.data = tar.TypeSymlink, string(n.data), 0, nil
		}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := tw.Write(n.data); err != nil {
			return err
		}
	}
	return tw.Close()
}

func cmdMktar(ts *testscript.TestScript, neg bool, args []string) {
	wants(ts, neg, args, 2, "mktar DIR ARCHIVE")
	nodes, err := readTree(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Check(create(ts.MkAbs(args[1]), func(w io.Writer) error { return writeTar(w, nodes) }))
}

func cmdMktargz(ts *testscript.TestScript, neg bool, args []string) {
	wants(ts, neg, args, 2, "mktargz DIR ARCHIVE")
	nodes, err := readTree(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Check(create(ts.MkAbs(args[1]), func(w io.Writer) error {
		zw := gzip.NewWriter(w)
		return errors.Join(writeTar(zw, nodes), zw.Close())
	}))
}

func cmdZipNames(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: zipnames ARCHIVE NAME…")
	}
	ts.Check(create(ts.MkAbs(args[0]), func(w io.Writer) error {
		zw := zip.NewWriter(w)
		for _, name := range args[1:] {
			h := &zip.FileHeader{Name: name, Modified: sampleTime}
			content := "content of " + name + "\n"
			if link, target, ok := strings.Cut(name, "->"); ok {
				h.Name, content = link, target
				h.SetMode(fs.ModeSymlink | 0o777)
			}
			entry, err := zw.CreateHeader(h)
			if err != nil {
				return err
			}
			if _, err := io.WriteString(entry, content); err != nil {
				return err
			}
		}
		return zw.Close()
	}))
}
