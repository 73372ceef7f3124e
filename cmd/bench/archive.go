//go:build unix

package main

import (
	"fmt"
	"os"
	"path/filepath"
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
	trees := b.path("releases")
	var plain int64
	for _, release := range product.releases {
		dir := filepath.Join(trees, release)
		err := once(dir, func(dir string) error { return b.npm(product.name, release, dir) })
		if err != nil {
			return err
		}
		plain += size(dir)
	}
	fmt.Printf("\n### %d releases of %s, %d bytes\n\n| store | wall s | CPU s | peak MiB | bytes |\n|---|---|---|---|---|\n", len(product.releases), product.name, plain)
	b.remove("s4", "restic4", "borg4", "casync4", "out4")()
	each := func(args func(release, dir string) []string) (sum sample, err error) {
		for _, release := range product.releases {
			s, err := b.command(args(release, filepath.Join(trees, release))...)
			if err != nil {
				return sum, err
			}
			sum.add(s)
		}
		return sum, nil
	}
	show := func(name string, s sample, stored int64) {
		fmt.Printf("| %s | %.2f | %.2f | %.0f | %d |\n", name, s.wall.Seconds(), s.cpu.Seconds(), float64(s.rss)/(1<<20), stored)
	}
	best := int64(0)
	peer := func(tool, name, store string, begin []string, args func(release, dir string) []string) error {
		if !have(tool) {
			return nil
		}
		if begin != nil {
			if _, err := b.command(begin...); err != nil {
				return err
			}
		}
		s, err := each(args)
		if err != nil {
			return err
		}
		n := size(b.path(store))
		if best == 0 || n < best {
			best = n
		}
		show(name, s, n)
		return nil
	}
	if err := peer("restic", "restic backup --compression max", "restic4", []string{"restic", "-r", b.path("restic4"), "init"}, func(_, dir string) []string {
		return []string{"restic", "-r", b.path("restic4"), "backup", "--compression", "max", dir}
	}); err != nil {
		return err
	}
	if err := peer("borg", "borg create -C zstd,19", "borg4", []string{"borg", "init", "-e", "none", b.path("borg4")}, func(release, dir string) []string {
		return []string{"borg", "create", "-C", "zstd,19", b.path("borg4") + "::" + release, dir}
	}); err != nil {
		return err
	}
	if err := os.MkdirAll(b.path("casync4"), 0o777); err != nil {
		return err
	}
	if err := peer("casync", "casync make", "casync4", nil, func(release, dir string) []string {
		return []string{"casync", "make", "--store=" + b.path("casync4", "store"), b.path("casync4", release+".caidx"), dir}
	}); err != nil {
		return err
	}
	ferry := func(args ...string) []string {
		return append([]string{b.ferry, "--store", b.path("s4")}, args...)
	}
	s, err := each(func(release, dir string) []string { return ferry("add", dir, "esbuild@"+release) })
	if err != nil {
		return err
	}
	show("ferry add", s, size(b.path("s4")))
	last := "esbuild@" + product.releases[len(product.releases)-1]
	export := func(name string) error {
		s, err := b.median(b.remove("out4"), ferry("export", last, "-o", b.path("out4"))...)
		if err == nil {
			show(name, s, size(b.path("out4")))
		}
		return err
	}
	if err := export("ferry export of the last, before"); err != nil {
		return err
	}
	if s, err = b.command(ferry("optimize")...); err != nil {
		return err
	}
	pruned, err := b.command(ferry("prune", "--grace", "0")...)
	if err != nil {
		return err
	}
	s.add(pruned)
	stored := size(b.path("s4"))
	show("ferry optimize and prune", s, stored)
	if err := export("ferry export of the last, after"); err != nil {
		return err
	}
	if _, err := b.command(ferry("check", "--read-data")...); err != nil {
		return err
	}
	for _, release := range product.releases {
		if _, err := b.command(ferry("verify", "esbuild@"+release)...); err != nil {
			return err
		}
	}
	fmt.Printf("\nferry ÷ best peer: %.3f\n", float64(stored)/float64(best))
	return nil
}

// add counts a run that came after.
func (s *sample) add(next sample) {
	s.wall += next.wall
	s.cpu += next.cpu
	s.rss = max(s.rss, next.rss)
}
