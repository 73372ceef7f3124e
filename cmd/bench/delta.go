//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// pair is two releases of one thing.
type pair struct {
	kind, name string
	fetch      func(b *bench, dir, release string) error
	old, new   string
	file       string // in what is fetched; empty for the whole folder
}

// Kinds of pairs, each with a budget of its own.
const (
	kindProgram = "linked executables"
	kindKernel  = "kernel modules"
	kindText    = "source and scripts"
	kindPacked  = "already compressed"
)

// pairs are consecutive releases of programs in Go, Rust, C and C++ for Windows and
// Linux, of a kernel, and of texts.
var pairs = []pair{
	npmPair(kindProgram, "@esbuild/win32-x64", "0.28.1", "0.28.2", "esbuild.exe"),
	npmPair(kindProgram, "@esbuild/linux-x64", "0.28.1", "0.28.2", "bin/esbuild"),
	npmPair(kindProgram, "@swc/core-win32-x64-msvc", "1.15.46", "1.15.47", "swc.win32-x64-msvc.node"),
	npmPair(kindProgram, "@swc/core-linux-x64-gnu", "1.15.46", "1.15.47", "swc.linux-x64-gnu.node"),
	npmPair(kindProgram, "@biomejs/cli-linux-x64", "2.6.7", "2.6.8", "biome"),
	npmPair(kindProgram, "lightningcss-win32-x64-msvc", "1.30.1", "1.30.2", "lightningcss.win32-x64-msvc.node"),
	npmPair(kindProgram, "@esbuild/linux-arm64", "0.28.1", "0.28.2", "bin/esbuild"),
	npmPair(kindProgram, "@swc/core-linux-arm64-gnu", "1.15.46", "1.15.47", "swc.linux-arm64-gnu.node"),
	npmPair(kindProgram, "turbo-windows-64", "2.8.16", "2.8.17", "bin/turbo.exe"),
	npmPair(kindProgram, "@img/sharp-libvips-linux-x64", "1.3.3", "1.3.4", "lib/libvips-cpp.so.*"),
	npmPair(kindProgram, "@parcel/watcher-linux-x64-glibc", "2.5.4", "2.5.6", "watcher.node"),
	debPair(kindProgram, "nginx", "1.22.1-9+deb12u9", "1.22.1-9+deb12u11", "usr/sbin/nginx"),
	debPair(kindProgram, "libssl3", "3.0.20-1~deb12u2", "3.0.22-1~deb12u2", "usr/lib/x86_64-linux-gnu/libcrypto.so.3"),
	debPair(kindProgram, "git", "1:2.39.5-0+deb12u2", "1:2.39.5-0+deb12u3", "usr/bin/git"),
	debPair(kindProgram, "php8.2-cli", "8.2.32-1~deb12u1", "8.2.36-1~deb12u1", "usr/bin/php8.2"),
	debPair(kindProgram, "postgresql-15", "15.18-0+deb12u1", "15.20-0+deb12u1", "usr/lib/postgresql/15/bin/postgres"),
	debPair(kindKernel, "linux-image-6.1.0-55-amd64", "linux-image-6.1.0-55-amd64", "linux-image-6.1.0-56-amd64", ""),
	npmPair(kindText, "next", "15.5.3", "15.5.4", ""),
	npmPair(kindText, "typescript", "5.9.2", "5.9.3", ""),
	npmPair(kindText, "typescript 5.8", "5.8.3", "5.9.2", ""),
	npmPair(kindText, "webpack", "5.98.0", "5.99.9", ""),
	goPair("k8s.io/kubernetes", "1.33.1", "1.33.2"),
	goPair("k8s.io/kubernetes 1.32", "1.32.5", "1.33.2"),
	goPair("k8s.io/kubernetes 1.31", "1.31.0", "1.32.0"),
	goPair("github.com/prometheus/prometheus", "0.54.0", "0.55.0"),
	npmPair(kindPacked, "next", "15.5.3", "15.5.4", "\x00"),
}

// npmPair is a pair of npm packages; file NUL means the packed package itself.
func npmPair(kind, name, old, new, file string) pair {
	if file == "\x00" {
		return pair{kind, name + " (packed)", func(b *bench, dir, release string) error {
			return b.npmPacked(name, release, filepath.Join(dir, packed))
		}, old, new, packed}
	}
	module := strings.Fields(name)[0]
	return pair{kind, name, func(b *bench, dir, release string) error { return b.npm(module, release, dir) }, old, new, file}
}

// goPair is a pair of the sources of a Go module.
func goPair(name, old, new string) pair {
	module := strings.Fields(name)[0]
	return pair{kindText, name, func(_ *bench, dir, release string) error {
		out, err := exec.Command("go", "mod", "download", "-json", module+"@v"+release).Output()
		if err != nil {
			return fmt.Errorf("go mod download %s@v%s: %w", module, release, err)
		}
		var found struct{ Dir string }
		if err := json.Unmarshal(out, &found); err != nil {
			return err
		}
		if err := run("cp", "-r", found.Dir+"/.", dir); err != nil {
			return err
		}
		return run("chmod", "-R", "u+w", dir)
	}, old, new, ""}
}

// packed is what an npm package's file is called here.
const packed = "package.tgz"

// debPair is a pair of Debian packages; of a kernel's, the modules of one folder
// name, whatever their version.
func debPair(kind, name, old, new, file string) pair {
	return pair{kind, name, func(b *bench, dir, release string) error {
		what := name + "=" + release
		if kind == kindKernel {
			what = release
		}
		tmp, err := os.MkdirTemp(b.dir, "deb")
		if err != nil {
			return err
		}
		defer os.RemoveAll(tmp)
		cmd := exec.Command("apt-get", "download", what)
		cmd.Dir = tmp
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get download %s: %w\n%s", what, err, out)
		}
		debs, _ := filepath.Glob(filepath.Join(tmp, "*.deb"))
		if len(debs) != 1 {
			return fmt.Errorf("apt-get download %s gave %d packages", what, len(debs))
		}
		if kind != kindKernel {
			return run("dpkg-deb", "-x", debs[0], dir)
		}
		if err := run("dpkg-deb", "-x", debs[0], tmp); err != nil {
			return err
		}
		modules, _ := filepath.Glob(filepath.Join(tmp, "lib/modules/*/kernel"))
		if len(modules) != 1 {
			return fmt.Errorf("%s holds no modules", what)
		}
		return run("cp", "-a", modules[0]+"/.", dir)
	}, old, new, file}
}

// peer makes patches of files.
type peer struct {
	name   string
	tool   string
	create func(old, new, patch string) []string
	apply  func(old, patch, out string) []string
}

var peers = []peer{
	{"xdelta3 -9 -S lzma", "xdelta3",
		func(old, new, patch string) []string {
			return []string{"xdelta3", "-e", "-f", "-9", "-S", "lzma", "-B", "1073741824", "-s", old, new, patch}
		},
		func(old, patch, out string) []string {
			return []string{"xdelta3", "-d", "-f", "-B", "1073741824", "-s", old, patch, out}
		}},
	{"bsdiff", "bsdiff",
		func(old, new, patch string) []string { return []string{"bsdiff", old, new, patch} },
		func(old, patch, out string) []string { return []string{"bspatch", old, out, patch} }},
	{"zstd -19 --patch-from", "zstd",
		func(old, new, patch string) []string {
			return []string{"zstd", "-q", "-f", "-19", "--long=31", "--patch-from=" + old, new, "-o", patch}
		},
		func(old, patch, out string) []string {
			return []string{"zstd", "-q", "-f", "-d", "--long=31", "--memory=2048MB", "--patch-from=" + old, patch, "-o", out}
		}},
	{"hdiffz -m-1 lzma2", "hdiffz",
		func(old, new, patch string) []string {
			return []string{"hdiffz", "-f", "-m-1", "-c-lzma2-9-64m", old, new, patch}
		},
		func(old, patch, out string) []string { return []string{"hpatchz", "-f", old, patch, out} }},
}

// deltaTables measures patches of all pairs.
func (b *bench) deltaTables() error {
	ratios := map[string][]float64{}
	for _, p := range pairs {
		if !b.pairs.MatchString(p.name) {
			continue
		}
		if err := b.fetchPair(p); err != nil {
			fmt.Printf("\n%s: not measured: %v\n", p.name, err)
			continue
		}
		ratio, err := b.measurePair(p)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		ratios[p.kind] = append(ratios[p.kind], ratio)
	}
	fmt.Printf("\n### ferry at default effort ÷ best peer\n\n| kind | pairs | best | median | worst |\n|---|---|---|---|---|\n")
	for _, kind := range []string{kindProgram, kindKernel, kindText, kindPacked} {
		if r := ratios[kind]; len(r) > 0 {
			slices.Sort(r)
			fmt.Printf("| %s | %d | %.2f | %.2f | %.2f |\n", kind, len(r), r[0], (r[len(r)/2]+r[(len(r)-1)/2])/2, r[len(r)-1])
		}
	}
	return nil
}

func (p pair) dir(side string) string {
	name := strings.NewReplacer("@", "", "/", "-", " ", "-").Replace(p.name)
	return filepath.Join("pairs", name, side)
}

func (b *bench) fetchPair(p pair) error {
	for side, release := range map[string]string{"old": p.old, "new": p.new} {
		err := once(b.path(p.dir(side)), func(dir string) error { return p.fetch(b, dir, release) })
		if err != nil {
			return err
		}
	}
	return nil
}

// sides returns what is patched: files for peers, and what ferry is given.
func (b *bench) sides(p pair) (files, given [2]string, err error) {
	for i, side := range []string{"old", "new"} {
		dir := b.path(p.dir(side))
		if p.file == "" { // peers patch files: they get a tar, names sorted, with no times to carry
			files[i], given[i] = dir+".tar", dir
			if err := run("tar", "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "-cf", files[i], "-C", dir, "."); err != nil {
				return files, given, err
			}
			continue
		}
		found, _ := filepath.Glob(filepath.Join(dir, p.file))
		if len(found) != 1 {
			return files, given, fmt.Errorf("%d files %s in %s", len(found), p.file, dir)
		}
		files[i], given[i] = found[0], dir+".one" // as release engineers have it: the file in a folder
		if err := os.RemoveAll(given[i]); err != nil {
			return files, given, err
		}
		if err := os.Mkdir(given[i], 0o777); err != nil {
			return files, given, err
		}
		if err := run("cp", found[0], filepath.Join(given[i], "file")); err != nil {
			return files, given, err
		}
	}
	return files, given, nil
}

func (b *bench) measurePair(p pair) (ratio float64, err error) {
	files, given, err := b.sides(p)
	if err != nil {
		return 0, err
	}
	defer func() {
		for _, dir := range given {
			if strings.HasSuffix(dir, ".one") {
				os.RemoveAll(dir)
			}
		}
		os.Remove(b.path(p.dir("old")) + ".tar")
		os.Remove(b.path(p.dir("new")) + ".tar")
	}()
	fi, err := os.Stat(files[1])
	if err != nil {
		return 0, err
	}
	fmt.Printf("\n### %s: %s %s → %s %s, %d bytes\n\n| tool | bytes | create s | create MiB | apply s | apply MiB |\n|---|---|---|---|---|---|\n", p.kind, p.name, p.old, p.new, strings.Trim(p.file, "\x00"), fi.Size())
	best := int64(0)
	for _, peer := range peers {
		if !have(peer.tool) {
			continue
		}
		patch, out := b.path("patch"), b.path("patched")
		b.remove("patch", "patched")()
		made, err := b.timed(10*time.Minute, peer.create(files[0], files[1], patch)...)
		if err != nil {
			fmt.Printf("| %s | failed: %.60v | | | | |\n", peer.name, strings.ReplaceAll(err.Error(), "\n", " "))
			continue
		}
		applied, err := b.command(peer.apply(files[0], patch, out)...)
		if err != nil {
			return 0, err
		}
		n := size(patch)
		if err := run("cmp", files[1], out); err != nil {
			return 0, err
		}
		if best == 0 || n < best {
			best = n
		}
		patchRow(peer.name, n, made, applied)
	}
	for _, effort := range []string{"fast", "default", "max"} {
		b.remove("d.ferry", "applied")()
		made, err := b.command(b.ferry, "delta", "create", given[0], given[1], "-o", b.path("d.ferry"), "--effort", effort)
		if err != nil {
			return 0, err
		}
		applied, err := b.command(b.ferry, "delta", "apply", b.path("d.ferry"), "--base", given[0], "--to", b.path("applied"))
		if err != nil {
			return 0, err
		}
		if err := run("diff", "-r", "--no-dereference", given[1], b.path("applied")); err != nil {
			return 0, err
		}
		n := size(b.path("d.ferry"))
		patchRow("ferry --effort "+effort, n, made, applied)
		if effort == "default" {
			ratio = float64(n) / float64(best)
		}
	}
	fmt.Printf("\nferry at default effort ÷ best peer: %.3f\n", ratio)
	return ratio, nil
}

// timed is command with a limit.
func (b *bench) timed(limit time.Duration, args ...string) (sample, error) {
	return b.command(append([]string{"timeout", fmt.Sprint(int(limit.Seconds()))}, args...)...)
}

func patchRow(name string, n int64, made, applied sample) {
	fmt.Printf("| %s | %d | %.2f | %.0f | %.2f | %.0f |\n", name, n, made.cpu.Seconds(), float64(made.rss)/(1<<20), applied.cpu.Seconds(), float64(applied.rss)/(1<<20))
}
