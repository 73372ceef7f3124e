package delta

import (
	"bytes"
	"context"
	"slices"

	"ferry/manifest"
)

// matchContainer says how a container file of the target is made of its streams,
// for each base that does not have it, and notes which of them are wanted.
func (c *creator) matchContainer(ctx context.Context, i int) error {
	e := c.target.Manifest.Entries[i]
	if e.Type != manifest.TypeFile || e.Size == 0 {
		return nil
	}
	first := len(c.matched)
	var r *manifest.Recipe
	for b, m := range c.matchers {
		if standsIn(c.bases[b].Manifest, e) {
			continue
		}
		if _, ok := m.byDig[e.Digest]; ok {
			continue // the whole is copied
		}
		if r == nil {
			var err error
			if r, err = c.expanded.recipe(ctx, i); err != nil || r == nil {
				return err
			}
		}
		c.noteMatch(first, matchedFile{entry: i, mask: 1 << b, ops: c.layout(i, b, r, r.Layout, true)})
	}
	return nil
}

// layout turns the layout of container file i into instructions for base b. What
// stands in the base deflated as it is, in a file, is copied; it is not looked for
// within what is itself deflated.
func (c *creator) layout(i, b int, r *manifest.Recipe, layout []manifest.Op, top bool) []op {
	ops := make([]op, 0, len(layout))
	for _, l := range layout {
		switch l.Kind {
		case manifest.OpZero:
			ops = append(ops, op{kind: opZero, size: l.Size})
		case manifest.OpSlice:
			n := c.expanded.add(i, l.Stream)
			c.want(n, b)
			ops = append(ops, op{kind: opStream, ref: n - len(c.target.Manifest.Entries), off: l.Off, size: l.Size})
		case manifest.OpDeflate:
			if at, ok := c.matchers[b].members[partID(r, l)]; ok && top {
				c.expanded.know(i, l.Inner)
				file := c.matchers[b].base.entries[at.entry].Digest
				ops = appendOp(ops, op{kind: opCopy, ref: c.source(file, 1<<b), off: at.off, size: l.Size})
				continue
			}
			ops = append(ops, op{kind: opDeflate, size: l.Size, reconstruction: l.Reconstruction, inner: c.layout(i, b, r, l.Inner, false)})
		}
	}
	return ops
}

// want notes that an entry of c.expanded beyond the manifest's is made for base b.
func (c *creator) want(n, b int) {
	for len(c.wants) <= n {
		c.wants = append(c.wants, 0)
	}
	c.wants[n] |= 1 << b
}

// wanted reports whether an entry of c.expanded is made of chunks, for base b.
func (c *creator) wanted(n, b int) bool {
	e := c.expanded.entries[n]
	if _, ok := c.expanded.streamOf(n); ok {
		return c.wants[n]>>b&1 != 0
	}
	if standsIn(c.bases[b].Manifest, e) {
		return false
	}
	_, whole := c.matchers[b].byDig[e.Digest]
	return whole || c.expanded.recipes[n] == nil
}

// know notes the paths of streams that are not made anew.
func (x *expanded) know(i int, layout []manifest.Op) {
	for _, l := range layout {
		if l.Kind == manifest.OpSlice {
			x.streamPath(i, l.Stream)
		}
		x.know(i, l.Inner)
	}
}

func sameOps(a, b []op) bool {
	return slices.EqualFunc(a, b, func(a, b op) bool {
		return a.kind == b.kind && a.ref == b.ref && a.off == b.off && a.size == b.size && bytes.Equal(a.reconstruction, b.reconstruction) && sameOps(a.inner, b.inner)
	})
}
