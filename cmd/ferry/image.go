package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"ferry/cas"
	"ferry/chunking/disk"
	"ferry/manifest"
	"ferry/manifest/guest"
	"ferry/manifest/tree"
)

func newImageCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Look into disk images, compare and compact them",
		Long: `Reads disk images (VHDX, VHD, qcow2, raw; GPT and MBR; ext2, ext3, ext4, FAT) where they
lie: nothing is mounted or started, and no administrator rights are needed.

An IMAGE is a file, or FILE in a version or package, written REF!FILE or PATH!FILE;
of a version or package with one image only, REF or PATH will do.` + "\n" + exitHelp,
		Example: "  ferry image info Kubemaster-Base.vhdx\n  ferry image diff k2s@1.4.0 k2s@1.5.0\n  ferry image compact Kubemaster-Base.vhdx small.vhdx",
		Args: func(_ *cobra.Command, args []string) error {
			return usagef("say what to do: ferry image info, diff or compact")
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newImageInfoCommand(a), newImageDiffCommand(a), newImageCompactCommand(a))
	return cmd
}

// image is a disk image that a command was pointed to.
type image struct {
	*disk.Image
	label string
	path  string // in its package, or its name
	close func()
}

// openImage opens a disk image: see the help of ferry image.
func (a *app) openImage(ctx context.Context, arg string) (*image, error) {
	where, file, inside := strings.Cut(arg, manifest.InsideMark)
	if _, err := os.Lstat(arg); err == nil {
		where, file, inside = arg, "", false // a name may have the mark in it
	}
	file = strings.ReplaceAll(file, `\`, "/")
	if !isPath(where) {
		v, err := a.openVersion(ctx, where, nil)
		if err != nil {
			return nil, err
		}
		m, err := storedImage(ctx, v, file)
		if err != nil {
			v.close()
			return nil, err
		}
		m.label = arg
		closeContent := m.close
		m.close = func() { closeContent(); v.close() }
		return m, nil
	}
	t, err := tree.Open(where, tree.Options{})
	if err != nil {
		return nil, err
	}
	m, err := treeImage(ctx, t, where, file, inside)
	if err != nil {
		t.Close()
		return nil, err
	}
	m.label = arg
	closeContent := m.close
	m.close = func() { closeContent(); t.Close() }
	return m, nil
}

// asImage looks into a content, which it closes when it is no image.
func asImage(c tree.Content, path string) (*image, error) {
	m, err := manifest.OpenImage(c)
	if err == nil && m == nil {
		err = fmt.Errorf("%w: %w", manifest.ErrInvalid, disk.ErrFormat)
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &image{Image: m, path: path, close: func() { c.Close() }}, nil
}

// smallestImage is the size in bytes from which a file is looked at to find an image.
const smallestImage = 64 << 10

// storedImage opens the image at file, or the only one of a version.
func storedImage(ctx context.Context, v *version, file string) (*image, error) {
	if file != "" {
		e, ok := v.manifest.Find(file)
		if !ok || e.Type != manifest.TypeFile {
			return nil, fmt.Errorf("%s: %w", v.label, &cas.NotFoundError{What: "file", Name: file})
		}
		c, err := v.OpenAt(ctx, e)
		if err != nil {
			return nil, err
		}
		return asImage(c, file)
	}
	var found []*image
	for _, e := range v.manifest.Entries {
		if e.Type != manifest.TypeFile || e.Size < smallestImage {
			continue
		}
		r, err := v.Recipe(ctx, e)
		if err != nil {
			return nil, err
		}
		if !r.Container() || !r.Plain() { // an image is taken apart, and has no deflated layout of its own
			if !looksLikeImage(e.Path) {
				continue
			}
		}
		c, err := v.OpenAt(ctx, e)
		if err != nil {
			return nil, err
		}
		if m, err := asImage(c, e.Path); err == nil {
			found = append(found, m)
		} else if !errors.Is(err, disk.ErrFormat) {
			return nil, err
		}
	}
	return onlyImage(v.label, found)
}

// looksLikeImage reports whether a file is called like a disk image.
func looksLikeImage(path string) bool {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".vhdx", ".vhd", ".qcow2", ".img", ".raw":
		return true
	}
	return false
}

// treeImage opens the image at file of a tree on disk, or the only one.
func treeImage(ctx context.Context, t tree.Tree, where, file string, inside bool) (*image, error) {
	var found []*image
	err := t.Walk(ctx, func(n tree.Node, _ func() (io.ReadCloser, error)) error {
		if n.Kind != tree.File || inside && n.Path != file || !inside && t.Format() != "file" && (n.Size < smallestImage || !looksLikeImage(n.Path)) {
			return nil
		}
		c, err := t.OpenAt(ctx, n.Path)
		if err != nil {
			return err
		}
		m, err := asImage(c, n.Path)
		if err == nil {
			found = append(found, m)
		} else if inside || t.Format() == "file" || !errors.Is(err, disk.ErrFormat) {
			return err
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	if inside && len(found) == 0 {
		return nil, fmt.Errorf("%s: %w", where, &cas.NotFoundError{What: "file", Name: file})
	}
	return onlyImage(where, found)
}

// onlyImage wants one image.
func onlyImage(label string, found []*image) (*image, error) {
	if len(found) == 1 {
		return found[0], nil
	}
	var names []string
	for _, m := range found {
		m.close()
		names = append(names, label+manifest.InsideMark+m.path)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s: %w", label, &cas.NotFoundError{What: "disk image", Name: "(any)"})
	}
	return nil, usagef("%s has %d disk images; say which: %s", label, len(found), strings.Join(names, ", "))
}

func newImageInfoCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "info IMAGE",
		Short:   "Say what a disk image is and what is in it",
		Long:    "Says of which format a disk image is, and lists its volumes with their file systems." + "\n" + exitHelp,
		Example: "  ferry image info Kubemaster-Base.vhdx\n  ferry image info 'k2s@1.5.0!bin/Kubemaster-Base.vhdx' --json",
		Args:    exactly(1, "IMAGE"),
		RunE:    func(cmd *cobra.Command, args []string) error { return runImageInfo(cmd.Context(), a, args[0]) },
	}
}

// imageInfo is what image info prints.
type imageInfo struct {
	Image   string       `json:"image"`
	Format  string       `json:"format"`
	Kind    string       `json:"kind,omitempty"` // of a VHDX or VHD: dynamic, fixed
	Size    int64        `json:"disk_bytes"`
	Sector  int64        `json:"sector_bytes"`
	Block   int64        `json:"block_bytes,omitempty"`
	ID      string       `json:"id,omitempty"`
	Log     bool         `json:"log_pending,omitempty"`
	Table   string       `json:"partition_table,omitempty"`
	Volumes []volumeInfo `json:"volumes"`
	// Unused is what is not zeros in free blocks, and compacting would drop.
	Unused        int64  `json:"unused_bytes"`
	UnusedUnknown string `json:"unused_unknown,omitempty"` // why it is not known
}

type volumeInfo struct {
	Number int    `json:"number"`
	Kind   string `json:"file_system"`
	Name   string `json:"name,omitempty"`
	Type   string `json:"type,omitempty"`
	Off    int64  `json:"off"`
	Size   int64  `json:"size_bytes"`
	Files  int    `json:"files"`
	UUID   string `json:"uuid,omitempty"`
	Error  string `json:"error,omitempty"`
}

func runImageInfo(ctx context.Context, a *app, arg string) error {
	m, err := a.openImage(ctx, arg)
	if err != nil {
		return err
	}
	defer m.close()
	_, length, sector := m.Disk()
	r := imageInfo{Image: m.label, Format: m.Format, Size: length, Sector: sector, Volumes: []volumeInfo{}}
	if m.Virtual != nil {
		i := m.Virtual.Info()
		r.Kind, r.Block, r.ID, r.Log = i.Kind, i.BlockSize, i.ID, i.LogPending
	}
	if m.Table != nil {
		r.Table = m.Table.Scheme
	}
	for _, v := range m.Volumes {
		i := volumeInfo{Number: v.Number, Kind: v.Kind, Name: v.Name, Type: v.Type, Off: v.Off, Size: v.Size}
		if v.Ext4 != nil {
			u := v.Ext4.UUID()
			i.UUID = fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
		}
		if v.Err != nil {
			i.Error = v.Err.Error()
		} else if v.Kind != "" {
			if i.Files, err = v.Count(ctx); err != nil {
				i.Error = err.Error()
			}
		}
		r.Volumes = append(r.Volumes, i)
	}
	c, err := m.Compacted(ctx)
	switch {
	case err == nil:
		if r.Unused, err = c.Freed(ctx); err != nil {
			return err
		}
	case ctx.Err() != nil || !disk.Malformed(err):
		return err
	default:
		r.UnusedUnknown = err.Error()
	}
	return a.print(r, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %s, disk of %s, sectors of %d bytes\n", r.Image, strings.TrimSpace(r.Format+" "+r.Kind), size(r.Size), r.Sector)
		if r.Log {
			fmt.Fprintln(w, "its log has changes that are not in their places yet")
		}
		t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		fmt.Fprintln(t, "VOLUME\tFILE SYSTEM\tSIZE\tFILES\tNAME")
		for _, v := range r.Volumes {
			kind := v.Kind
			if kind == "" {
				kind = "unknown"
			}
			fmt.Fprintf(t, "%d\t%s\t%s\t%d\t%s\n", v.Number, kind, size(v.Size), v.Files, v.Name)
			if v.Error != "" {
				fmt.Fprintf(t, "\t%s\n", v.Error)
			}
		}
		t.Flush()
		if r.UnusedUnknown != "" {
			fmt.Fprintf(w, "what is free is not known: %s\n", r.UnusedUnknown)
		}
		if r.Unused > 0 {
			fmt.Fprintf(w, "%s in free blocks are leftovers: ferry image compact drops them\n", size(r.Unused))
		}
	})
}

func newImageDiffCommand(a *app) *cobra.Command {
	var config []string
	cmd := &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "List what changed inside a disk image",
		Long: `Lists what changed in the Linux systems of two disk images: Debian packages with
their versions, container images, kernels, systemd units, and files of configuration.
The largest ext4 volume that has a /etc counts as the system. JSON has the names of
K2s' delta manifest: DebianPackageDiff, ContainerImageDiff, GuestConfigDiff.` + "\n" + exitHelp,
		Example: "  ferry image diff old.vhdx new.vhdx\n  ferry image diff k2s@1.4.0 k2s@1.5.0 --config etc/kubernetes --json",
		Args:    exactly(2, "OLD and NEW"),
		RunE:    func(cmd *cobra.Command, args []string) error { return runImageDiff(cmd.Context(), a, args, config) },
	}
	cmd.Flags().StringArrayVar(&config, "config", nil, "a folder whose files are configuration (default those of K2s)")
	return cmd
}

// imageDiff is what image diff prints.
type imageDiff struct {
	Base   string `json:"base"`
	Target string `json:"target"`
	*guest.Diff
}

func runImageDiff(ctx context.Context, a *app, args []string, config []string) error {
	var states [2]*guest.State
	var paths [2]string
	for i, arg := range args {
		m, err := a.openImage(ctx, arg)
		if err != nil {
			return err
		}
		paths[i] = m.path
		for _, v := range m.Volumes {
			if v.Ext4 != nil && v.Ext4.NeedsRecovery() {
				a.warn(manifest.Warning{Path: m.label, Text: fmt.Sprintf("volume %d has a journal to be replayed: what is told may be older", v.Number)})
			}
		}
		states[i], err = guestState(ctx, m.Image, config)
		m.close()
		if err != nil {
			return fmt.Errorf("%s: %w", arg, err)
		}
	}
	d := guest.Compare(states[0], states[1])
	p := &d.DebianPackageDiff
	p.File, p.OldRelativePath, p.NewRelativePath = filepath.Base(paths[1]), paths[0], paths[1]
	return a.print(imageDiff{args[0], args[1], d}, func(w io.Writer) { printGuestDiff(w, d) })
}

// guestState reads the Linux system of a disk image.
func guestState(ctx context.Context, m *disk.Image, config []string) (*guest.State, error) {
	var root *disk.Volume
	for _, v := range m.Volumes {
		if v.Ext4 == nil || root != nil && root.Size >= v.Size {
			continue
		}
		if _, err := v.Ext4.Lookup("etc"); err == nil {
			root = v
		}
	}
	if root == nil {
		for _, v := range m.Volumes {
			if v.Err != nil {
				return nil, fmt.Errorf("volume %d: %w", v.Number, v.Err)
			}
		}
		return nil, &cas.NotFoundError{What: "Linux system", Name: "(an ext4 volume with /etc)"}
	}
	files, err := root.Files(ctx)
	if err != nil {
		return nil, err
	}
	return guest.Read(ctx, files, config)
}

func printGuestDiff(w io.Writer, d *guest.Diff) {
	if d.Empty() {
		fmt.Fprintln(w, "nothing changed: packages, container images, kernels, units and configuration are the same")
		return
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	list := func(kind, change string, names []string) {
		for _, name := range names {
			fmt.Fprintf(t, "%s\t%s\t%s\n", change, kind, name)
		}
	}
	list("package", "added", d.DebianPackageDiff.Added)
	list("package", "removed", d.DebianPackageDiff.Removed)
	list("package", "changed", d.DebianPackageDiff.Changed)
	for _, c := range []struct {
		change string
		images []guest.ImageName
	}{{"added", d.ContainerImageDiff.AddedImages}, {"removed", d.ContainerImageDiff.RemovedImages}, {"changed", d.ContainerImageDiff.ChangedImages}} {
		for _, i := range c.images {
			fmt.Fprintf(t, "%s\tcontainer image\t%s\n", c.change, i.FullName)
		}
	}
	list("kernel", "added", d.KernelDiff.Added)
	list("kernel", "removed", d.KernelDiff.Removed)
	for _, f := range []struct {
		kind string
		d    guest.FileDiff
	}{{"unit", d.SystemdUnitDiff}, {"configuration", d.GuestConfigDiff}} {
		list(f.kind, "added", f.d.Added)
		list(f.kind, "removed", f.d.Removed)
		list(f.kind, "changed", f.d.Changed)
	}
	t.Flush()
}

func newImageCompactCommand(a *app) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "compact IN OUT",
		Short: "Write a disk image without what is left of deleted files",
		Long: `Writes an equivalent image whose free blocks, by its file systems' own bitmaps, are
zeros, and of a VHDX, whose unused blocks are gone. Files, metadata, identities and
sizes are as they were. OUT has the format of IN, or what its name says: .vhdx, or
.raw and .img; a VHD is read, and not written. It is read back and compared before it gets its name. IN is only read.

A file system that is damaged, or was not unmounted, is an error: mount it, or run
e2fsck, first.` + "\n" + exitHelp,
		Example: "  ferry image compact Kubemaster-Base.vhdx small.vhdx\n  ferry image compact disk.raw disk.vhdx",
		Args:    exactly(2, "IN and OUT"),
		RunE:    func(cmd *cobra.Command, args []string) error { return runImageCompact(cmd.Context(), a, args, force) },
	}
	cmd.Flags().BoolVar(&force, "force", false, "replace a file that stands at OUT")
	return cmd
}

// compactResult is what image compact prints.
type compactResult struct {
	Input   string  `json:"input"`
	Output  string  `json:"output"`
	Format  string  `json:"format"`
	Size    int64   `json:"file_bytes"`
	Freed   int64   `json:"freed_bytes"` // in blocks that are free and were no zeros
	Seconds float64 `json:"seconds"`
}

func runImageCompact(ctx context.Context, a *app, args []string, force bool) error {
	begun := time.Now()
	m, err := a.openImage(ctx, args[0])
	if err != nil {
		return err
	}
	defer m.close()
	if in, err := os.Stat(args[0]); err == nil {
		if out, err := os.Stat(args[1]); err == nil && os.SameFile(in, out) {
			return usagef("IN and OUT are the same file")
		}
	}
	form, err := formOf(args[1], m.Format)
	if err != nil {
		return err
	}
	c, err := m.Compacted(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	r := compactResult{Input: args[0], Output: args[1], Format: string(form)}
	if r.Freed, err = c.Freed(ctx); err != nil {
		return err
	}
	if r.Size, err = writeImage(ctx, a, c, form, args[1], force); err != nil {
		return err
	}
	r.Seconds = time.Since(begun).Seconds()
	return a.print(r, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %s, %s of leftovers dropped, read back (%.1f s)\n", r.Output, size(r.Size), size(r.Freed), r.Seconds)
	})
}

// formOf returns the form that a file's name says, or that of format.
func formOf(path, format string) (disk.Form, error) {
	ext := strings.ToLower(filepath.Ext(path))
	switch ext {
	case ".vhdx":
		return disk.FormVHDX, nil
	case ".raw", ".img":
		return disk.FormRaw, nil
	case ".vhd", ".qcow2":
		return "", usagef("a %s is not written; call the output NAME.vhdx or NAME.raw", ext[1:])
	}
	switch format {
	case "vhdx":
		return disk.FormVHDX, nil
	case "raw":
		return disk.FormRaw, nil
	}
	return "", usagef("a %s is not written; call the output NAME.vhdx or NAME.raw", format)
}

// writeImage writes a disk image beside its name, reads it back and compares it, and
// gives it its name. It returns its size in bytes.
func writeImage(ctx context.Context, a *app, c *disk.Contents, form disk.Form, path string, force bool) (n int64, err error) {
	err = writeOutput(path, force, func(f *os.File) error {
		progress := a.progress("writing "+filepath.Base(path), c.Size())
		defer a.endProgress()
		if form == disk.FormRaw {
			if err := f.Truncate(c.Size()); err != nil {
				return err
			}
		}
		if err := disk.Write(ctx, &countedWriterAt{f, progress}, c, form); err != nil {
			return err
		}
		fi, err := f.Stat()
		if err != nil {
			return err
		}
		n = fi.Size()
		back := disk.Raw(f, n)
		if form != disk.FormRaw {
			image, err := disk.Open(f, n)
			if err != nil {
				return fmt.Errorf("reading it back: %w", err)
			}
			back = image.Contents()
		}
		at, err := disk.Equal(ctx, c, back)
		if err == nil && at >= 0 {
			err = fmt.Errorf("reading it back: byte %d of the disk differs", at)
		}
		return err
	})
	return n, err
}

// countedWriterAt counts what is written.
type countedWriterAt struct {
	w        io.WriterAt
	progress cas.Counter
}

func (c *countedWriterAt) WriteAt(p []byte, off int64) (int, error) {
	n, err := c.w.WriteAt(p, off)
	c.progress.Add(int64(n))
	return n, err
}
