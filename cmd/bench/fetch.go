//go:build unix

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// once fills the folder dir, unless that was done before. What was begun and did
// not succeed stands aside as dir.part and is begun anew.
func once(dir string, fill func(dir string) error) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	part := dir + ".part"
	if err := os.RemoveAll(part); err != nil {
		return err
	}
	if err := os.MkdirAll(part, 0o777); err != nil {
		return err
	}
	if err := fill(part); err != nil {
		return err
	}
	return os.Rename(part, dir)
}

// npm unpacks a release of an npm package into the folder dir.
func (b *bench) npm(name, release, dir string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	tgz := dir + ".tgz"
	if err := b.npmPacked(name, release, tgz); err != nil {
		return err
	}
	defer os.Remove(tgz)
	return run("tar", "-xzf", tgz, "--strip-components=1", "-C", dir)
}

// npmPacked fetches a release of an npm package as it is, into the file tgz.
func (b *bench) npmPacked(name, release, tgz string) error {
	cmd := exec.Command("npm", "pack", "--silent", name+"@"+release)
	cmd.Dir = filepath.Dir(tgz)
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("npm pack %s@%s: %w", name, release, err)
	}
	return os.Rename(filepath.Join(cmd.Dir, strings.TrimSpace(string(out))), tgz)
}

func run(args ...string) error {
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}
