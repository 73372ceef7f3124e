package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"ferry/cas"
	"ferry/cas/backend"
	"ferry/chunking"
	"ferry/delta"
	"ferry/manifest"
	"ferry/manifest/tree"
)

// app is what all commands share: where to print, and the global flags.
type app struct {
	stdout, stderr io.Writer
	store          string
	json           bool
	quiet          bool

	mu      sync.Mutex
	skipped int // inputs left out
	bar     *bar
}

func newApp(stdout, stderr io.Writer) *app { return &app{stdout: stdout, stderr: stderr} }

func newRootCommand(a *app) *cobra.Command {
	version := newVersionCommand(a)
	var sayVersion bool
	root := &cobra.Command{
		Use:   "ferry",
		Short: "Keep, compare and move versions of large packages, byte-exact",
		Long: `Ferry keeps versions of packages in a deduplicated store, makes small deltas
between them, and applies and verifies those without a network.

A package is a directory, a zip, a tar (also .gz, .zst, .xz) or a single file
such as a disk image. A version in the store is written NAME@VERSION. Wherever a
version is wanted, a path does too.` + "\n" + exitHelp,
		Example: `  ferry add k2s-1.4.0.zip k2s@1.4.0
  ferry add k2s-1.5.0.zip k2s@1.5.0
  ferry delta create k2s@1.4.0 k2s@1.5.0 -o upgrade.ferry
  ferry delta apply upgrade.ferry --base C:\k2s --to C:\k2s-1.5.0
  ferry verify C:\k2s-1.5.0 --against upgrade.ferry`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q", args[0])
			}
			if sayVersion {
				return version.RunE(version, nil)
			}
			return cmd.Help()
		},
	}
	root.Flags().BoolVar(&sayVersion, "version", false, "say which program this is, as ferry version does")
	flags := root.PersistentFlags()
	flags.StringVar(&a.store, "store", "", "folder of the store (default $FERRY_STORE, or a folder of your own)")
	flags.BoolVar(&a.json, "json", false, "print the result as JSON, errors too")
	flags.BoolVarP(&a.quiet, "quiet", "q", false, "no progress, no warnings")
	root.AddCommand(
		newAddCommand(a), newListCommand(a), newShowCommand(a), newLsCommand(a), newCatCommand(a), newDiffCommand(a),
		newExportCommand(a), newPackageCommand(a), newProfileCommand(a), newAddonsCommand(a), newInventoryCommand(a), newImageCommand(a), newDeltaCommand(a), newVerifyCommand(a),
		newCheckCommand(a), newRepairCommand(a), newRemoveCommand(a), newOptimizeCommand(a), newPruneCommand(a), newStatsCommand(a), version,
	)
	root.SetHelpCommand(&cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Help about a command",
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return usagef("unknown command %q", strings.Join(args, " "))
			}
			return cmd.Help()
		},
	})
	return root
}

// exactly wants n arguments; names says which, for the message.
func exactly(n int, names string) cobra.PositionalArgs { return between(n, n, names) }

// between wants from least to most arguments.
func between(least, most int, names string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return usagef("%s wants %s, got %s", cmd.CommandPath(), names, count(len(args), "argument"))
		}
		return nil
	}
}

// storeDir returns the folder of the store: the flag, the environment, or a
// folder of the user's own.
func (a *app) storeDir() (string, error) {
	if a.store != "" {
		return a.store, nil
	}
	if dir := os.Getenv("FERRY_STORE"); dir != "" {
		return dir, nil
	}
	if dir := os.Getenv("XDG_DATA_HOME"); dir != "" && runtime.GOOS != "windows" {
		return filepath.Join(dir, "ferry"), nil
	}
	if dir := os.Getenv("LOCALAPPDATA"); dir != "" && runtime.GOOS == "windows" {
		return filepath.Join(dir, "ferry"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no folder for the store: %w; name one with --store", err)
	}
	switch runtime.GOOS {
	case "darwin":
		return filepath.Join(home, "Library", "Application Support", "ferry"), nil
	case "windows":
		return filepath.Join(home, "AppData", "Local", "ferry"), nil
	default:
		return filepath.Join(home, ".local", "share", "ferry"), nil
	}
}

func localBackend(dir string) backend.Backend { return backend.NewLocal(dir) }

// openArchive opens the store, making it first where create says so.
func (a *app) openArchive(ctx context.Context, create bool) (*manifest.Archive, error) {
	dir, err := a.storeDir()
	if err != nil {
		return nil, err
	}
	b := localBackend(dir)
	archive, err := manifest.OpenArchive(ctx, b)
	if !create || !errors.Is(err, cas.ErrNotFound) {
		return archive, err
	}
	if err := manifest.CreateArchive(ctx, b, chunking.Default()); err != nil && !errors.Is(err, backend.ErrExist) {
		return nil, err
	}
	return manifest.OpenArchive(ctx, b)
}

// files is what can be asked of a version, in the store or on disk.
type files interface {
	WriteFile(ctx context.Context, w io.Writer, e manifest.Entry) error
	Open(ctx context.Context, e manifest.Entry) (io.ReadCloser, error)
	Chunks(ctx context.Context, e manifest.Entry) ([]manifest.Chunk, error)
	delta.Files
}

// version is a version that a command was pointed to.
type version struct {
	files
	label    string
	manifest *manifest.Manifest
	packed   int64 // bytes of the archive file that it is; 0 for others
	params   chunking.Params
	close    func()
}

// isPath reports whether an argument means a path: one that exists, or that
// cannot be a reference.
func isPath(arg string) bool {
	if _, err := os.Lstat(arg); err == nil {
		return true
	}
	_, err := manifest.ParseRef(arg)
	return err != nil
}

// openVersion opens a version by reference or path.
func (a *app) openVersion(ctx context.Context, arg string, filter *tree.Filter) (*version, error) {
	return a.openSide(ctx, arg, filter, false)
}

// openSide is openVersion; members says whether container files of a path are taken
// apart, as those of a stored version are.
func (a *app) openSide(ctx context.Context, arg string, filter *tree.Filter, members bool) (*version, error) {
	if isPath(arg) {
		return a.scanPath(ctx, arg, filter, members)
	}
	if filter != nil {
		return nil, usagef("--exclude and --include go with paths, not with %s", arg)
	}
	archive, err := a.openArchive(ctx, false)
	if err != nil {
		return nil, err
	}
	v, err := a.storedVersion(ctx, archive, arg)
	if err != nil {
		archive.Close()
		return nil, err
	}
	return v, nil
}

func (a *app) storedVersion(ctx context.Context, archive *manifest.Archive, arg string) (*version, error) {
	ref, err := manifest.ParseRef(arg)
	if err != nil {
		return nil, err
	}
	v, err := archive.Version(ctx, ref)
	if err != nil {
		return nil, err
	}
	m, err := archive.Manifest(ctx, v.Manifest)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", arg, err)
	}
	return &version{files: archive, label: arg, manifest: m, params: archive.Params(), close: func() { archive.Close() }}, nil
}

// scanPath reads a version on disk; members says whether container files in it are
// taken apart.
func (a *app) scanPath(ctx context.Context, arg string, filter *tree.Filter, members bool) (*version, error) {
	fi, err := os.Stat(arg)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: neither a path nor a version of the form NAME@VERSION: %w", arg, os.ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	t, err := tree.Open(arg, tree.Options{Filter: filter})
	if err != nil {
		return nil, err
	}
	done := a.progress("reading "+arg, a.treeSize(ctx, t))
	scan, err := manifest.ScanTree(ctx, t, chunking.Default(), manifest.AddOptions{Progress: done, Warn: a.warn, Members: members})
	a.endProgress()
	if err != nil {
		t.Close()
		return nil, fmt.Errorf("%s: %w", arg, err)
	}
	v := &version{files: scan, label: arg, manifest: scan.Manifest, params: chunking.Default(), close: func() { scan.Close(); t.Close() }}
	if !fi.IsDir() && t.Format() != "file" {
		v.packed = fi.Size()
	}
	return v, nil
}

// treeSize sums the sizes that a tree declares, for progress; 0 when that takes
// reading it, or when nobody looks.
func (a *app) treeSize(ctx context.Context, t tree.Tree) int64 {
	if t.Sequential() || !a.showsProgress() {
		return 0
	}
	sum := int64(0)
	err := t.Walk(ctx, func(n tree.Node, _ func() (io.ReadCloser, error)) error {
		sum += n.Size
		return nil
	})
	if err != nil {
		return 0 // the real walk reports it
	}
	return sum
}

// warn prints a warning, and counts what was left out.
func (a *app) warn(w manifest.Warning) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w.Skipped {
		a.skipped++
	}
	if a.quiet && !w.Skipped {
		return
	}
	if a.json {
		json.NewEncoder(a.stderr).Encode(struct {
			Type string `json:"type"`
			manifest.Warning
		}{"warning", w})
		return
	}
	fmt.Fprintf(a.stderr, "ferry: warning: %s: %s\n", w.Path, w.Text)
}

// print writes the result: v as JSON, or the text.
func (a *app) print(v any, text func(w io.Writer)) error {
	a.endProgress()
	if a.json {
		enc := json.NewEncoder(a.stdout)
		enc.SetEscapeHTML(false)
		return enc.Encode(v)
	}
	var b strings.Builder
	text(&b)
	_, err := io.WriteString(a.stdout, b.String())
	return err
}

// size writes a number of bytes for people.
func size(n int64) string {
	if n < 0 {
		return "-" + humanize.IBytes(uint64(-n))
	}
	return humanize.IBytes(uint64(n))
}

// count writes a number of things.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return humanize.Comma(int64(n)) + " " + thing + "s"
}
