//go:build !windows

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// killPlan says how often each command is killed, and how large the package is.
// The default keeps the suite short; FERRY_TEST_KILLS=25 kills each 25 times, with
// a package of 60 MiB.
type killPlan struct {
	kills int
	large int // bytes of each of 3 large files
	small int // number of small files
}

func planKills(t *testing.T) killPlan {
	if s := os.Getenv("FERRY_TEST_KILLS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			t.Fatalf("FERRY_TEST_KILLS=%s, want a number", s)
		}
		return killPlan{kills: n, large: 16 << 20, small: 1200}
	}
	return killPlan{kills: 3, large: 3 << 20, small: 200}
}

// victim is a package in two versions, large enough for a command that works on
// it to be killed in the middle.
type victim struct {
	killPlan
	dir          string
	base, target []node
	delta        string
}

// victimTree returns a version of it: few large files, and many small ones, so
// that an exchange has many steps. Of these, every fourth is changed, every
// eighth removed, renamed, or of another time, and some become folders.
func (p killPlan) victimTree(version int) []node {
	var nodes []node
	add := func(path string, data []byte) {
		nodes = append(nodes, node{path: path, mode: 0o644, time: sampleTime, data: data})
	}
	for i := range 3 {
		data := seededBytes(int64(p.large), uint64(i))
		if version == 2 {
			for off := 1 << 20; off < len(data); off += 3 << 20 {
				copy(data[off:], fmt.Sprintf("an edit at %d", off))
			}
		}
		add(fmt.Sprintf("large/%d.bin", i), data)
	}
	for i := range p.small {
		path := fmt.Sprintf("small/%02d/%04d.dat", i%40, i)
		data := seededBytes(9<<10, uint64(1000+i))
		if version == 2 {
			switch {
			case i%4 == 1:
				data = seededBytes(5<<10, uint64(5000+i))
			case i%8 == 2:
				continue
			case i%8 == 4:
				path = fmt.Sprintf("moved/%02d/%04d.dat", i%10, i)
			case i%8 == 6:
				add(path, data)
				nodes[len(nodes)-1].time = sampleTime.Add(time.Hour)
				continue
			case i%40 == 0:
				path += "/inner.dat"
			}
		}
		add(path, data)
	}
	return nodes
}

// withFolders adds the folders that the paths imply, as readTree lists them.
func withFolders(nodes []node) []node {
	seen := map[string]bool{}
	all := nodes
	for _, n := range nodes {
		for dir := filepath.Dir(n.path); dir != "." && !seen[dir]; dir = filepath.Dir(dir) {
			seen[dir] = true
			all = append(all, node{path: dir, mode: fs.ModeDir | 0o755})
		}
	}
	return all
}

func newVictim(t *testing.T) *victim {
	t.Helper()
	plan := planKills(t)
	v := &victim{killPlan: plan, dir: t.TempDir(), base: withFolders(plan.victimTree(1)), target: withFolders(plan.victimTree(2))}
	v.delta = v.path("up.ferry")
	for name, nodes := range map[string][]node{"base": v.base, "target": v.target} {
		if err := writeTree(v.path(name), nodes); err != nil {
			t.Fatal(err)
		}
	}
	mustFerry(t, "delta", "create", v.path("base"), v.path("target"), "-o", v.delta)
	return v
}

func (v *victim) path(name string) string { return filepath.Join(v.dir, name) }

// is fails the test unless a folder holds just these nodes.
func is(t *testing.T, dir string, want []node) {
	t.Helper()
	got, err := readTree(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diffs := diffNodes(got, want); len(diffs) > 0 {
		t.Fatalf("%s: %d differences to what it should be:\n%s", dir, len(diffs), strings.Join(diffs[:min(len(diffs), 20)], "\n"))
	}
}

// result is how a command ended; its code is -1 after a signal.
type result struct {
	code           int
	stdout, stderr string
	took           time.Duration
}

// begin starts the command as a process of its own.
func begin(t *testing.T, args ...string) (wait func() result, cmd *exec.Cmd) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd = exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Env = append(os.Environ(), "FERRY_STORE=/nowhere")
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() result {
		code, ok := exitCode(cmd.Wait())
		if !ok {
			code = -1
		}
		return result{code, stdout.String(), stderr.String(), time.Since(begun)}
	}, cmd
}

func runFerry(t *testing.T, args ...string) result {
	t.Helper()
	wait, _ := begin(t, args...)
	return wait()
}

func mustFerry(t *testing.T, args ...string) result {
	t.Helper()
	r := runFerry(t, args...)
	if r.code != exitDone {
		t.Fatalf("ferry %q = %d, want 0\n%s%s", args, r.code, r.stdout, r.stderr)
	}
	return r
}

// killAfter runs a command and kills it once ready is true and a while more has
// passed, unless it has ended by then. It reports whether it was killed.
func killAfter(t *testing.T, signal os.Signal, ready func() bool, more time.Duration, args ...string) (result, bool) {
	t.Helper()
	wait, cmd := begin(t, args...)
	ended := make(chan result, 1)
	go func() { ended <- wait() }()
	for !ready() {
		select {
		case r := <-ended:
			return endedBySelf(t, r, args), false
		case <-time.After(200 * time.Microsecond):
		}
	}
	select {
	case r := <-ended:
		return endedBySelf(t, r, args), false
	case <-time.After(more):
	}
	if err := cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	r := <-ended
	return r, r.code != exitDone
}

func endedBySelf(t *testing.T, r result, args []string) result {
	t.Helper()
	if r.code != exitDone {
		t.Fatalf("ferry %q = %d before it was killed\n%s", args, r.code, r.stderr)
	}
	return r
}

func atOnce() bool { return true }

// exists returns a condition: that something of this pattern stands.
func exists(pattern string) func() bool {
	return func() bool {
		names, err := filepath.Glob(pattern)
		return err == nil && len(names) > 0
	}
}

// step returns the i-th of n delays spread over a duration.
func step(d time.Duration, i, n int) time.Duration {
	return d * time.Duration(i+1) / time.Duration(n+1)
}

// TestKill kills the real program with SIGKILL at many moments, and interrupts
// it. Whatever the moment: a new folder is whole or not there, a folder that is
// changed where it stands can go on to the target or back to the base, and a
// store is sound.
func TestKill(t *testing.T) {
	t.Parallel()
	v := newVictim(t)
	t.Run("apply to", v.killApplyTo)
	t.Run("apply in place", v.killApplyInPlace)
	t.Run("undo", v.killUndo)
	t.Run("add", v.killAdd)
	t.Run("interrupt", v.interrupt)
	is(t, v.path("base"), v.base) // it was only ever read
}

func (v *victim) killApplyTo(t *testing.T) {
	apply := func(to string) []string {
		return []string{"delta", "apply", v.delta, "--base", v.path("base"), "--to", v.path(to), "--json"}
	}
	took := mustFerry(t, apply("whole")...).took
	is(t, v.path("whole"), v.target)
	n, killed := v.kills, 0
	for i := range n {
		to := fmt.Sprintf("to%d", i)
		if _, ok := killAfter(t, syscall.SIGKILL, atOnce, step(took, i, n), apply(to)...); ok {
			killed++
			if _, err := os.Lstat(v.path(to)); err == nil {
				is(t, v.path(to), v.target) // killed just behind the last step
				continue
			}
			mustFerry(t, apply(to)...)
		}
		is(t, v.path(to), v.target)
		if left, _ := filepath.Glob(v.path("." + to + "*")); len(left) > 0 {
			t.Fatalf("left behind: %q", left)
		}
		os.RemoveAll(v.path(to))
	}
	t.Logf("uninterrupted in %s; killed %d of %d times", took, killed, n)
}

func (v *victim) killApplyInPlace(t *testing.T) {
	site := v.path("site")
	apply := []string{"delta", "apply", v.delta, "--in-place", site}
	fresh := func() {
		os.RemoveAll(site)
		if err := writeTree(site, v.base); err != nil {
			t.Fatal(err)
		}
	}
	fresh()
	took := mustFerry(t, apply...).took
	is(t, site, v.target)

	n, killed, begun := v.kills, 0, 0
	for i := range 2 * n {
		fresh()
		// The exchange takes but a small part of the time: half of the kills aim at it.
		ready, more := atOnce, step(took, i/2, n)
		if i/2%2 == 1 {
			ready, more = exists(filepath.Join(site, ".ferry", "journal.json")), time.Duration(rand.Int64N(int64(60*time.Millisecond)))
		}
		if _, ok := killAfter(t, syscall.SIGKILL, ready, more, apply...); ok {
			killed++
		}
		if exists(filepath.Join(site, ".ferry", "journal.json"))() {
			begun++
		}
		if i%2 == 0 {
			mustFerry(t, apply...)
			is(t, site, v.target)
			for _, name := range []string{"journal.json", "stage", "lock"} {
				if _, err := os.Lstat(filepath.Join(site, ".ferry", name)); err == nil {
					t.Fatalf(".ferry/%s is left after a whole apply", name)
				}
			}
			continue
		}
		switch r := runFerry(t, "delta", "undo", site); {
		case r.code == exitDone:
		case r.code == exitFailed && strings.Contains(r.stderr, "nothing to undo"):
		default:
			t.Fatalf("kill %d: undo = %d\n%s", i, r.code, r.stderr)
		}
		is(t, site, v.base)
	}
	t.Logf("uninterrupted in %s; killed %d of %d times, %d of them in the exchange", took, killed, 2*n, begun)
}

func (v *victim) killUndo(t *testing.T) {
	site := v.path("undo-site")
	if err := writeTree(site, v.base); err != nil {
		t.Fatal(err)
	}
	apply, undo := []string{"delta", "apply", v.delta, "--in-place", site}, []string{"delta", "undo", site}
	mustFerry(t, apply...)
	took := mustFerry(t, undo...).took
	is(t, site, v.base)
	n, killed := v.kills, 0
	for i := range n {
		mustFerry(t, apply...)
		if _, ok := killAfter(t, syscall.SIGKILL, atOnce, step(took, i, n), undo...); ok {
			killed++
		}
		if i%2 == 0 { // undo goes on
			if r := runFerry(t, undo...); r.code != exitDone && !strings.Contains(r.stderr, "nothing to undo") {
				t.Fatalf("kill %d: undo = %d\n%s", i, r.code, r.stderr)
			}
			is(t, site, v.base)
			continue
		}
		mustFerry(t, apply...) // or the apply is wanted after all
		is(t, site, v.target)
		mustFerry(t, undo...)
		is(t, site, v.base)
	}
	t.Logf("uninterrupted in %s; killed %d of %d times", took, killed, n)
}

func (v *victim) killAdd(t *testing.T) {
	add := func(store string) []string {
		return []string{"add", v.path("base"), "app@1", "--store", v.path(store), "--json"}
	}
	whole := mustFerry(t, add("whole")...)
	id := manifestOf(t, whole)
	took := min(whole.took, mustFerry(t, add("again")...).took) // the first may have found the disk asleep
	n, killed := v.kills, 0
	for i := range n {
		store := fmt.Sprintf("store%d", i)
		if _, ok := killAfter(t, syscall.SIGKILL, atOnce, step(took, i, n), add(store)...); ok {
			killed++
		}
		if exists(v.path(store) + "/config.json")() {
			mustFerry(t, "check", "--read-data", "--store", v.path(store))
		}
		if got := manifestOf(t, mustFerry(t, add(store)...)); got != id {
			t.Fatalf("kill %d: manifest %s, want %s", i, got, id)
		}
		// What the killed add left can be cleared away, and nothing else goes with it.
		mustFerry(t, "prune", "--grace", "0", "--store", v.path(store))
		mustFerry(t, "check", "--read-data", "--store", v.path(store))
		mustFerry(t, "verify", "app@1", "--store", v.path(store))
		os.RemoveAll(v.path(store))
	}
	t.Logf("uninterrupted in %s; killed %d of %d times", took, killed, n)
}

func manifestOf(t *testing.T, r result) string {
	t.Helper()
	var v struct{ Manifest string }
	if err := json.Unmarshal([]byte(r.stdout), &v); err != nil || v.Manifest == "" {
		t.Fatalf("no manifest in %q (%v)", r.stdout, err)
	}
	return v.Manifest
}

// interrupt sends what Ctrl-C sends: the command says so, shows nothing half
// made, and goes on the next time.
func (v *victim) interrupt(t *testing.T) {
	mustFerry(t, "add", v.path("base"), "app@1", "--store", v.path("store"))
	site := v.path("interrupted-site")
	if err := writeTree(site, v.base); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		args  []string
		ready func() bool        // signalled once this is true
		after func(t *testing.T) // what must hold then
		done  func(t *testing.T) // and when the same has run again
	}{{
		name:  "apply to",
		args:  []string{"delta", "apply", v.delta, "--base", v.path("base"), "--to", v.path("to"), "--json"},
		ready: exists(v.path(".to.ferry-*/small/*/*.dat")),
		after: func(t *testing.T) { isAbsent(t, v.path("to")) },
		done:  func(t *testing.T) { is(t, v.path("to"), v.target) },
	}, {
		name:  "apply in place",
		args:  []string{"delta", "apply", v.delta, "--in-place", site, "--json"},
		ready: exists(filepath.Join(site, ".ferry/stage/*/*/*")),
		after: func(t *testing.T) { is(t, site, v.base) },
		done:  func(t *testing.T) { is(t, site, v.target) },
	}, {
		name:  "export",
		args:  []string{"export", "app@1", "-o", v.path("out"), "--store", v.path("store"), "--json"},
		ready: exists(v.path(".out.ferry-*/small/*/*.dat")),
		after: func(t *testing.T) { isAbsent(t, v.path("out")) },
		done:  func(t *testing.T) { is(t, v.path("out"), v.base) },
	}, {
		name:  "export zip",
		args:  []string{"export", "app@1", "-o", v.path("out.zip"), "--store", v.path("store"), "--json"},
		ready: exists(v.path(".ferry-tmp-*")),
		after: func(t *testing.T) { isAbsent(t, v.path("out.zip")); isAbsent(t, v.path(".ferry-tmp-*")) },
		done:  func(t *testing.T) { mustFerry(t, "verify", v.path("base"), "--against", v.path("out.zip")) },
	}, {
		name:  "delta create",
		args:  []string{"delta", "create", v.path("base"), v.path("target"), "-o", v.path("other.ferry"), "--json"},
		ready: exists(v.path(".ferry-tmp-*")),
		after: func(t *testing.T) { isAbsent(t, v.path("other.ferry")); isAbsent(t, v.path(".ferry-tmp-*")) },
		done:  func(t *testing.T) { mustFerry(t, "verify", v.path("other.ferry")) },
	}, {
		name:  "add",
		args:  []string{"add", v.path("base"), "app@1", "--store", v.path("store2"), "--json"},
		ready: exists(v.path("store2/locks/sessions/*")),
		after: func(t *testing.T) {
			mustFerry(t, "check", "--store", v.path("store2"))
			if r := mustFerry(t, "list", "--store", v.path("store2"), "--json"); r.stdout != "[]\n" {
				t.Errorf("list = %s, want none", r.stdout)
			}
		},
		done: func(t *testing.T) { mustFerry(t, "verify", "app@1", "--store", v.path("store2")) },
	}} {
		t.Run(test.name, func(t *testing.T) {
			r, ok := killAfter(t, os.Interrupt, test.ready, time.Millisecond, test.args...)
			if !ok {
				t.Log("it had ended before it was interrupted: nothing to see")
				return
			}
			if r.code != exitInterrupted || r.stdout != "" {
				t.Fatalf("ferry %q = %d, want %d and no result\n%s%s", test.args, r.code, exitInterrupted, r.stdout, r.stderr)
			}
			var e struct{ Type, Code, Hint string }
			lines := strings.Split(strings.TrimSpace(r.stderr), "\n")
			if err := json.Unmarshal([]byte(lines[len(lines)-1]), &e); err != nil || e.Type != "error" || e.Code != "interrupted" || e.Hint == "" {
				t.Errorf("stderr = %s, want an error object of code interrupted (%v)", r.stderr, err)
			}
			test.after(t)
			mustFerry(t, test.args...)
			test.done(t)
		})
	}
}

// isAbsent fails the test when something of this pattern stands.
func isAbsent(t *testing.T, pattern string) {
	t.Helper()
	if names, _ := filepath.Glob(pattern); len(names) > 0 {
		t.Errorf("%q is there, want nothing", names)
	}
}
