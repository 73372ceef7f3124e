package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"ferry/cas"
	"ferry/manifest"
	"ferry/manifest/tree"
)

func newShowCommand(a *app) *cobra.Command {
	var raw bool
	cmd := &cobra.Command{
		Use:   "show REF|PATH",
		Short: "Sum a version up, or print its manifest",
		Long: `Says how many files a version has, of which kinds and sizes, and its manifest id.
With --manifest, prints the manifest itself: the canonical bytes whose BLAKE3 is
the id. Save them to verify with later, where no store is.` + "\n" + exitHelp,
		Example: "  ferry show k2s@1.5.0\n  ferry show k2s@1.5.0 --manifest > k2s-1.5.0.manifest",
		Args:    exactly(1, "REF or PATH"),
		RunE:    func(cmd *cobra.Command, args []string) error { return runShow(cmd.Context(), a, args[0], raw) },
	}
	cmd.Flags().BoolVar(&raw, "manifest", false, "print the manifest's canonical bytes")
	return cmd
}

// showResult is what show prints.
type showResult struct {
	Version  string     `json:"version"`
	Manifest cas.Digest `json:"manifest"`
	Files    int        `json:"files"`
	Dirs     int        `json:"empty_dirs"`
	Links    int        `json:"links"`
	Size     int64      `json:"size_bytes"`
}

func runShow(ctx context.Context, a *app, arg string, raw bool) error {
	v, err := a.openVersion(ctx, arg, nil)
	if err != nil {
		return err
	}
	defer v.close()
	if raw {
		_, err := a.stdout.Write(v.manifest.Encode())
		return err
	}
	r := showResult{Version: v.label, Manifest: v.manifest.ID(), Size: v.manifest.Size()}
	for _, e := range v.manifest.Entries {
		switch e.Type {
		case manifest.TypeFile:
			r.Files++
		case manifest.TypeDir:
			r.Dirs++
		case manifest.TypeLink:
			r.Links++
		}
	}
	return a.print(r, func(w io.Writer) {
		fmt.Fprintf(w, "%s\nmanifest  %s\nfiles     %d\nsize      %s (%d bytes)\n", r.Version, r.Manifest, r.Files, size(r.Size), r.Size)
		fmt.Fprintf(w, "links     %d\nempty dirs %d\n", r.Links, r.Dirs)
	})
}

func newLsCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "ls REF|PATH [FOLDER]",
		Short: "List the files of a version",
		Long: `Lists the files of a version with size, time and digest, or those in one folder.

FILE!FOLDER looks into a file: an archive (zip, tar, cpio, gzip, xz, ar) or a disk image, whose
folders begin with the number of the volume. Of a package that is one file, !FOLDER
will do.` + "\n" + exitHelp,
		Example: "  ferry ls k2s@1.5.0\n  ferry ls k2s@1.5.0 bin --json\n  ferry ls k2s@1.5.0 'bin/Kubemaster-Base.vhdx!1/etc'\n  ferry ls disk.vhdx '!1/boot'",
		Args:    between(1, 2, "REF or PATH, and at most one FOLDER"),
		RunE:    func(cmd *cobra.Command, args []string) error { return runLs(cmd.Context(), a, args) },
	}
}

// listedEntry is a line of ls.
type listedEntry struct {
	Path   string        `json:"path"`
	Type   manifest.Type `json:"type"`
	Exec   bool          `json:"exec,omitempty"`
	Size   int64         `json:"size_bytes"`
	MTime  string        `json:"mtime,omitempty"`
	Digest string        `json:"digest,omitempty"`
	Link   string        `json:"link,omitempty"`
}

func listed(e manifest.Entry) listedEntry {
	l := listedEntry{Path: e.Path, Type: e.Type, Exec: e.Exec, Size: e.Size, Link: e.Link}
	if e.Type == manifest.TypeFile {
		if !e.Digest.IsZero() { // which is not looked for in images
			l.Digest = e.Digest.String()
		}
		l.MTime = time.Unix(e.ModTime, 0).UTC().Format(time.RFC3339)
	}
	return l
}

func runLs(ctx context.Context, a *app, args []string) error {
	folder := ""
	if len(args) == 2 {
		folder = strings.Trim(strings.ReplaceAll(args[1], `\`, "/"), "/")
	}
	within, err := a.list(ctx, args[0], folder)
	if err != nil {
		return err
	}
	if len(within) == 0 && folder != "" {
		return fmt.Errorf("%s: %w", args[0], &cas.NotFoundError{What: "path", Name: folder})
	}
	lines := []listedEntry{}
	for _, e := range within {
		lines = append(lines, listed(e))
	}
	return a.print(lines, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		for i, e := range within {
			l := lines[i]
			switch {
			case e.Type == manifest.TypeLink:
				fmt.Fprintf(t, "link\t\t\t%s -> %s\n", e.Path, e.Link)
			case e.Type == manifest.TypeDir:
				fmt.Fprintf(t, "dir\t\t\t%s/\n", e.Path)
			case e.Exec:
				fmt.Fprintf(t, "exec\t%s\t%s\t%s\n", size(e.Size), l.MTime, e.Path)
			default:
				fmt.Fprintf(t, "file\t%s\t%s\t%s\n", size(e.Size), l.MTime, e.Path)
			}
		}
		t.Flush()
	})
}

// list lists a folder of a version, or one within a file.
func (a *app) list(ctx context.Context, arg, folder string) ([]manifest.Entry, error) {
	if file, inner, ok := strings.Cut(folder, manifest.InsideMark); ok {
		return a.listInside(ctx, arg, file, inner)
	}
	v, err := a.openVersion(ctx, arg, nil)
	if err != nil {
		return nil, err
	}
	defer v.close()
	return v.manifest.Within(folder), nil
}

func newCatCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "cat REF|PATH FILE",
		Short: "Print a file of a version",
		Long: `Writes the bytes of one file to standard output, verified while they are read.
FILE!INNER is a file in an archive or disk image: see ferry ls.` + "\n" + exitHelp,
		Example: "  ferry cat k2s@1.5.0 VERSION\n  ferry cat k2s@1.5.0 'bin/Kubemaster-Base.vhdx!1/etc/os-release'",
		Args:    exactly(2, "REF or PATH, and FILE"),
		RunE:    func(cmd *cobra.Command, args []string) error { return runCat(cmd.Context(), a, args) },
	}
}

func runCat(ctx context.Context, a *app, args []string) error {
	path := strings.ReplaceAll(args[1], `\`, "/")
	r, err := a.openOne(ctx, args[0], path)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(a.stdout, r)
	return err
}

// openOne opens one file, without reading the rest of a tree on disk.
func (a *app) openOne(ctx context.Context, arg, path string) (io.ReadCloser, error) {
	if file, inner, ok := strings.Cut(path, manifest.InsideMark); ok {
		return a.openInside(ctx, arg, file, inner)
	}
	if isPath(arg) {
		t, err := tree.Open(arg, tree.Options{})
		if err != nil {
			return nil, err
		}
		r, err := t.Open(ctx, path)
		if err != nil {
			t.Close()
			return nil, fmt.Errorf("%s: %w", arg, err)
		}
		return &closeBoth{r, t}, nil
	}
	v, err := a.openVersion(ctx, arg, nil)
	if err != nil {
		return nil, err
	}
	e, ok := v.manifest.Find(path)
	if !ok || e.Type != manifest.TypeFile {
		v.close()
		return nil, fmt.Errorf("%s: %w", v.label, &cas.NotFoundError{What: "file", Name: path})
	}
	r, err := v.Open(ctx, e)
	if err != nil {
		v.close()
		return nil, err
	}
	return &closeBoth{r, closeFunc(v.close)}, nil
}

type closeFunc func()

func (f closeFunc) Close() error { f(); return nil }

// closeBoth closes what its reader reads from, too.
type closeBoth struct {
	io.ReadCloser
	under io.Closer
}

func (c *closeBoth) Close() error {
	err := c.ReadCloser.Close()
	if underErr := c.under.Close(); err == nil {
		err = underErr
	}
	return err
}
