package delta

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"slices"

	"ferry/manifest"
)

// infoColumns is what delta.json says of files, a value for each: first of those in
// Added, then of those in Changed, then of Others. There may be thousands, and rows with
// their names again would be much of a small delta.
type infoColumns struct {
	Others []string `json:"others,omitempty"`
	Size   []int64  `json:"size_bytes"`
	Cost   []int64  `json:"cost_bytes"`
	// New is left out: it is what Copied and Zero leave of Size, but of those in NewOf.
	Copied []int64          `json:"copied_bytes"`
	Zero   []int64          `json:"zero_bytes"`
	NewOf  map[string]int64 `json:"new_bytes,omitempty"`
	How    []int            `json:"how"` // index into Hows
	Hows   []string         `json:"hows"`
	// By path, where there is something to say: Change, where it does not follow from the
	// list that the file is in.
	Change  map[string]manifest.ChangeKind `json:"change,omitempty"`
	From    map[string]string              `json:"from,omitempty"`
	Members map[string][]InfoMember        `json:"members,omitempty"`
}

// followsFrom is the change of a file in that list.
func followsFrom(i int, info *Info) manifest.ChangeKind {
	switch {
	case i < len(info.Added):
		return manifest.Added
	case i < len(info.Added)+len(info.Changed):
		return manifest.Changed
	}
	return manifest.Same
}

// columns returns what is said of the files.
func (i *Info) columns() *infoColumns {
	c := &infoColumns{
		Size: []int64{}, Cost: []int64{}, Copied: []int64{}, Zero: []int64{}, How: []int{}, Hows: []string{}, NewOf: map[string]int64{},
		Change: map[string]manifest.ChangeKind{}, From: map[string]string{}, Members: map[string][]InfoMember{},
	}
	rows := map[string]InfoFile{}
	for _, f := range i.Files {
		rows[f.Path] = f
	}
	paths := slices.Concat(i.Added, i.Changed)
	listed := map[string]bool{}
	for _, p := range paths {
		listed[p] = true
	}
	for _, f := range i.Files {
		if !listed[f.Path] {
			c.Others = append(c.Others, f.Path)
		}
	}
	hows := map[string]int{}
	for k, p := range append(paths, c.Others...) {
		f := rows[p]
		c.Size, c.Cost = append(c.Size, f.Size), append(c.Cost, f.Cost)
		c.Copied, c.Zero = append(c.Copied, f.Copied), append(c.Zero, f.Zero)
		if f.New != f.Size-f.Copied-f.Zero {
			c.NewOf[p] = f.New
		}
		n, ok := hows[f.How]
		if !ok {
			n = len(hows)
			hows[f.How] = n
			c.Hows = append(c.Hows, f.How)
		}
		c.How = append(c.How, n)
		if f.Change != followsFrom(k, i) {
			c.Change[p] = f.Change
		}
		if f.From != "" {
			c.From[p] = f.From
		}
		if len(f.Members) > 0 {
			c.Members[p] = f.Members
		}
	}
	return c
}

// rows returns the files of columns, by path.
func (c *infoColumns) rows(info *Info) ([]InfoFile, error) {
	paths := slices.Concat(info.Added, info.Changed, c.Others)
	n := len(paths)
	if len(c.Size) != n || len(c.Cost) != n || len(c.Copied) != n || len(c.Zero) != n || len(c.How) != n {
		return nil, errors.New("columns of files are not of their number")
	}
	files := make([]InfoFile, n)
	for i, p := range paths {
		f := InfoFile{Path: p, Change: followsFrom(i, info), From: c.From[p], Size: c.Size[i], Cost: c.Cost[i], Copied: c.Copied[i], Zero: c.Zero[i], Members: c.Members[p]}
		f.New = f.Size - f.Copied - f.Zero
		if v, ok := c.NewOf[p]; ok {
			f.New = v
		}
		if kind, ok := c.Change[p]; ok {
			f.Change = kind
		}
		if c.How[i] < 0 || c.How[i] >= len(c.Hows) {
			return nil, errors.New("files made in a way that is not listed")
		}
		f.How = c.Hows[c.How[i]]
		files[i] = f
	}
	slices.SortStableFunc(files, func(a, b InfoFile) int { return cmp.Compare(a.Path, b.Path) })
	return files, nil
}

// listed returns the paths that are added or changed, sorted.
func (i *Info) listed() []string {
	paths := slices.Concat(i.Added, i.Changed)
	slices.Sort(paths)
	return slices.Compact(paths)
}

// encode returns delta.json: indented, but for the columns.
func (i *Info) encode() ([]byte, error) {
	rest := *i
	rest.Format, rest.Files = infoColumnsFormat, nil
	data, err := json.MarshalIndent(&rest, "", " ")
	if err != nil {
		return nil, err
	}
	columns, err := json.Marshal(i.columns())
	if err != nil {
		return nil, err
	}
	return bytes.Replace(data, []byte("\n \"files\": null"), append([]byte("\n \"files\": "), columns...), 1), nil
}

// decodeInfo parses delta.json, of either version.
func decodeInfo(data []byte) (*Info, error) {
	var version struct {
		Format string `json:"format"`
	}
	if err := json.Unmarshal(data, &version); err != nil {
		return nil, err
	}
	info := &Info{}
	if version.Format != infoColumnsFormat {
		return info, json.Unmarshal(data, info)
	}
	var later struct {
		*Info
		Files *infoColumns `json:"files"` // hides that of Info
	}
	later.Info = info
	if err := json.Unmarshal(data, &later); err != nil {
		return nil, err
	}
	if later.Files == nil {
		return nil, errors.New("no files")
	}
	var err error
	info.Files, err = later.Files.rows(info)
	info.Format = infoFormat
	return info, err
}
