//go:build unix

package main

import (
	"fmt"
	"os"
)

// product is one product in many releases, each a rebuild of its programs.
var product = struct {
	name     string
	releases []string
}{"@esbuild/win32-x64", []string{
	"0.25.5", "0.25.6", "0.25.8", "0.25.9", "0.25.10", "0.25.11", "0.25.12", "0.27.0",
	"0.27.1", "0.27.2", "0.27.3", "0.27.4", "0.27.5", "0.28.0", "0.28.1", "0.28.2",
}}

// archives measures what stores make of many releases of one product.
func (b *bench) archives() error {
	var plain int64
	var dirs []string
	for _, release := range product.releases {
		dir := b.path("releases", release)
		dirs = append(dirs, dir)
		err := once(dir, func(dir string) error { return b.npm(product.name, release, dir) })
		if err != nil {
			return err
		}
		plain += size(dir)
	}
	fmt.Printf("\n### %d releases of %s, %d bytes\n\n| store | wall s | CPU s | peak MiB | bytes |\n|---|---|---|---|---|\n", len(product.releases), product.name, plain)
	best, err := b.peerStores(dirs)
	if err != nil {
		return err
	}
	if _, err := b.addAll(dirs); err != nil {
		return err
	}
	last := archived(len(dirs) - 1)
	export := func(name string) error {
		s, err := b.median(b.remove("out4"), b.archive("export", last, "-o", b.path("out4"))...)
		if err == nil {
			storeRow(name, s, size(b.path("out4")))
		}
		return err
	}
	if err := export("ferry export of the last, before"); err != nil {
		return err
	}
	stored, err := b.optimize()
	if err != nil {
		return err
	}
	if err := export("ferry export of the last, after"); err != nil {
		return err
	}
	if _, err := b.command(b.archive("check", "--read-data")...); err != nil {
		return err
	}
	for i := range dirs {
		if _, err := b.command(b.archive("verify", archived(i))...); err != nil {
			return err
		}
	}
	fmt.Printf("\nferry ÷ best peer: %.3f\n", float64(stored)/float64(best))
	return nil
}

// archive is a ferry command line on the store of releases.
func (b *bench) archive(args ...string) []string {
	return append([]string{b.ferry, "--store", b.path("s4")}, args...)
}

// archived is what release i is called in that store.
func archived(i int) string { return fmt.Sprint("p@", i) }

// addAll adds releases, prints what that takes, and returns the store's size.
func (b *bench) addAll(dirs []string) (int64, error) {
	var sum sample
	for i, dir := range dirs {
		s, err := b.command(b.archive("add", dir, archived(i))...)
		if err != nil {
			return 0, err
		}
		sum.add(s)
	}
	stored := size(b.path("s4"))
	storeRow("ferry add", sum, stored)
	return stored, nil
}

// optimize optimizes the store, prints what that takes, and returns its size.
func (b *bench) optimize() (int64, error) {
	sum, err := b.command(b.archive("optimize")...)
	if err != nil {
		return 0, err
	}
	pruned, err := b.command(b.archive("prune", "--grace", "0")...)
	if err != nil {
		return 0, err
	}
	sum.add(pruned)
	stored := size(b.path("s4"))
	storeRow("ferry optimize and prune", sum, stored)
	return stored, nil
}

// peerStores puts folders into stores of other tools, prints what that takes, and
// returns the size of the smallest. It clears the folders that hold stores.
func (b *bench) peerStores(dirs []string) (best int64, err error) {
	if err := b.remove("s4", "restic4", "borg4", "casync4", "out4")(); err != nil {
		return 0, err
	}
	if err := os.MkdirAll(b.path("casync4"), 0o777); err != nil {
		return 0, err
	}
	for _, peer := range []struct {
		tool, name, store string
		begin             []string
		args              func(i int, dir string) []string
	}{
		{"restic", "restic backup --compression max", "restic4", []string{"restic", "-r", b.path("restic4"), "init"}, func(_ int, dir string) []string {
			return []string{"restic", "-r", b.path("restic4"), "backup", "--compression", "max", dir}
		}},
		{"borg", "borg create -C zstd,19", "borg4", []string{"borg", "init", "-e", "none", b.path("borg4")}, func(i int, dir string) []string {
			return []string{"borg", "create", "-C", "zstd,19", fmt.Sprint(b.path("borg4"), "::", i), dir}
		}},
		{"casync", "casync make", "casync4", nil, func(i int, dir string) []string {
			return []string{"casync", "make", "--store=" + b.path("casync4", "store"), b.path("casync4", fmt.Sprint(i, ".caidx")), dir}
		}},
	} {
		if !have(peer.tool) {
			continue
		}
		if peer.begin != nil {
			if _, err := b.command(peer.begin...); err != nil {
				return 0, err
			}
		}
		var sum sample
		for i, dir := range dirs {
			s, err := b.command(peer.args(i, dir)...)
			if err != nil {
				return 0, err
			}
			sum.add(s)
		}
		n := size(b.path(peer.store))
		if best == 0 || n < best {
			best = n
		}
		storeRow(peer.name, sum, n)
	}
	return best, nil
}

func storeRow(name string, s sample, stored int64) {
	fmt.Printf("| %s | %.2f | %.2f | %.0f | %d |\n", name, s.wall.Seconds(), s.cpu.Seconds(), float64(s.rss)/(1<<20), stored)
}

// add counts a run that came after.
func (s *sample) add(next sample) {
	s.wall += next.wall
	s.cpu += next.cpu
	s.rss = max(s.rss, next.rss)
}
