package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ferry/cas"
	"ferry/delta"
	"ferry/export"
	"ferry/manifest"
	"ferry/manifest/place"
	"ferry/manifest/tree"
)

// ownCommands returns all commands but those that cobra adds by itself.
func ownCommands(root *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{root}
	for i := 0; i < len(all); i++ {
		for _, c := range all[i].Commands() {
			if c.Name() != "help" && c.Name() != "completion" {
				all = append(all, c)
			}
		}
	}
	return all
}

// TestHelp holds every command to what help must say.
func TestHelp(t *testing.T) {
	for _, c := range ownCommands(newRootCommand(newApp(nil, nil))) {
		t.Run(strings.ReplaceAll(c.CommandPath(), " ", "_"), func(t *testing.T) {
			args := append(strings.Fields(c.CommandPath())[1:], "--help")
			var stdout, stderr bytes.Buffer
			if code := run(context.Background(), args, &stdout, &stderr); code != exitDone {
				t.Errorf("ferry %q = %d, want %d", args, code, exitDone)
			}
			for _, want := range []string{"\nUsage:\n", "\nExamples:\n", "Exit status: 0 done", "\nGlobal Flags:\n"} {
				if c.HasParent() || want != "\nGlobal Flags:\n" {
					if !strings.Contains(stdout.String(), want) {
						t.Errorf("help lacks %q:\n%s", strings.TrimSpace(want), &stdout)
					}
				}
			}
			if stderr.Len() > 0 {
				t.Errorf("help wrote to stderr: %s", &stderr)
			}
			if c.Short == "" || strings.HasSuffix(c.Short, ".") {
				t.Errorf("Short = %q, want a phrase with no full stop", c.Short)
			}
			c.LocalFlags().VisitAll(func(f *pflag.Flag) {
				if f.Usage == "" {
					t.Errorf("flag --%s has no usage", f.Name)
				}
			})
			for line := range strings.Lines(stdout.String()) {
				if line = strings.TrimRight(line, "\n"); len([]rune(line)) > 120 {
					t.Errorf("line of more than 120 characters: %s", line)
				}
			}
		})
	}
}

// TestExamplesParse holds every example in the help to the flags and arguments
// that its command takes.
func TestExamplesParse(t *testing.T) {
	for _, c := range ownCommands(newRootCommand(newApp(nil, nil))) {
		for line := range strings.Lines(c.Example) {
			line, _, _ = strings.Cut(strings.TrimSpace(line), " > ")
			for command := range strings.SplitSeq(line, " && ") {
				if err := parses(command); err != nil {
					t.Errorf("%s: example %q: %v", c.CommandPath(), command, err)
				}
			}
		}
	}
}

// parses checks a command line as far as can be without running it.
func parses(line string) error {
	words := strings.Fields(strings.ReplaceAll(line, "'", ""))
	if len(words) == 0 || words[0] != "ferry" {
		return errors.New("does not start with ferry")
	}
	c, args, err := newRootCommand(newApp(nil, nil)).Find(words[1:])
	if err != nil {
		return err
	}
	if err := c.ParseFlags(args); err != nil {
		return err
	}
	if c.HasSubCommands() {
		return fmt.Errorf("%s needs a command", c.CommandPath())
	}
	return c.ValidateArgs(c.Flags().Args())
}

// TestCommandsKnown fails when a command comes or goes, so that its script and
// the README's table are thought of.
func TestCommandsKnown(t *testing.T) {
	var got []string
	for _, c := range ownCommands(newRootCommand(newApp(nil, nil)))[1:] {
		got = append(got, strings.TrimPrefix(c.CommandPath(), "ferry "))
	}
	slices.Sort(got)
	want := []string{
		"add", "addons", "addons export", "addons import", "addons list", "cat", "check", "delta", "delta apply", "delta create", "delta inspect", "delta undo", "diff", "export", "image", "image compact", "image diff", "image info", "inventory", "list",
		"ls", "optimize", "package", "profile", "profile check", "profile list", "profile schema", "profile show", "prune", "remove", "repair", "repair index", "show", "stats", "verify", "version",
	}
	if !slices.Equal(got, want) {
		t.Errorf("commands = %q, want %q", got, want)
	}
}

// TestClassify holds the exit codes and their names, which scripts of users
// depend on, to the table in docs and help.
func TestClassify(t *testing.T) {
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	unsafe := &tree.UnsafePathError{Path: "../a", Reason: "has a component .."}
	for _, test := range []struct {
		ctx  context.Context
		err  error
		exit int
		code string
	}{
		{nil, errors.New("whatever"), 1, "failed"},
		{nil, manifest.ErrTaken, 1, "version-exists"},
		{nil, place.ErrExists, 1, "exists"},
		{nil, &place.SpaceError{Dir: "/", Need: 2, Free: 1}, 1, "disk-full"},
		{nil, &fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, 1, "disk-full"},
		{nil, fs.ErrPermission, 1, "failed"},
		{nil, delta.ErrNoUndo, 1, "failed"},
		{nil, cas.ErrVersion, 1, "failed"},
		{nil, &cas.CorruptError{Object: "packs/x", Off: -1, Reason: "cut off"}, 4, "damaged"},
		{nil, manifest.ErrInvalid, 4, "malformed"},
		{nil, delta.ErrInvalid, 4, "malformed"},
		{nil, tree.ErrFormat, 4, "malformed"},
		{nil, place.ErrContent, 4, "malformed"},
		{nil, unsafe, 4, "malformed"},
		{nil, errFindings, 4, "findings"},
		{nil, &cas.NotFoundError{What: "version", Name: "app@1"}, 5, "not-found"},
		{nil, &fs.PathError{Op: "open", Path: "x", Err: fs.ErrNotExist}, 5, "not-found"},
		{nil, &delta.BaseMismatchError{Base: "app@1", Reason: "is missing"}, 6, "base-mismatch"},
		{nil, delta.ErrModified, 6, "modified"},
		{nil, cas.ErrLocked, 7, "locked"},
		{nil, delta.ErrBusy, 7, "locked"},
		{nil, usagef("what?"), 64, "usage"},
		{nil, manifest.ErrRef, 64, "usage"},
		{nil, export.ErrMethod, 64, "usage"},
		{cancelled, context.Canceled, 130, "interrupted"},
		{nil, context.Canceled, 1, "failed"},             // nobody interrupted: a bug, say
		{cancelled, errors.New("whatever"), 1, "failed"}, // failed by itself before
	} {
		if test.ctx == nil {
			test.ctx = context.Background()
		}
		got := classify(test.ctx, fmt.Errorf("some path: %w", test.err))
		if got.exit != test.exit || got.code != test.code {
			t.Errorf("classify(%v) = %d %s, want %d %s", test.err, got.exit, got.code, test.exit, test.code)
		}
	}
}
