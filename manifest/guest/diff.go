package guest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Diff is what changed between two states. Its fields are named as in K2s' delta
// manifest where that has them.
type Diff struct {
	DebianPackageDiff  PackageDiff `json:"DebianPackageDiff"`
	ContainerImageDiff ImageDiff   `json:"ContainerImageDiff"`
	GuestConfigDiff    FileDiff    `json:"GuestConfigDiff"`
	SystemdUnitDiff    FileDiff    `json:"SystemdUnitDiff"`
	KernelDiff         KernelDiff  `json:"KernelDiff"`
}

// PackageDiff is what changed of Debian packages: "name=version", or
// "name: version -> version".
type PackageDiff struct {
	Processed       bool     `json:"Processed"`
	File            string   `json:"File"`
	OldRelativePath string   `json:"OldRelativePath"`
	NewRelativePath string   `json:"NewRelativePath"`
	Added           []string `json:"Added"`
	Removed         []string `json:"Removed"`
	Changed         []string `json:"Changed"`
	AddedCount      int      `json:"AddedCount"`
	RemovedCount    int      `json:"RemovedCount"`
	ChangedCount    int      `json:"ChangedCount"`
}

// ImageDiff is what changed of container images.
type ImageDiff struct {
	AddedImages   []ImageName `json:"AddedImages"`
	RemovedImages []ImageName `json:"RemovedImages"`
	ChangedImages []ImageName `json:"ChangedImages"` // of the same name, with another content
	AddedCount    int         `json:"AddedCount"`
	RemovedCount  int         `json:"RemovedCount"`
	ChangedCount  int         `json:"ChangedCount"`
}

// ImageName names a container image.
type ImageName struct {
	FullName string `json:"FullName"`
	Platform string `json:"Platform"`
}

// FileDiff is what changed of files, by path.
type FileDiff struct {
	Added        []string `json:"Added"`
	Changed      []string `json:"Changed"`
	Removed      []string `json:"Removed"`
	AddedCount   int      `json:"AddedCount"`
	ChangedCount int      `json:"ChangedCount"`
	RemovedCount int      `json:"RemovedCount"`
}

// KernelDiff is what changed of kernels, by release.
type KernelDiff struct {
	Added   []string `json:"Added"`
	Removed []string `json:"Removed"`
}

// Compare returns what changed from base to target.
func Compare(base, target *State) *Diff {
	d := &Diff{GuestConfigDiff: compareFiles(base.Config, target.Config), SystemdUnitDiff: compareFiles(base.Units, target.Units)}
	p := &d.DebianPackageDiff
	*p = PackageDiff{Processed: true, Added: []string{}, Removed: []string{}, Changed: []string{}}
	for _, name := range both(base.Packages, target.Packages) {
		was, had := base.Packages[name]
		is, has := target.Packages[name]
		switch {
		case !had:
			p.Added = append(p.Added, name+"="+is)
		case !has:
			p.Removed = append(p.Removed, name+"="+was)
		case was != is:
			p.Changed = append(p.Changed, fmt.Sprintf("%s: %s -> %s", name, was, is))
		}
	}
	p.AddedCount, p.RemovedCount, p.ChangedCount = len(p.Added), len(p.Removed), len(p.Changed)
	d.ContainerImageDiff = compareImages(base.Images, target.Images)
	d.KernelDiff = KernelDiff{Added: lacking(target.Kernels, base.Kernels), Removed: lacking(base.Kernels, target.Kernels)}
	return d
}

// Empty reports whether nothing changed.
func (d *Diff) Empty() bool {
	p, i, c, u, k := d.DebianPackageDiff, d.ContainerImageDiff, d.GuestConfigDiff, d.SystemdUnitDiff, d.KernelDiff
	return p.AddedCount+p.RemovedCount+p.ChangedCount+i.AddedCount+i.RemovedCount+i.ChangedCount == 0 &&
		c.AddedCount+c.RemovedCount+c.ChangedCount+u.AddedCount+u.RemovedCount+u.ChangedCount == 0 && len(k.Added)+len(k.Removed) == 0
}

// both returns the keys of both maps, sorted.
func both(a, b map[string]string) []string {
	keys := slices.AppendSeq(slices.Collect(maps.Keys(a)), maps.Keys(b))
	slices.Sort(keys)
	return slices.Compact(keys)
}

func compareFiles(base, target map[string]string) FileDiff {
	d := FileDiff{Added: []string{}, Changed: []string{}, Removed: []string{}}
	for _, path := range both(base, target) {
		was, had := base[path]
		is, has := target[path]
		switch {
		case !had:
			d.Added = append(d.Added, path)
		case !has:
			d.Removed = append(d.Removed, path)
		case was != is:
			d.Changed = append(d.Changed, path)
		}
	}
	d.AddedCount, d.ChangedCount, d.RemovedCount = len(d.Added), len(d.Changed), len(d.Removed)
	return d
}

func compareImages(base, target []Image) ImageDiff {
	ids := func(images []Image) map[string]string {
		m := map[string]string{}
		for _, i := range images {
			m[i.Name] = strings.Join(slices.DeleteFunc([]string{m[i.Name], i.Store + " " + i.ID}, func(s string) bool { return s == "" }), ",")
		}
		return m
	}
	was, is := ids(base), ids(target)
	d := ImageDiff{AddedImages: []ImageName{}, RemovedImages: []ImageName{}, ChangedImages: []ImageName{}}
	for _, name := range both(was, is) {
		image := ImageName{FullName: name, Platform: "linux"}
		switch {
		case was[name] == "":
			d.AddedImages = append(d.AddedImages, image)
		case is[name] == "":
			d.RemovedImages = append(d.RemovedImages, image)
		case was[name] != is[name]:
			d.ChangedImages = append(d.ChangedImages, image)
		}
	}
	d.AddedCount, d.RemovedCount, d.ChangedCount = len(d.AddedImages), len(d.RemovedImages), len(d.ChangedImages)
	return d
}

// lacking returns what is in a and not in b.
func lacking(a, b []string) []string {
	out := slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
	slices.SortFunc(out, cmp.Compare[string])
	return append([]string{}, out...)
}
