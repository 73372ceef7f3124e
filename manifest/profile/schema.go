package profile

import (
	"bytes"
	_ "embed" // the schema
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
	"gopkg.in/yaml.v3"
)

// schemaFile is the schema of profiles.
//
//go:embed profile.schema.json
var schemaFile []byte

// Schema returns the JSON schema of profiles (draft 2020-12), against which they are
// checked. It is the caller's.
func Schema() []byte { return bytes.Clone(schemaFile) }

// compiledSchema is that schema, compiled once.
var compiledSchema = sync.OnceValue(func() *jsonschema.Schema {
	const id = "urn:ferry:schema:profile:1"
	c := jsonschema.NewCompiler()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(schemaFile))
	if err == nil {
		err = c.AddResource(id, doc)
	}
	var s *jsonschema.Schema
	if err == nil {
		s, err = c.Compile(id)
	}
	if err != nil {
		panic("profile: internal error: schema: " + err.Error())
	}
	return s
})

// validate checks a document against the schema.
func (l *loader) validate(root *yaml.Node) {
	var doc any
	err := root.Decode(&doc)
	if err == nil {
		err = compiledSchema().Validate(doc)
	}
	var invalid *jsonschema.ValidationError
	switch {
	case errors.As(err, &invalid):
		l.note(invalid)
	case err != nil:
		l.problems = append(l.problems, Problem{Text: err.Error()})
	}
}

// note notes what an error is about: the innermost of its causes.
func (l *loader) note(e *jsonschema.ValidationError) {
	for _, cause := range e.Causes {
		l.note(cause)
	}
	if len(e.Causes) > 0 {
		return
	}
	key := ""
	for _, part := range e.InstanceLocation {
		if n, err := strconv.Atoi(part); err == nil {
			key += fmt.Sprintf("[%d]", n)
		} else if key == "" {
			key = part
		} else {
			key += "." + part
		}
	}
	l.problems = append(l.problems, Problem{Line: l.lines[key], Key: key, Text: e.ErrorKind.LocalizedString(message.NewPrinter(language.English))})
}
