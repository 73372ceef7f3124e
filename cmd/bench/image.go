//go:build unix

package main

import (
	_ "embed" // the script
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// buildImages builds the pair of images.
//
//go:embed image.sh
var buildImages string

// images measures a Debian image and what an upgrade made of it: deltas, stores, and
// looks inside. It must be run as root, to build the images.
func (b *bench) images() error {
	if err := b.build(); err != nil {
		return err
	}
	err := once(b.path("image"), func(dir string) error {
		cmd := exec.Command("bash", "-c", buildImages)
		cmd.Dir, cmd.Stderr = dir, os.Stderr
		return cmd.Run()
	})
	if err != nil {
		return err
	}
	for _, part := range []func(base, target string) error{b.imageDelta, b.imageStore, b.imageInside} {
		if err := part(b.path("image", "base.vhdx"), b.path("image", "target.vhdx")); err != nil {
			return err
		}
	}
	// The same of images without what is left of deleted files.
	var compact [2]string
	for i, name := range []string{"base", "target"} {
		compact[i] = b.path("compact-" + name + ".vhdx")
		s, err := b.command(b.ferry, "image", "compact", b.path("image", name+".vhdx"), compact[i], "--force")
		if err != nil {
			return err
		}
		fmt.Printf("\nferry image compact of %s: %.2f s, %.0f MiB\n", name, s.wall.Seconds(), float64(s.rss)/(1<<20))
	}
	return b.imageDelta(compact[0], compact[1])
}

// imageDelta measures deltas of one pair beside its peers.
func (b *bench) imageDelta(base, target string) error {
	fmt.Printf("\n### Delta of %s (%d bytes) to %s (%d bytes)\n\n| tool | bytes | create s | CPU s | MiB | apply s | MB/s | MiB |\n|---|---|---|---|---|---|---|---|\n", filepath.Base(base), size(base), filepath.Base(target), size(target))
	line := func(name, patch string, made, applied sample) int64 {
		n := size(patch)
		fmt.Printf("| %s | %d | %.1f | %.1f | %.0f | %.2f | %.0f | %.0f |\n", name, n, made.wall.Seconds(), made.cpu.Seconds(), float64(made.rss)/(1<<20),
			applied.wall.Seconds(), float64(size(target))/1e6/applied.wall.Seconds(), float64(applied.rss)/(1<<20))
		return n
	}
	best := int64(0)
	for _, peer := range peers {
		if !have(peer.tool) || peer.tool == "bsdiff" { // which takes 17 times the base's size of memory
			continue
		}
		b.remove("patch", "patched")()
		made, err := b.timed(30*time.Minute, peer.create(base, target, b.path("patch"))...)
		if err != nil {
			fmt.Printf("| %s | failed: %.60s | | | | | | |\n", peer.name, strings.ReplaceAll(err.Error(), "\n", " "))
			continue
		}
		applied, err := b.command(peer.apply(base, b.path("patch"), b.path("patched"))...)
		if err != nil {
			return err
		}
		if n := line(peer.name, b.path("patch"), made, applied); best == 0 || n < best {
			best = n
		}
	}
	b.remove("patch", "patched", "d.ferry", "applied")()
	made, err := b.command(b.ferry, "delta", "create", base, target, "-o", b.path("d.ferry"))
	if err != nil {
		return err
	}
	applied, err := b.command(b.ferry, "delta", "apply", b.path("d.ferry"), "--base", base, "--to", b.path("applied"))
	if err != nil {
		return err
	}
	if err := run("cmp", target, b.path("applied", filepath.Base(target))); err != nil {
		return err
	}
	n := line("ferry", b.path("d.ferry"), made, applied)
	b.remove("applied")()
	if best > 0 {
		fmt.Printf("\nferry ÷ best peer: %.2f\n", float64(n)/float64(best))
	}
	return nil
}

// imageStore measures how much a store grows by the second image.
func (b *bench) imageStore(base, target string) error {
	fmt.Printf("\n### Both images in a store\n\n| store | first s | CPU s | bytes | second s | CPU s | bytes more |\n|---|---|---|---|---|---|---|\n")
	for _, peer := range []struct {
		name, store string
		begin       []string
		add         func(file string) []string
	}{
		{"restic backup --compression max", "restic5", []string{"restic", "init", "-q", "-r", "restic5"}, func(f string) []string {
			return []string{"restic", "-r", "restic5", "backup", "-q", "--compression", "max", f}
		}},
		{"borg create -C zstd,19", "borg5", []string{"borg", "init", "-e", "none", "borg5"}, func(f string) []string {
			return []string{"borg", "create", "-C", "zstd,19", "borg5::" + filepath.Base(f), f}
		}},
		{"desync make", "desync5", []string{"mkdir", "-p", "desync5"}, func(f string) []string {
			return []string{"desync", "make", "-s", "desync5", b.path("index.caibx"), f}
		}},
		{"casync make", "casync5", []string{"mkdir", "-p", "casync5"}, func(f string) []string {
			return []string{"casync", "make", "--store=casync5", b.path("index.caibx"), f}
		}},
		{"ferry add", "s5", nil, func(f string) []string {
			return []string{b.ferry, "--store", "s5", "add", f, "image@" + filepath.Base(f)}
		}},
	} {
		if !have(peer.add(base)[0]) {
			continue
		}
		b.remove(peer.store, "borg-home")()
		if peer.begin != nil {
			if _, err := b.command(peer.begin...); err != nil {
				return err
			}
		}
		first, err := b.command(peer.add(base)...)
		if err != nil {
			return err
		}
		before := size(b.path(peer.store))
		second, err := b.command(peer.add(target)...)
		if err != nil {
			return err
		}
		fmt.Printf("| %s | %.1f | %.1f | %d | %.1f | %.1f | %d |\n", peer.name, first.wall.Seconds(), first.cpu.Seconds(), before, second.wall.Seconds(), second.cpu.Seconds(), size(b.path(peer.store))-before)
	}
	b.remove("out5")()
	s, err := b.command(b.ferry, "--store", "s5", "export", "image@target.vhdx", "-o", "out5")
	if err != nil {
		return err
	}
	fmt.Printf("\nexport of the second: %.1f s, %.0f MB/s\n", s.wall.Seconds(), float64(size(target))/1e6/s.wall.Seconds())
	return run("cmp", target, b.path("out5", "target.vhdx"))
}

// imageInside looks into the images, and compares the packages with those that dpkg
// itself lists.
func (b *bench) imageInside(base, target string) error {
	s, err := b.median(nil, b.ferry, "image", "diff", base, target)
	if err != nil {
		return err
	}
	out, err := exec.Command(b.ferry, "image", "diff", base, target, "--json").Output()
	if err != nil {
		return err
	}
	var diff struct {
		DebianPackageDiff struct{ Added, Removed, Changed []string }
	}
	if err := json.Unmarshal(out, &diff); err != nil {
		return err
	}
	lists := [2]map[string]string{}
	for i, name := range []string{"base", "target"} {
		data, err := os.ReadFile(b.path("image", name+".packages"))
		if err != nil {
			return err
		}
		lists[i] = map[string]string{}
		for _, line := range strings.Fields(string(data)) {
			name, version, _ := strings.Cut(line, "=")
			lists[i][name] = version
		}
	}
	var want []string
	for name, version := range lists[1] {
		if was, ok := lists[0][name]; !ok {
			want = append(want, name+"="+version)
		} else if was != version {
			want = append(want, name+": "+was+" -> "+version)
		}
	}
	for name, version := range lists[0] {
		if _, ok := lists[1][name]; !ok {
			want = append(want, name+"="+version)
		}
	}
	p := diff.DebianPackageDiff
	got := slices.Concat(p.Added, p.Removed, p.Changed)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		return errors.New("the packages are not those that dpkg lists")
	}
	verify, err := b.median(nil, b.ferry, "verify", target)
	if err != nil {
		return err
	}
	fmt.Printf("\n### Inside\n\nimage diff: %.2f s, %.0f MiB; %d packages differ, as dpkg lists them. verify: %.2f s, %.0f MiB.\n",
		s.wall.Seconds(), float64(s.rss)/(1<<20), len(got), verify.wall.Seconds(), float64(verify.rss)/(1<<20))
	return nil
}
