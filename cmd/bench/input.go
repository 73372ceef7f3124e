//go:build unix

package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// packages are npm packages that carry real programs for Windows and Linux, and
// text, each in two consecutive releases.
var packages = []npmPackage{
	{"next", [2]string{"15.5.3", "15.5.4"}},
	{"typescript", [2]string{"5.9.2", "5.9.3"}},
	{"@esbuild/win32-x64", [2]string{"0.28.1", "0.28.2"}},
	{"@esbuild/linux-x64", [2]string{"0.28.1", "0.28.2"}},
	{"@swc/core-win32-x64-msvc", [2]string{"1.15.46", "1.15.47"}},
	{"@swc/core-linux-x64-gnu", [2]string{"1.15.46", "1.15.47"}},
	{"@next/swc-win32-x64-msvc", [2]string{"15.5.3", "15.5.4"}},
	{"@next/swc-linux-x64-gnu", [2]string{"15.5.3", "15.5.4"}},
	{"@next/swc-darwin-arm64", [2]string{"15.5.3", "15.5.4"}},
}

type npmPackage struct {
	name     string
	releases [2]string
}

func (p npmPackage) folder() string {
	return strings.ReplaceAll(strings.TrimPrefix(p.name, "@"), "/", "-")
}

// inputs builds the two trees base and target in the working folder, of about
// 1 GB each: the Go toolchain, and the npm packages.
func (b *bench) inputs() error {
	if err := b.build(); err != nil {
		return err
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env: %w", err)
	}
	for i, side := range []string{"base", "target"} {
		err := once(b.path(side), func(dir string) error {
			if err := run("cp", "-a", strings.TrimSpace(string(root)), filepath.Join(dir, "go")); err != nil {
				return err
			}
			for _, p := range packages {
				if err := b.npm(p.name, p.releases[i], filepath.Join(dir, p.folder())); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// build makes the working folder and the program to measure.
func (b *bench) build() error {
	if err := os.MkdirAll(b.dir, 0o777); err != nil {
		return err
	}
	b.ferry = b.path("ferry")
	fmt.Printf("%s/%s, %d cores, %s\n", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version())
	return run("go", "build", "-o", b.ferry, "./cmd/ferry")
}

// bigFiles makes a folder with a file of 10 GB, most of it a hole with real bytes
// here and there, and 1.5 GB of other bytes; and a changed copy of it.
func (b *bench) bigFiles() error {
	for i, side := range []string{"big-base", "big-target"} {
		if err := os.MkdirAll(b.path(side), 0o777); err != nil {
			return err
		}
		if err := b.sparse(filepath.Join(side, "disk.img"), uint64(i)); err != nil {
			return err
		}
		if err := b.noise(filepath.Join(side, "noise.bin"), uint64(i)); err != nil {
			return err
		}
	}
	return nil
}

const (
	sparseSize = 10 << 30
	pieceSize  = 64 << 20
	noiseSize  = 1536 << 20
)

// sparse writes 20 pieces of a real program into a hole; the changed copy has one
// piece more.
func (b *bench) sparse(name string, changed uint64) error {
	program, err := os.ReadFile(b.path("base", "next-swc-linux-x64-gnu", "next-swc.linux-x64-gnu.node"))
	if err != nil {
		return err
	}
	program = program[:min(len(program), pieceSize)]
	f, err := os.Create(b.path(name))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(sparseSize); err != nil {
		return err
	}
	for i := range 20 + int(changed) {
		if _, err := f.WriteAt(program[i*4096:], int64(i)*(sparseSize/24)+int64(i)*4096); err != nil {
			return err
		}
	}
	return nil
}

// noise writes bytes that do not compress; the changed copy has a MiB more in front.
func (b *bench) noise(name string, changed uint64) error {
	f, err := os.Create(b.path(name))
	if err != nil {
		return err
	}
	defer f.Close()
	rng := rand.NewChaCha8([32]byte{1})
	buf := make([]byte, 1<<20)
	if changed > 0 {
		rand.NewChaCha8([32]byte{2}).Read(buf)
		if _, err := f.Write(buf); err != nil {
			return err
		}
	}
	for range noiseSize >> 20 {
		rng.Read(buf)
		if _, err := f.Write(buf); err != nil {
			return err
		}
	}
	return nil
}
