package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"ferry/cas"
	"ferry/export"
	"ferry/manifest"
	"ferry/manifest/addon"
	"ferry/manifest/profile"
)

// The files that a package has besides those of its version.
const (
	sumsName   = "SHA256SUMS"
	readmeName = "PACKAGE-README.txt"
)

// overlay is files of a version, with some of its own in front of them.
type overlay struct {
	files export.Files
	own   map[string][]byte // by path
}

var _ export.Files = (*overlay)(nil)

// WriteFile implements export.Files.
func (o *overlay) WriteFile(ctx context.Context, w io.Writer, e manifest.Entry) error {
	data, ok := o.own[e.Path]
	if !ok {
		return o.files.WriteFile(ctx, w, e)
	}
	_, err := w.Write(data)
	return err
}

// packaged is the content of a package.
type packaged struct {
	overlay
	manifest  *manifest.Manifest
	rewritten []string // paths, sorted
}

// put sets a file of the overlay. Its time is that of the file it replaces, or else
// the given one.
func (p *packaged) put(path string, data []byte, modTime int64) error {
	e := manifest.Entry{Path: path, Type: manifest.TypeFile, ModTime: modTime, Size: int64(len(data)), Digest: cas.Sum(data)}
	entries := slices.Clone(p.manifest.Entries)
	if i, ok := p.manifest.Index(path); ok {
		e.ModTime, e.Exec = entries[i].ModTime, entries[i].Exec
		entries[i] = e
	} else {
		entries = append(entries, e)
	}
	m, err := manifest.New(entries)
	if err != nil {
		return err
	}
	p.own[path], p.manifest = data, m
	return nil
}

// withoutOwn leaves out the files of a package that the selection was once in.
func withoutOwn(s *profile.Selection) error {
	var kept []manifest.Entry
	for _, e := range s.Manifest.Entries {
		if strings.EqualFold(e.Path, sumsName) || strings.EqualFold(e.Path, readmeName) {
			s.Excluded = append(s.Excluded, profile.Excluded{Path: e.Path, Size: e.Size, Rule: "of another package: " + e.Path})
			continue
		}
		kept = append(kept, e)
	}
	var err error
	s.Manifest, err = manifest.New(kept)
	return err
}

// packageContent puts the content of a package together: what was selected, the
// manifests of addons that were taken in part, and with sums, what it is checked
// with.
func packageContent(ctx context.Context, a *app, v *version, s *profile.Selection, addons *addon.Selection, r packageResult, sums bool) (*packaged, error) {
	p := &packaged{overlay: overlay{v, map[string][]byte{}}, manifest: s.Manifest, rewritten: []string{}}
	rewritten, err := addons.Rewritten()
	if err != nil {
		return nil, err
	}
	for _, path := range slices.Sorted(maps.Keys(rewritten)) {
		if _, ok := p.manifest.Find(path); !ok {
			continue // a rule leaves it out
		}
		if err := p.put(path, rewritten[path], 0); err != nil {
			return nil, err
		}
		p.rewritten = append(p.rewritten, path)
	}
	if !sums {
		return p, nil
	}
	newest := int64(0) // the same source gives the same package, whenever it is made
	for _, e := range p.manifest.Entries {
		newest = max(newest, e.ModTime)
	}
	if err := p.put(readmeName, packageReadme(r), newest); err != nil {
		return nil, err
	}
	list, err := sha256Sums(ctx, p, p.manifest, a.progress("hashing "+v.label, p.manifest.Size()))
	a.endProgress()
	if err != nil {
		return nil, err
	}
	return p, p.put(sumsName, list, newest)
}

// sha256Sums returns the sums of all files, sorted by path, in the form that
// "sha256sum -c" reads.
func sha256Sums(ctx context.Context, files export.Files, m *manifest.Manifest, progress cas.Counter) ([]byte, error) {
	sums := make([][]byte, len(m.Entries))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, e := range m.Entries {
		if e.Type != manifest.TypeFile {
			continue
		}
		g.Go(func() error {
			h := sha256.New()
			if err := files.WriteFile(ctx, h, e); err != nil {
				return err
			}
			sums[i] = h.Sum(nil)
			progress.Add(e.Size)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var list []byte
	for i, e := range m.Entries {
		if sums[i] != nil {
			list = append(list, sumLine(sums[i], e.Path)...)
		}
	}
	return list, nil
}

// sumLine writes a line of sha256sum. A backslash in front says that the name is
// escaped (GNU coreutils manual, "md5sum invocation").
func sumLine(sum []byte, path string) string {
	escaped := strings.NewReplacer("\n", `\n`, "\r", `\r`).Replace(path) // a path has no backslash
	line := hex.EncodeToString(sum) + "  " + escaped + "\n"
	if escaped != path {
		line = `\` + line
	}
	return line
}

// packageReadme says what a package is, and how to check it with nothing but what a
// system has. The same package always has the same.
func packageReadme(r packageResult) []byte {
	var b strings.Builder
	line := func(key, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%-9s %s\n", key, value)
		}
	}
	offline := "no"
	if r.Offline {
		offline = "yes"
	}
	addons := ""
	if r.Addons != nil {
		addons = orNone(r.Addons)
	}
	line("Package", r.Profile)
	line("Version", r.Version)
	line("Variant", r.Variant)
	line("Offline", offline)
	line("Addons", addons)
	b.WriteString(`
` + sumsName + ` lists the SHA-256 of every file here but its own. To check them, unpack the
package, go into its folder, and run on Linux or macOS

  sha256sum -c ` + sumsName + `        (macOS: shasum -a 256 -c ` + sumsName + `)

or in PowerShell on Windows, which prints the files that differ or are missing:

  Get-Content ` + sumsName + ` -Encoding UTF8 | ForEach-Object {
    $sum, $path = $_ -split '  ', 2
    if ((Get-FileHash -LiteralPath $path -ErrorAction SilentlyContinue).Hash -ne $sum) { "DIFFERS: $path" }
  }
`)
	return []byte(b.String())
}
