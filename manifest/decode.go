package manifest

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"

	"ferry/cas"
)

// maxManifest bounds the bytes of a manifest.
const maxManifest = 1 << 30

// minEntry is the least that an entry takes in a manifest, in bytes.
const minEntry = len(`{"path":"a","type":"dir"}`)

// Decode parses canonical bytes. It accepts nothing but what Encode writes, so
// that a manifest has one id. Errors match [ErrInvalid] or are a
// [*tree.UnsafePathError].
func Decode(data []byte) (*Manifest, error) {
	if len(data) > maxManifest {
		return nil, fmt.Errorf("%w: manifest of %d bytes", ErrInvalid, len(data))
	}
	p := &parser{b: data}
	m := &Manifest{Entries: make([]Entry, 0, min(bytes.Count(data, []byte("\n")), len(data)/minEntry))}
	p.want(`{"entries":[`)
	for first := true; p.err == nil && !p.take("\n],"); first = false {
		if !first {
			p.want(",")
		}
		p.want("\n")
		m.Entries = append(m.Entries, p.entry())
	}
	p.want(`"format":"`)
	if format, _, ok := strings.Cut(string(p.b[:min(len(p.b), 64)]), `"`); p.err == nil && ok && format != Format {
		return nil, fmt.Errorf("%w: manifest format %q, this program reads %q", ErrInvalid, format, Format)
	}
	p.want(Format + "\"}\n")
	if p.err == nil && len(p.b) > 0 {
		p.fail("nothing")
	}
	if p.err != nil {
		return nil, p.err
	}
	if err := m.validate(); err != nil {
		return nil, err
	}
	if err := m.Stateless(); err != nil {
		return nil, err
	}
	return m, nil
}

// parser takes the pieces of a manifest off the front of b, in the one order and
// form that they have: it takes nothing that Encode would write otherwise. Its first
// error sticks.
type parser struct {
	b   []byte
	n   int // entries seen, for messages
	err error
}

func (p *parser) fail(want string) {
	if p.err == nil {
		p.err = fmt.Errorf("%w: manifest: entry %d: want %s at %.40q", ErrInvalid, p.n, want, p.b)
	}
	p.b = nil
}

// take takes text if it is next, and reports whether it was.
func (p *parser) take(text string) bool {
	if len(p.b) < len(text) || string(p.b[:len(text)]) != text {
		return false
	}
	p.b = p.b[len(text):]
	return true
}

func (p *parser) want(text string) {
	if !p.take(text) {
		p.fail(strconv.Quote(text))
	}
}

func (p *parser) entry() Entry {
	var e Entry
	p.n++
	p.want("{")
	switch {
	case p.take(`"digest":"`):
		e.Type = TypeFile
		e.Digest = p.digest()
		p.want(`",`)
		e.Exec = p.take(`"exec":true,`)
		p.want(`"mtime":"`)
		e.ModTime = p.time()
		p.want(`",`)
	case p.take(`"link":`):
		e.Type = TypeLink
		e.Link = p.string()
		p.want(",")
	default:
		e.Type = TypeDir
	}
	p.want(`"path":`)
	e.Path = p.string()
	p.want(",")
	if e.Type == TypeFile {
		p.want(`"size":`)
		e.Size = p.number()
		p.want(",")
	}
	p.want(`"type":"`)
	p.want(string(e.Type))
	p.want(`"}`)
	return e
}

// digest takes the text form of a digest, without quotes.
func (p *parser) digest() (d cas.Digest) {
	text := p.b[:max(bytes.IndexByte(p.b, '"'), 0)]
	if err := d.UnmarshalText(text); err != nil {
		p.fail("a digest")
		return d
	}
	p.b = p.b[len(text):]
	return d
}

// time takes a time as Encode writes it, "2006-01-02T15:04:05Z", without quotes.
func (p *parser) time() int64 {
	var text [20]byte
	s := p.b[:min(len(p.b), len(text))]
	t, err := time.Parse(time.RFC3339, string(s))
	if err != nil || string(t.AppendFormat(text[:0], time.RFC3339)) != string(s) || s[len(s)-1] != 'Z' {
		p.fail("a time")
		return 0
	}
	p.b = p.b[len(s):]
	return t.Unix()
}

func (p *parser) number() int64 {
	n := 0
	for n < len(p.b) && n < 20 && '0' <= p.b[n] && p.b[n] <= '9' {
		n++
	}
	v, err := strconv.ParseInt(string(p.b[:n]), 10, 64)
	if err != nil || n > 1 && p.b[0] == '0' {
		p.fail("a number")
		return 0
	}
	p.b = p.b[n:]
	return v
}

// string takes a JSON string.
func (p *parser) string() string {
	p.want(`"`)
	end := bytes.IndexByte(p.b, '"')
	if end < 0 {
		p.fail("the end of a string")
		return ""
	}
	for _, c := range p.b[:end] {
		if c == '\\' || c < ' ' {
			return p.escaped()
		}
	}
	s := string(p.b[:end])
	p.b = p.b[end+1:]
	return s
}

// escapes are the short escapes that Encode writes.
var escapes = map[byte]byte{'"': '"', '\\': '\\', 'b': '\b', 't': '\t', 'n': '\n', 'f': '\f', 'r': '\r'}

// escaped takes the rest of a string that has escapes in it, or should have.
func (p *parser) escaped() string {
	var s []byte
	for i := 0; i < len(p.b); i++ {
		switch c := p.b[i]; {
		case c == '"':
			if string(appendString(nil, string(s))[1:]) != string(p.b[:i+1]) {
				p.fail("a string with no other escapes than it needs")
				return ""
			}
			p.b = p.b[i+1:]
			return string(s)
		case c != '\\':
			s = append(s, c)
		case i+1 < len(p.b) && escapes[p.b[i+1]] != 0:
			i++
			s = append(s, escapes[p.b[i]])
		case i+5 < len(p.b) && string(p.b[i+1:i+4]) == "u00":
			v, err := strconv.ParseUint(string(p.b[i+4:i+6]), 16, 8)
			if err != nil {
				p.fail("an escape")
				return ""
			}
			s = append(s, byte(v))
			i += 5
		default:
			p.fail("an escape that is known")
			return ""
		}
	}
	p.fail("the end of a string")
	return ""
}
