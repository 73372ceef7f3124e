package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"
	"unicode/utf8"

	"ferry/cas"
)

// Format is the version of the manifest format that this package writes.
const Format = "ferry.manifest/1"

// maxManifest bounds the bytes of a manifest.
const maxManifest = 1 << 30

// Encode returns the canonical bytes: JSON with sorted keys, an entry a line.
// The same entries always give the same bytes.
func (m *Manifest) Encode() []byte {
	buf := make([]byte, 0, 64+200*len(m.Entries))
	buf = append(buf, `{"entries":[`...)
	for i, e := range m.Entries {
		if i > 0 {
			buf = append(buf, ',')
		}
		buf = append(buf, '\n')
		buf = e.append(buf)
	}
	buf = append(buf, "\n],\"format\":\""...)
	buf = append(buf, Format...)
	return append(buf, "\"}\n"...)
}

// append writes an entry, keys sorted, absent fields left out.
func (e Entry) append(buf []byte) []byte {
	buf = append(buf, '{')
	if e.Type == TypeFile {
		buf = append(buf, `"digest":"`...)
		buf = append(buf, e.Digest.String()...)
		buf = append(buf, `",`...)
		if e.Exec {
			buf = append(buf, `"exec":true,`...)
		}
	}
	if e.Type == TypeLink {
		buf = append(buf, `"link":`...)
		buf = appendString(buf, e.Link)
		buf = append(buf, ',')
	}
	if e.Type == TypeFile {
		buf = append(buf, `"mtime":"`...)
		buf = time.Unix(e.ModTime, 0).UTC().AppendFormat(buf, time.RFC3339)
		buf = append(buf, `",`...)
	}
	buf = append(buf, `"path":`...)
	buf = appendString(buf, e.Path)
	if e.Type == TypeFile {
		buf = append(buf, `,"size":`...)
		buf = strconv.AppendInt(buf, e.Size, 10)
	}
	buf = append(buf, `,"type":"`...)
	buf = append(buf, e.Type...)
	return append(buf, `"}`...)
}

// appendString writes a JSON string as RFC 8785, section 3.2.2.2, has it: only
// what must be escaped is, control characters in their shortest form.
func appendString(buf []byte, s string) []byte {
	const hex = "0123456789abcdef"
	buf = append(buf, '"')
	for _, c := range []byte(s) {
		switch {
		case c == '"' || c == '\\':
			buf = append(buf, '\\', c)
		case c >= 0x20:
			buf = append(buf, c)
		case c == '\b':
			buf = append(buf, `\b`...)
		case c == '\t':
			buf = append(buf, `\t`...)
		case c == '\n':
			buf = append(buf, `\n`...)
		case c == '\f':
			buf = append(buf, `\f`...)
		case c == '\r':
			buf = append(buf, `\r`...)
		default:
			buf = append(buf, `\u00`...)
			buf = append(buf, hex[c>>4], hex[c&15])
		}
	}
	return append(buf, '"')
}

// jsonEntry is an entry as it is parsed.
type jsonEntry struct {
	Digest *cas.Digest `json:"digest"`
	Exec   bool        `json:"exec"`
	Link   string      `json:"link"`
	MTime  string      `json:"mtime"`
	Path   string      `json:"path"`
	Size   int64       `json:"size"`
	Type   Type        `json:"type"`
}

// Decode parses canonical bytes. It accepts nothing but what Encode writes, so
// that a manifest has one id. Errors match [ErrInvalid] or are a
// [*tree.UnsafePathError].
func Decode(data []byte) (*Manifest, error) {
	if len(data) > maxManifest {
		return nil, fmt.Errorf("%w: manifest of %d bytes", ErrInvalid, len(data))
	}
	var parsed struct {
		Entries []jsonEntry `json:"entries"`
		Format  string      `json:"format"`
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&parsed); err != nil {
		return nil, fmt.Errorf("%w: manifest: %w", ErrInvalid, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("%w: manifest: more bytes behind its end", ErrInvalid)
	}
	if parsed.Format != Format {
		return nil, fmt.Errorf("%w: manifest format %.40q, this program reads %q", ErrInvalid, parsed.Format, Format)
	}
	m := &Manifest{Entries: make([]Entry, 0, len(parsed.Entries))}
	for _, p := range parsed.Entries {
		e := Entry{Path: p.Path, Type: p.Type, Exec: p.Exec, Size: p.Size, Link: p.Link}
		if p.Digest != nil {
			e.Digest = *p.Digest
		}
		if p.MTime != "" {
			t, err := time.Parse(time.RFC3339, p.MTime)
			if err != nil {
				return nil, fmt.Errorf("%w: entry %q: %w", ErrInvalid, e.Path, err)
			}
			e.ModTime = t.Unix()
		}
		m.Entries = append(m.Entries, e)
	}
	if err := m.validate(); err != nil {
		return nil, err
	}
	if !bytes.Equal(m.Encode(), data) {
		return nil, fmt.Errorf("%w: manifest is not in its canonical form", ErrInvalid)
	}
	return m, nil
}

// The years that RFC 3339 can write: times outside are clamped at ingest.
var (
	minTime = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	maxTime = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC).Unix()
)

func clampTime(t int64) int64 { return min(max(t, minTime), maxTime) }

// validLink reports whether a link's target can be written down.
func validLink(s string) bool { return utf8.ValidString(s) }
