package addon

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"ferry/manifest"
)

// ErrNothingLeft says that a manifest would have no implementation.
var ErrNothingLeft = errors.New("no implementation is left")

// Change says what became of an implementation.
type Change struct {
	Implementation string     `json:"implementation"`
	Kind           ChangeKind `json:"kind"`
}

// ChangeKind is a kind of change.
type ChangeKind string

// The kinds of changes.
const (
	Added     ChangeKind = "added"
	Replaced  ChangeKind = "replaced"
	Unchanged ChangeKind = "unchanged"
)

// Filtered returns a manifest with the implementations named in keep alone; case
// does not count. All other bytes stay as they are: comments, line ends, a byte
// order mark. The error matches [ErrNothingLeft], or manifest.ErrInvalid when a
// name is not in the manifest, or the manifest makes no sense.
func Filtered(manifestYAML []byte, keep []string) ([]byte, error) {
	t, err := parseText(manifestYAML)
	if err != nil {
		return nil, err
	}
	for _, name := range keep {
		if t.index(name) < 0 {
			return nil, fmt.Errorf("%w: no implementation %s", manifest.ErrInvalid, name)
		}
	}
	var kept []block
	for _, b := range t.blocks {
		if slices.ContainsFunc(keep, func(name string) bool { return strings.EqualFold(name, b.name) }) {
			kept = append(kept, b)
		}
	}
	switch len(kept) {
	case 0:
		return nil, ErrNothingLeft
	case len(t.blocks):
		return manifestYAML, nil
	}
	return t.with(kept)
}

// Merge returns existing with the implementations of incoming: those replace their
// namesakes, where they differ, or come behind. All else is that of existing. The
// error matches manifest.ErrInvalid when one of them makes no sense, or they are
// of different addons. Without an existing manifest, the result is incoming.
func Merge(existing, incoming []byte) (merged []byte, changes []Change, err error) {
	in, err := parseText(incoming)
	if err != nil {
		return nil, nil, fmt.Errorf("incoming: %w", err)
	}
	if len(existing) == 0 {
		for _, b := range in.blocks {
			changes = append(changes, Change{b.name, Added})
		}
		return incoming, changes, nil
	}
	t, err := parseText(existing)
	if err != nil {
		return nil, nil, fmt.Errorf("existing: %w", err)
	}
	if !strings.EqualFold(t.addon, in.addon) {
		return nil, nil, fmt.Errorf("%w: addon %s is not addon %s", manifest.ErrInvalid, in.addon, t.addon)
	}
	blocks := slices.Clone(t.blocks)
	for _, b := range in.blocks {
		change := Change{b.name, Added}
		switch i := t.index(b.name); {
		case i < 0:
			blocks = append(blocks, t.adopt(in, b))
		case reflect.DeepEqual(blocks[i].value, b.value):
			change.Kind = Unchanged
		default:
			change.Kind = Replaced
			blocks[i] = t.adopt(in, b)
		}
		changes = append(changes, change)
	}
	if !slices.ContainsFunc(changes, func(c Change) bool { return c.Kind != Unchanged }) {
		return existing, changes, nil
	}
	merged, err = t.with(blocks)
	if err != nil {
		return nil, nil, err
	}
	return merged, changes, nil
}

// text is a manifest cut into the blocks of its implementations, and what stands
// before and behind them.
type text struct {
	raw          []byte
	addon        string
	before, rest []string // lines, with their ends
	blocks       []block
	indent       int    // spaces before the dash of a block
	lineEnd      string // "\n" or "\r\n"
	root         yaml.Node
	list         *yaml.Node // the implementations
	flow         bool       // they are not written as blocks
}

// block is an implementation.
type block struct {
	name  string
	value any // decoded
	node  *yaml.Node
	lines []string // nil when the list is not written as blocks
}

func parseText(raw []byte) (*text, error) {
	a, err := Parse(raw)
	if err != nil {
		return nil, err
	}
	t := &text{raw: raw, addon: a.Name, lineEnd: "\n"}
	if bytes.Contains(raw, []byte("\r\n")) {
		t.lineEnd = "\r\n"
	}
	if err := yaml.Unmarshal(bytes.TrimPrefix(raw, utf8BOM), &t.root); err != nil {
		return nil, fmt.Errorf("%w: %s", manifest.ErrInvalid, oneLine(err))
	}
	if t.list = lookup(&t.root, "spec", "implementations"); t.list == nil || t.list.Kind != yaml.SequenceNode {
		return nil, fmt.Errorf("%w: spec.implementations is no list", manifest.ErrInvalid)
	}
	if len(t.list.Content) != len(a.Implementations) {
		return nil, fmt.Errorf("%w: spec.implementations has an empty item", manifest.ErrInvalid)
	}
	for i, node := range t.list.Content {
		b := block{name: a.Implementations[i].Name, node: node}
		if err := node.Decode(&b.value); err != nil {
			return nil, fmt.Errorf("%w: %s", manifest.ErrInvalid, oneLine(err))
		}
		t.blocks = append(t.blocks, b)
	}
	t.flow = t.list.Style&yaml.FlowStyle != 0 || len(t.blocks) == 0
	if !t.flow && !t.cut() {
		return nil, fmt.Errorf("%w: its lines cannot be told apart", manifest.ErrInvalid)
	}
	return t, nil
}

// lookup goes down into a document by keys.
func lookup(n *yaml.Node, keys ...string) *yaml.Node {
	if n.Kind == yaml.DocumentNode && len(n.Content) == 1 {
		n = n.Content[0]
	}
	for _, key := range keys {
		i := 0
		for ; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == key {
				break
			}
		}
		if n.Kind != yaml.MappingNode || i+1 >= len(n.Content) {
			return nil
		}
		n = n.Content[i+1]
	}
	return n
}

// cut divides the lines among the blocks. A comment right above a block's dash, and
// indented no more, belongs to it. It reports whether all blocks have lines: YAML
// knows line ends that text does not (section 5.4 of YAML 1.1).
func (t *text) cut() bool {
	lines := strings.SplitAfter(string(t.raw), "\n")
	var starts []int
	for _, b := range t.blocks {
		start := min(b.node.Line, len(lines)) - 1
		for start > 0 && !isDash(lines[start]) {
			start--
		}
		t.indent = indentOf(lines[start])
		for start > 0 && isComment(lines[start-1]) && indentOf(lines[start-1]) <= t.indent {
			start--
		}
		if len(starts) > 0 && start <= starts[len(starts)-1] {
			return false
		}
		starts = append(starts, start)
	}
	last := starts[len(starts)-1]
	starts = append(starts, t.end(lines, last))
	t.before, t.rest = lines[:starts[0]], lines[starts[len(t.blocks)]:]
	for i := range t.blocks {
		t.blocks[i].lines = lines[starts[i]:starts[i+1]]
	}
	return true
}

func isComment(line string) bool { return strings.HasPrefix(strings.TrimSpace(line), "#") }

func isDash(line string) bool {
	line = strings.TrimSpace(line)
	return line == "-" || strings.HasPrefix(line, "- ")
}

// indentOf counts the spaces that a line begins with.
func indentOf(line string) int { return len(line) - len(strings.TrimLeft(line, " ")) }

// end returns the line behind the block that starts at line start: behind the last
// one that is indented more than its dash, before anything that is not.
func (t *text) end(lines []string, start int) int {
	for start < len(lines)-1 && !isDash(lines[start]) {
		start++
	}
	end := start + 1
	for i := end; i < len(lines); i++ {
		switch content := strings.TrimSpace(lines[i]); {
		case content == "":
		case indentOf(lines[i]) > t.indent:
			end = i + 1
		case content[0] == '#':
		default:
			return end
		}
	}
	return end
}

// adopt returns a block of another manifest, indented as this one's are and with
// its line ends.
func (t *text) adopt(from *text, b block) block {
	if t.flow || from.flow {
		b.lines = nil
		return b
	}
	var lines []string
	for _, line := range b.lines {
		line = strings.TrimRight(line, "\r\n")
		if strings.TrimSpace(line) == "" {
			lines = append(lines, t.lineEnd)
			continue
		}
		if shift := t.indent - from.indent; shift >= 0 {
			line = strings.Repeat(" ", shift) + line
		} else {
			line = line[min(-shift, indentOf(line)):]
		}
		lines = append(lines, line+t.lineEnd)
	}
	b.lines = lines
	return b
}

// with returns the manifest with other blocks, read again to make sure of it.
func (t *text) with(blocks []block) ([]byte, error) {
	write := t.writeBlocks
	if t.flow || slices.ContainsFunc(blocks, func(b block) bool { return b.lines == nil }) {
		write = t.writeNodes
	}
	data, err := write(blocks)
	if err != nil {
		return nil, err
	}
	got, err := parseText(data)
	if err != nil {
		return nil, fmt.Errorf("as rewritten: %w", err)
	}
	same := slices.EqualFunc(got.blocks, blocks, func(a, b block) bool { return a.name == b.name && reflect.DeepEqual(a.value, b.value) })
	if !same {
		return nil, fmt.Errorf("%w: its implementations cannot be told apart as text", manifest.ErrInvalid)
	}
	return data, nil
}

func (t *text) writeBlocks(blocks []block) ([]byte, error) {
	var out []byte
	for _, part := range slices.Concat([]block{{lines: t.before}}, blocks, []block{{lines: t.rest}}) {
		for _, line := range part.lines {
			if n := len(out); n > 0 && out[n-1] != '\n' && line != "" {
				out = append(out, t.lineEnd...) // the file ended here
			}
			out = append(out, line...)
		}
	}
	return out, nil
}

// writeNodes writes the manifest anew: comments stay, its layout does not.
func (t *text) writeNodes(blocks []block) ([]byte, error) {
	list := *t.list
	defer func() { *t.list = list }()
	t.list.Content, t.list.Style = nil, 0
	for _, above := range []*yaml.Node{lookup(&t.root), lookup(&t.root, "spec")} {
		above.Style &^= yaml.FlowStyle // comments of blocks have no place in that
	}
	for _, b := range blocks {
		t.list.Content = append(t.list.Content, b.node)
	}
	var out bytes.Buffer
	if bytes.HasPrefix(t.raw, utf8BOM) {
		out.Write(utf8BOM)
	}
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(&t.root); err != nil {
		return nil, err
	}
	if err := enc.Close(); err != nil {
		return nil, err
	}
	return bytes.ReplaceAll(out.Bytes(), []byte("\n"), []byte(t.lineEnd)), nil
}

// index returns which block is of that name, -1 for none.
func (t *text) index(name string) int {
	return slices.IndexFunc(t.blocks, func(b block) bool { return strings.EqualFold(b.name, name) })
}
