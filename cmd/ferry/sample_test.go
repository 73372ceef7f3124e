package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// sampleFile is a file of the sample package.
type sampleFile struct {
	path string
	data []byte
	mode fs.FileMode // 0o644 where 0
	time time.Time   // sampleTime where zero
}

// sampleFiles returns a version of the sample package. From version 1 to 2,
// there is one file at least for each thing that can happen to a path:
//
//	VERSION, bin/app, data/big.bin   changed: short, executable, large
//	conf/same.conf, data/same.bin    unchanged
//	data/zero.img                    changed, and mostly zeros
//	docs/old.txt                     renamed to docs/new.txt
//	docs/copy.bin                    a copy of data/same.bin
//	docs/added.txt, data/added.bin   added
//	removed.txt, removed/inner.txt   removed
//	stamp.txt                        of another time only
//	swap-a, swap-b                   a file becomes a folder, and the reverse
//	empty1, empty2                   an empty folder removed, another added
func sampleFiles(version int) []sampleFile {
	big, app, zero := seededBytes(2<<20, 1), append([]byte("#!/bin/sh\n"), seededBytes(300<<10, 2)...), make([]byte, 1<<20)
	same, renamed := seededBytes(200<<10, 3), seededBytes(50<<10, 4)
	copy(zero[500_000:], "one")
	common := []sampleFile{
		{path: "conf/same.conf", data: []byte("key = value\n")},
		{path: "data/same.bin", data: same},
	}
	if version == 1 {
		return append(common,
			sampleFile{path: "VERSION", data: []byte("1.0.0\n")},
			sampleFile{path: "bin/app", data: app, mode: 0o755},
			sampleFile{path: "data/big.bin", data: big},
			sampleFile{path: "data/zero.img", data: zero},
			sampleFile{path: "docs/old.txt", data: renamed},
			sampleFile{path: "removed.txt", data: []byte("gone in 2\n")},
			sampleFile{path: "removed/inner.txt", data: []byte("gone in 2, with its folder\n")},
			sampleFile{path: "stamp.txt", data: []byte("only its time changes\n")},
			sampleFile{path: "swap-a", data: []byte("a file in 1\n")},
			sampleFile{path: "swap-b/inner.txt", data: []byte("in a folder in 1\n")},
			sampleFile{path: "empty1", mode: fs.ModeDir},
		)
	}
	copy(app[100_000:], "version two")
	copy(zero[600_000:], "two")
	big = slices.Concat(big[:700_000], []byte("an insertion"), big[700_000:1_500_000], seededBytes(40<<10, 5), big[1_500_000:])
	return append(common,
		sampleFile{path: "VERSION", data: []byte("2.0.0\n")},
		sampleFile{path: "bin/app", data: app, mode: 0o755},
		sampleFile{path: "data/big.bin", data: big},
		sampleFile{path: "data/zero.img", data: zero},
		sampleFile{path: "data/added.bin", data: seededBytes(90<<10, 6)},
		sampleFile{path: "docs/new.txt", data: renamed},
		sampleFile{path: "docs/copy.bin", data: same},
		sampleFile{path: "docs/added.txt", data: []byte("new in 2\n")},
		sampleFile{path: "stamp.txt", data: []byte("only its time changes\n"), time: sampleTime.Add(24 * time.Hour)},
		sampleFile{path: "swap-a/inner.txt", data: []byte("in a folder in 2\n")},
		sampleFile{path: "swap-b", data: []byte("a file in 2\n")},
		sampleFile{path: "empty2", mode: fs.ModeDir},
	)
}

// writeSample writes files into a folder.
func writeSample(dir string, files []sampleFile) error {
	for _, f := range files {
		path := filepath.Join(dir, filepath.FromSlash(f.path))
		if f.mode.IsDir() {
			if err := os.MkdirAll(path, 0o777); err != nil {
				return err
			}
			continue
		}
		if f.mode == 0 {
			f.mode = 0o644
		}
		if f.time.IsZero() {
			f.time = sampleTime
		}
		if err := writeFile(path, f.data, f.mode, f.time); err != nil {
			return err
		}
	}
	return nil
}

func cmdSample(ts *testscript.TestScript, neg bool, args []string) {
	wants(ts, neg, args, 2, "sample N DIR")
	version, err := strconv.Atoi(args[0])
	ts.Check(err)
	ts.Check(writeSample(ts.MkAbs(args[1]), sampleFiles(version)))
}
