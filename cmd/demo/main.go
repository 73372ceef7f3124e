// Command demo shows Ferry's main job on real input: it downloads two releases
// of a public Go module with the Go toolchain's own "go mod download", takes them
// into a store, makes a delta, applies it both ways, and verifies the results.
//
//	go run ./cmd/demo [module@base module@target]
//
// It works in a temporary folder, which it removes.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	if err := demo(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// The default pair: two releases of a compression library, whose module zips
// carry sources, binary test data and nested archives.
var defaultPair = []string{"github.com/klauspost/compress@v1.18.0", "github.com/klauspost/compress@v1.18.1"}

type demoRun struct {
	dir   string
	ferry string
}

func demo(args []string) error {
	if len(args) == 0 {
		args = defaultPair
	}
	if len(args) != 2 {
		return fmt.Errorf("want two module versions, or none for %s", strings.Join(defaultPair, " and "))
	}
	dir, err := os.MkdirTemp("", "ferry-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	d := &demoRun{dir: dir, ferry: filepath.Join(dir, "ferry.exe")}
	fmt.Println("building ferry …")
	if out, err := exec.Command("go", "build", "-o", d.ferry, "./cmd/ferry").CombinedOutput(); err != nil {
		return fmt.Errorf("go build ./cmd/ferry (run this from the project's folder): %w\n%s", err, out)
	}
	var dirs []string
	for _, name := range args {
		m, err := download(name)
		if err != nil {
			return err
		}
		fi, err := os.Stat(m.Zip)
		if err != nil {
			return err
		}
		fmt.Printf("%s: %d bytes as its release zip\n", name, fi.Size())
		dirs = append(dirs, m.Dir)
	}
	return d.session(dirs[0], dirs[1])
}

// module is what "go mod download -json" says of a module.
type module struct {
	Dir   string // its files, unpacked
	Zip   string // its release zip
	Error string
}

// download fetches a module into the module cache.
func download(name string) (module, error) {
	cmd := exec.Command("go", "mod", "download", "-json", name)
	cmd.Dir = os.TempDir() // no go.mod is asked or changed
	out, err := cmd.Output()
	var m module
	if jsonErr := json.Unmarshal(out, &m); jsonErr != nil && err == nil {
		err = jsonErr
	}
	if m.Error != "" {
		return m, fmt.Errorf("go mod download %s: %s", name, m.Error)
	}
	return m, err
}

// session runs the commands that a release engineer and a site admin would.
func (d *demoRun) session(base, target string) error {
	const delta, site, fresh = "upgrade.ferry", "site", "new"
	for _, step := range []struct {
		say  string
		args []string
	}{
		{"Two releases into one store:", []string{"add", base, "module@base"}},
		{"", []string{"add", target, "module@target"}},
		{"What changed:", []string{"diff", "module@base", "module@target"}},
		{"The delta between them:", []string{"delta", "create", "module@base", "module@target", "-o", delta}},
		{"At the site: the base is installed, and a new folder is made from it:", []string{"export", "module@base", "-o", site}},
		{"", []string{"delta", "apply", delta, "--base", site, "--to", fresh}},
		{"", []string{"verify", fresh, "--against", delta}},
		{"Or it is changed where it stands, with a way back:", []string{"delta", "apply", delta, "--in-place", site}},
		{"", []string{"verify", site, "--against", "module@target"}},
		{"", []string{"delta", "undo", site}},
		{"", []string{"verify", site, "--against", "module@base"}},
		{"The store is sound, and this is what it saves:", []string{"check", "--read-data"}},
		{"", []string{"stats"}},
	} {
		if err := d.run(step.say, step.args); err != nil {
			return err
		}
	}
	return nil
}

// run shows and executes one command line.
func (d *demoRun) run(say string, args []string) error {
	if say != "" {
		fmt.Printf("\n# %s\n", say)
	}
	shown := make([]string, len(args))
	for i, a := range args {
		shown[i] = a
		if filepath.IsAbs(a) {
			shown[i] = filepath.Base(a)
		}
	}
	fmt.Printf("$ ferry %s\n", strings.Join(shown, " "))
	cmd := exec.Command(d.ferry, args...)
	cmd.Dir = d.dir
	cmd.Env = append(os.Environ(), "FERRY_STORE=store")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	begun := time.Now()
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("ferry %s: %w", args[0], err)
	}
	fmt.Printf("(%.2f s)\n", time.Since(begun).Seconds())
	return nil
}
