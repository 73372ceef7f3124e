package addon

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// Reference names a container image: a repository in a registry, and a tag or a
// digest, or both, or neither. It is comparable, and normalized: what the Docker
// CLI and containerd take for the same is equal.
type Reference struct {
	Registry   string // such as "docker.io", "host:5000"
	Repository string // such as "library/nginx"
	Tag        string // "" when none was written
	Digest     string // such as "sha256:…"; "" when none was written
}

// The registry that is meant where none is named, and its folder for repositories
// without one (distribution's reference/normalize.go).
const (
	defaultRegistry = "docker.io"
	legacyRegistry  = "index.docker.io"
	officialFolder  = "library/"
	defaultTag      = "latest"
)

// The grammar of references (distribution's reference/regexp.go).
var (
	registryText   = regexp.MustCompile(`^(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?$`)
	repositoryText = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagText        = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
	digestText     = regexp.MustCompile(`^[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]{32,}$`)
	sha256Text     = regexp.MustCompile(`^sha256:[a-f0-9]{64}$`)
)

func validDigest(s string) bool {
	if strings.HasPrefix(s, "sha256:") {
		return sha256Text.MatchString(s)
	}
	return digestText.MatchString(s)
}

// ErrReference says that a text is no reference to an image.
var ErrReference = errors.New("no image reference")

// maxReference bounds a reference in bytes.
const maxReference = 1024

// ParseReference parses [REGISTRY/]REPOSITORY[:TAG][@DIGEST]. The error matches
// [ErrReference].
func ParseReference(s string) (Reference, error) {
	bad := func(what string) (Reference, error) {
		return Reference{}, fmt.Errorf("%w: %.200q: %s", ErrReference, s, what)
	}
	if len(s) > maxReference {
		return bad("too long")
	}
	var r Reference
	name, digest, ok := strings.Cut(s, "@")
	if r.Digest = digest; ok && !validDigest(digest) {
		return bad("malformed digest")
	}
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name, r.Tag = name[:i], name[i+1:]
		if !tagText.MatchString(r.Tag) {
			return bad("malformed tag")
		}
	}
	r.Registry, r.Repository = splitName(name)
	if !registryText.MatchString(r.Registry) {
		return bad("malformed registry")
	}
	if !repositoryText.MatchString(r.Repository) {
		return bad("malformed repository")
	}
	return r, nil
}

// splitName divides a name into registry and repository. What stands before the
// first slash is a registry when it could be no part of a repository.
func splitName(name string) (registry, repository string) {
	first, rest, ok := strings.Cut(name, "/")
	if !ok || !strings.ContainsAny(first, ".:") && first != "localhost" && strings.ToLower(first) == first {
		registry, repository = defaultRegistry, name
	} else {
		registry, repository = first, rest
	}
	if registry == legacyRegistry {
		registry = defaultRegistry
	}
	if registry == defaultRegistry && !strings.Contains(repository, "/") {
		repository = officialFolder + repository
	}
	return registry, repository
}

// Name returns registry and repository.
func (r Reference) Name() string { return r.Registry + "/" + r.Repository }

// String returns the whole reference: "docker.io/library/nginx:latest". The tag is
// "latest" where neither tag nor digest was written.
func (r Reference) String() string { return r.Name() + r.version(defaultTag) }

// Familiar returns the shortest form that means the same, as people write it:
// "nginx", "quay.io/a/b:v1".
func (r Reference) Familiar() string {
	name := r.Name()
	short, ok := strings.CutPrefix(name, defaultRegistry+"/")
	if !ok {
		return name + r.version("")
	}
	if base, ok := strings.CutPrefix(short, officialFolder); ok && !strings.Contains(base, "/") {
		short = base
	}
	if registry, _ := splitName(short); registry == defaultRegistry { // else its folder looks like a registry
		name = short
	}
	return name + r.version("")
}

// version writes tag and digest; otherwise is the tag where there is neither.
func (r Reference) version(otherwise string) string {
	s, tag := "", r.Tag
	if tag == "" && r.Digest == "" {
		tag = otherwise
	}
	if tag != "" {
		s = ":" + tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest
	}
	return s
}

// Versionless reports whether neither tag nor digest was written.
func (r Reference) Versionless() bool { return r.Tag == "" && r.Digest == "" }

// MarshalText returns the whole reference.
func (r Reference) MarshalText() ([]byte, error) { return []byte(r.String()), nil }
