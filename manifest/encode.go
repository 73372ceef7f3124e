package manifest

import (
	"strconv"
	"time"
	"unicode/utf8"
)

// Format is the version of the manifest format that this package writes.
const Format = "ferry.manifest/1"

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
		buf, _ = e.Digest.AppendText(buf) // which has no error
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

// The years that RFC 3339 can write: times outside are clamped at ingest.
var (
	minTime = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	maxTime = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC).Unix()
)

func clampTime(t int64) int64 { return min(max(t, minTime), maxTime) }

// validLink reports whether a link's target can be written down.
func validLink(s string) bool { return utf8.ValidString(s) }
