//go:build unix

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// measure runs parts of the benchmark, on the same input.
func (b *bench) measure(parts ...func() error) error {
	if err := b.inputs(); err != nil {
		return err
	}
	fmt.Printf("base %d bytes, target %d bytes; median of %d runs\n", size(b.path("base")), size(b.path("target")), b.runs)
	for _, part := range parts {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

// spine measures the data path, or the parts of it that are named; all but add need
// what add left.
func (b *bench) spine(parts []string) error {
	all := []struct {
		name string
		run  []func() error
	}{
		{"add", []func() error{b.firstAdd, b.secondAdd}}, {"export", []func() error{b.exports}},
		{"check", []func() error{b.checks}}, {"delta", []func() error{b.deltas}},
	}
	var chosen []func() error
	for _, p := range all {
		if len(parts) == 0 || slices.Contains(parts, p.name) {
			chosen = append(chosen, p.run...)
		}
	}
	return b.measure(chosen...)
}

// f is a ferry command line on the benchmark's store.
func (b *bench) f(args ...string) []string {
	return append([]string{b.ferry, "--store", "store", "--quiet"}, args...)
}

func (b *bench) firstAdd() error {
	header("First add of the base tree")
	n := size(b.path("base"))
	s, err := b.median(b.remove("store"), b.f("add", "base", "p@1")...)
	if err != nil {
		return err
	}
	row("ferry add", s, n, size(b.path("store")))
	if have("restic") {
		s, err := b.median(func() error {
			if err := b.remove("restic", "restic-cache")(); err != nil {
				return err
			}
			_, err := b.command("restic", "init", "-q", "-r", "restic")
			return err
		}, "restic", "-r", "restic", "backup", "-q", "--compression", "auto", "base")
		if err != nil {
			return err
		}
		row("restic backup --compression auto", s, n, size(b.path("restic")))
	}
	if have("borg") {
		s, err := b.median(func() error {
			if err := b.remove("borg", "borg-home")(); err != nil {
				return err
			}
			_, err := b.command("borg", "init", "-e", "none", "borg")
			return err
		}, "borg", "create", "-C", "zstd,3", "borg::1", "base")
		if err != nil {
			return err
		}
		row("borg create -C zstd,3", s, n, size(b.path("borg")))
	}
	return nil
}

func (b *bench) secondAdd() error {
	header("Second add of the unchanged tree")
	n := size(b.path("base"))
	s, err := b.median(nil, b.f("add", "base", "p@1")...)
	if err != nil {
		return err
	}
	row("ferry add", s, n, -1)
	if have("restic") {
		if s, err = b.median(nil, "restic", "-r", "restic", "backup", "-q", "--force", "base"); err != nil {
			return err
		}
		row("restic backup --force (reads all)", s, n, -1)
	}
	if s, err = hashAll(b.path("base")); err != nil {
		return err
	}
	row("BLAKE3 of all files, all cores", s, n, -1)
	header("Add of the target tree")
	before := size(b.path("store"))
	s, err = b.command(b.f("add", "target", "p@2")...)
	if err != nil {
		return err
	}
	row("ferry add", s, size(b.path("target")), size(b.path("store"))-before)
	if have("restic") {
		before := size(b.path("restic"))
		if s, err = b.command("restic", "-r", "restic", "backup", "-q", "target"); err != nil {
			return err
		}
		row("restic backup", s, size(b.path("target")), size(b.path("restic"))-before)
	}
	return nil
}

func (b *bench) exports() error {
	header("Export to a directory")
	n := size(b.path("base"))
	s, err := b.median(b.remove("out"), b.f("export", "p@1", "-o", "out")...)
	if err != nil {
		return err
	}
	row("ferry export", s, n, -1)
	if have("restic") {
		s, err := b.median(b.remove("out"), "restic", "-r", "restic", "restore", "-q", "latest", "--path", b.path("base"), "--target", "out")
		if err != nil {
			return err
		}
		row("restic restore", s, n, -1)
	}
	header("Export to a zip")
	if s, err = b.median(b.remove("out.zip"), b.f("export", "p@1", "-o", "out.zip")...); err != nil {
		return err
	}
	row("ferry export", s, n, size(b.path("out.zip")))
	if have("zip") {
		if s, err = b.median(b.remove("peer.zip"), "zip", "-q", "-6", "-r", "-y", "peer.zip", "base"); err != nil {
			return err
		}
		row("zip -6 -r", s, n, size(b.path("peer.zip")))
	}
	return b.remove("out", "out.zip", "peer.zip")()
}

func (b *bench) checks() error {
	header("Check of the store, all bytes")
	n := size(b.path("store"))
	s, err := b.median(nil, b.f("check", "--read-data")...)
	if err != nil {
		return err
	}
	row("ferry check --read-data", s, n, -1)
	if s, err = hashAll(b.path("store")); err != nil {
		return err
	}
	row("BLAKE3 of the store's files, all cores", s, n, -1)
	if have("restic") {
		if s, err = b.median(nil, "restic", "-r", "restic", "check", "-q", "--read-data"); err != nil {
			return err
		}
		row("restic check --read-data", s, size(b.path("restic")), -1)
	}
	return nil
}

func (b *bench) deltas() error {
	header("Delta")
	n := size(b.path("target"))
	s, err := b.command(b.f("delta", "create", "p@1", "p@2", "-o", "d.ferry", "--force")...)
	if err != nil {
		return err
	}
	row("ferry delta create, from the store, one run", s, n, size(b.path("d.ferry")))
	if s, err = b.command(b.f("delta", "create", "base", "target", "-o", "d.ferry", "--force")...); err != nil {
		return err
	}
	row("ferry delta create, from two folders, one run", s, n, size(b.path("d.ferry")))
	if s, err = b.median(b.remove("out"), b.f("delta", "apply", "d.ferry", "--base", "base", "--to", "out")...); err != nil {
		return err
	}
	row("ferry delta apply --to", s, n, -1)
	prepare := func() error {
		if err := b.remove("out")(); err != nil {
			return err
		}
		_, err := b.command("cp", "-a", "base", "out")
		return err
	}
	if s, err = b.median(prepare, b.f("delta", "apply", "d.ferry", "--in-place", "out")...); err != nil {
		return err
	}
	row("ferry delta apply --in-place", s, n, -1)
	return b.mostlyUnchanged()
}

// mostlyUnchanged applies a delta that changes one file of a tree.
func (b *bench) mostlyUnchanged() error {
	prepare := func() error {
		if err := b.remove("small-base", "small-target", "out")(); err != nil {
			return err
		}
		for _, name := range []string{"next-swc-win32-x64-msvc", "next-swc-linux-x64-gnu", "next-swc-darwin-arm64", "swc-core-linux-x64-gnu"} {
			for _, side := range []string{"small-base", "small-target"} {
				if err := os.MkdirAll(b.path(side), 0o777); err != nil {
					return err
				}
				if _, err := b.command("cp", "-a", filepath.Join("base", name), side); err != nil {
					return err
				}
			}
		}
		return os.WriteFile(b.path("small-target", "VERSION"), []byte("2\n"), 0o666)
	}
	if err := prepare(); err != nil {
		return err
	}
	if _, err := b.command(b.f("delta", "create", "small-base", "small-target", "-o", "d.ferry", "--force")...); err != nil {
		return err
	}
	s, err := b.median(b.remove("out"), b.f("delta", "apply", "d.ferry", "--base", "small-base", "--to", "out")...)
	if err != nil {
		return err
	}
	row("ferry delta apply --to, one small file changed, large files", s, size(b.path("small-target")), -1)
	s, err = b.median(b.remove("out"), "cp", "-a", "small-base", "out")
	if err != nil {
		return err
	}
	row("cp -a of the same", s, size(b.path("small-target")), -1)
	return b.remove("out", "small-base", "small-target")()
}

// memory shows that no command's memory grows with its input.
func (b *bench) memory() error {
	if err := b.bigFiles(); err != nil {
		return err
	}
	n := size(b.path("big-base"))
	header(fmt.Sprintf("Memory: a 10 GiB sparse image and 1.5 GiB of noise (%d bytes), one run", n))
	defer b.remove("big-base", "big-target", "bigstore", "out", "out2", "out.zip")()
	for _, step := range []struct {
		name string
		args []string
		out  string
	}{
		{"ferry add", []string{"add", "big-base", "big@1"}, ""},
		{"ferry add, changed", []string{"add", "big-target", "big@2"}, ""},
		{"ferry add, known", []string{"add", "big-target", "big@2"}, ""},
		{"ferry delta create", []string{"delta", "create", "big@1", "big@2", "-o", "d.ferry", "--force"}, "d.ferry"},
		{"ferry export, directory", []string{"export", "big@1", "-o", "out"}, ""},
		{"ferry delta apply --in-place", []string{"delta", "apply", "d.ferry", "--in-place", "out"}, ""},
		{"ferry verify", []string{"verify", "out", "--against", "big@2"}, ""},
		{"ferry delta undo", []string{"delta", "undo", "out"}, ""},
		{"ferry delta apply --to", []string{"delta", "apply", "d.ferry", "--base", "out", "--to", "out2"}, ""},
		{"ferry export, zip", []string{"export", "big@1", "-o", "out.zip"}, "out.zip"},
		{"ferry add, zip", []string{"add", "out.zip", "big@1"}, ""},
		{"ferry check --read-data", []string{"check", "--read-data"}, ""},
		{"ferry remove", []string{"remove", "big@2"}, ""},
		{"ferry prune", []string{"prune", "--grace", "0"}, ""},
	} {
		s, err := b.command(append([]string{b.ferry, "--store", "bigstore", "--quiet"}, step.args...)...)
		if err != nil {
			return err
		}
		made := int64(-1)
		if step.out != "" {
			made = size(b.path(step.out))
		}
		row(step.name, s, n, made)
	}
	return nil
}
