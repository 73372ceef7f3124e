//go:build unix

// Command bench measures ferry beside its peers, in one run, on real input that
// it fetches itself, and prints the tables of docs/benchmarks.md.
//
//	go run ./cmd/bench [-dir FOLDER] [-runs N] [-pairs REGEXP] spine|memory|delta|archive|members|image
//
// "spine add", "spine export", "spine check" and "spine delta" measure a part of it.
//
// Input comes from the Go toolchain, by "npm pack" from the npm registry, and by
// "apt-get download" from Debian. Peers are those found on PATH: restic, borg, zip,
// xdelta3, bsdiff, zstd, hdiffz. It needs about 25 GiB of disk
// for a while, and keeps what it fetched in FOLDER for the next run.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/zeebo/blake3"
)

func main() {
	dir := flag.String("dir", filepath.Join(os.TempDir(), "ferry-bench"), "working folder")
	runs := flag.Int("runs", 3, "runs of each command; the median counts")
	only := flag.String("pairs", "", "of delta: measure pairs whose name matches this regular expression")
	flag.Parse()
	b := &bench{dir: *dir, runs: *runs}
	var err error
	if b.pairs, err = regexp.Compile(*only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	switch flag.Arg(0) {
	case "spine":
		err = b.spine(flag.Args()[1:])
	case "memory":
		err = b.measure(b.memory)
	case "archive":
		if err = b.build(); err == nil {
			err = b.archives()
		}
	case "members":
		err = b.members()
	case "image":
		err = b.images()
	case "delta":
		if err = b.build(); err == nil {
			err = b.deltaTables()
		}
	default:
		err = fmt.Errorf("usage: bench [-dir FOLDER] [-runs N] spine|memory|delta|archive|members|image")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is one run of the program.
type bench struct {
	dir   string
	runs  int
	ferry string
	pairs *regexp.Regexp
}

// sample is what one run of a command took.
type sample struct {
	wall, cpu time.Duration
	rss       int64 // bytes, of the largest process
}

func (b *bench) path(parts ...string) string {
	return filepath.Join(append([]string{b.dir}, parts...)...)
}

// command runs a command line and measures it.
func (b *bench) command(args ...string) (sample, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = b.dir
	cmd.Env = append(os.Environ(), "RESTIC_PASSWORD=bench", "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes",
		"RESTIC_CACHE_DIR="+b.path("restic-cache"), "BORG_BASE_DIR="+b.path("borg-home"))
	begun := time.Now()
	out, err := cmd.CombinedOutput()
	s := sample{wall: time.Since(begun)}
	if cmd.ProcessState != nil {
		s.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
			s.rss = int64(usage.Maxrss) << 10
		}
	}
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return s, err
}

// median runs prepare and the command several times and returns the run of
// median wall time.
func (b *bench) median(prepare func() error, args ...string) (sample, error) {
	var samples []sample
	for range b.runs {
		if prepare != nil {
			if err := prepare(); err != nil {
				return sample{}, err
			}
		}
		s, err := b.command(args...)
		if err != nil {
			return s, err
		}
		samples = append(samples, s)
	}
	slices.SortFunc(samples, func(x, y sample) int { return cmp.Compare(x.wall, y.wall) })
	return samples[len(samples)/2], nil
}

func have(tool string) bool {
	_, err := exec.LookPath(tool)
	return err == nil
}

// row prints a line of a table: bytes are what the rate is of; stored, if not
// negative, is what the result takes.
func row(name string, s sample, bytes, stored int64) {
	rate := fmt.Sprintf("%.0f", float64(bytes)/1e6/s.wall.Seconds())
	size := ""
	if stored >= 0 {
		size = fmt.Sprint(stored)
	}
	fmt.Printf("| %s | %.2f | %.2f | %s | %.0f | %s |\n", name, s.wall.Seconds(), s.cpu.Seconds(), rate, float64(s.rss)/(1<<20), size)
}

func header(title string) {
	fmt.Printf("\n### %s\n\n| command | wall s | CPU s | MB/s | peak MiB | bytes made |\n|---|---|---|---|---|---|\n", title)
}

// size returns the sum of the sizes of the files under dir.
func size(dir string) (sum int64) {
	filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if fi, err := d.Info(); err == nil {
				sum += fi.Size()
			}
		}
		return nil
	})
	return sum
}

// remove makes a prepare function that removes paths.
func (b *bench) remove(names ...string) func() error {
	return func() error {
		for _, name := range names {
			if err := os.RemoveAll(b.path(name)); err != nil {
				return err
			}
		}
		return nil
	}
}

// hashAll returns how long BLAKE3 takes for all files under dir, a file a worker.
func hashAll(dir string) (sample, error) {
	var files []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, p)
		}
		return err
	})
	if err != nil {
		return sample{}, err
	}
	begun := time.Now()
	work := make(chan string)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			h, buf := blake3.New(), make([]byte, 1<<20)
			for p := range work {
				f, err := os.Open(p)
				if err != nil {
					continue
				}
				h.Reset()
				io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{f}, buf)
				f.Close()
			}
		}()
	}
	for _, p := range files {
		work <- p
	}
	close(work)
	wg.Wait()
	return sample{wall: time.Since(begun)}, nil
}
