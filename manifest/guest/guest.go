// Package guest tells what is installed in the root file system of a Linux machine:
// Debian packages, container images, kernels, systemd units and configuration. It reads
// files only, so that a machine need not be started to be looked at, and nothing that
// stands in them is trusted.
package guest

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Bounds of what is read, in bytes.
const (
	maxText   = 64 << 20 // of a text file or database that is parsed
	maxHashed = 1 << 30  // of a file that is told by its digest
)

// DefaultConfig are the folders whose files count as configuration, as K2s compares
// them.
var DefaultConfig = []string{
	"etc/kubernetes", "etc/cni", "etc/containerd", "etc/sysctl.d", "etc/netplan", "usr/local/bin",
}

// unitFolders are those of systemd's units, systemd.unit(5).
var unitFolders = []string{"etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system", "usr/local/lib/systemd/system"}

// State is what is installed.
type State struct {
	Packages map[string]string // Debian packages by name, or name:architecture, and their versions
	Images   []Image           // sorted by name
	Kernels  []string          // releases, such as "6.1.0-13-amd64", sorted
	Units    map[string]string // systemd units by path, and the SHA-256 of each or "-> target"
	Config   map[string]string // files of configuration likewise
}

// Image is a container image.
type Image struct {
	Name  string // with its tag or digest
	ID    string // of its configuration or index
	Size  int64  // bytes, 0 if it is not known
	Store string // "containers-storage", or "containerd" and the namespace
}

// Read finds out what is installed in root. Folders of configuration are those of
// config, or [DefaultConfig]. What is not there is no error; what is malformed is one
// that names its file.
func Read(ctx context.Context, root fs.FS, config []string) (*State, error) {
	if config == nil {
		config = DefaultConfig
	}
	s := &State{Packages: map[string]string{}, Units: map[string]string{}, Config: map[string]string{}}
	if err := s.packages(root); err != nil {
		return nil, err
	}
	if err := s.images(root); err != nil {
		return nil, err
	}
	if err := s.kernels(root); err != nil {
		return nil, err
	}
	for _, folder := range unitFolders {
		if err := hashAll(ctx, root, folder, s.Units); err != nil {
			return nil, err
		}
	}
	for _, folder := range config {
		folder = strings.Trim(path.Clean("/"+strings.ReplaceAll(folder, `\`, "/")), "/")
		if err := hashAll(ctx, root, folder, s.Config); err != nil {
			return nil, err
		}
	}
	return s, ctx.Err()
}

// packages reads dpkg's status file, and those of images that have no dpkg.
func (s *State) packages(root fs.FS) error {
	files := []string{"var/lib/dpkg/status"}
	more, err := fs.ReadDir(root, "var/lib/dpkg/status.d")
	if err != nil && !absent(err) {
		return err
	}
	for _, e := range more {
		if !strings.HasSuffix(e.Name(), ".md5sums") {
			files = append(files, "var/lib/dpkg/status.d/"+e.Name())
		}
	}
	for _, name := range files {
		data, err := readFile(root, name)
		if absent(err) {
			continue
		}
		if err != nil {
			return err
		}
		s.status(string(data), name != files[0])
	}
	return nil
}

// status reads stanzas as deb-status has them, Debian Policy 5.1.
func (s *State) status(text string, implied bool) {
	for stanza := range strings.SplitSeq(strings.ReplaceAll(text, "\r\n", "\n"), "\n\n") {
		fields := map[string]string{}
		for line := range strings.Lines(stanza) {
			if key, value, ok := strings.Cut(line, ":"); ok && !strings.HasPrefix(line, " ") && !strings.HasPrefix(line, "\t") {
				fields[strings.ToLower(key)] = strings.TrimSpace(value)
			}
		}
		name, version := fields["package"], fields["version"]
		if name == "" || version == "" || !implied && !installed(fields["status"]) {
			continue
		}
		if _, taken := s.Packages[name]; taken {
			name += ":" + fields["architecture"]
		}
		s.Packages[name] = version
	}
}

// installed reports whether a package of that status is there; dpkg(1), "Package states".
func installed(status string) bool {
	for _, state := range []string{" installed", " triggers-pending", " triggers-awaited"} {
		if strings.HasSuffix(status, state) {
			return true
		}
	}
	return false
}

// kernels finds kernels by their images and their modules.
func (s *State) kernels(root fs.FS) error {
	found := map[string]bool{}
	boot, err := fs.ReadDir(root, "boot")
	if err != nil && !absent(err) {
		return err
	}
	for _, e := range boot {
		if release, ok := strings.CutPrefix(e.Name(), "vmlinuz-"); ok {
			found[release] = true
		}
	}
	for _, folder := range []string{"usr/lib/modules", "lib/modules"} {
		modules, err := fs.ReadDir(root, folder)
		if err != nil && !absent(err) {
			return err
		}
		for _, e := range modules {
			found[e.Name()] = found[e.Name()] || e.IsDir()
		}
	}
	for release, ok := range found {
		if ok {
			s.Kernels = append(s.Kernels, release)
		}
	}
	slices.Sort(s.Kernels)
	return nil
}

// hashAll notes the digests of all files in a folder, and where its links lead.
func hashAll(ctx context.Context, root fs.FS, folder string, into map[string]string) error {
	folder = path.Clean(folder)
	for dir := folder; dir != "."; dir = path.Dir(dir) {
		if fi, err := fs.Lstat(root, dir); absent(err) || err == nil && fi.Mode()&fs.ModeSymlink != 0 {
			return nil // where a link leads is looked at by its own name
		}
	}
	return fs.WalkDir(root, folder, func(name string, d fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case absent(err):
			return nil
		case err != nil:
			return err
		case d.Type()&fs.ModeSymlink != 0:
			target, err := fs.ReadLink(root, name)
			if err != nil {
				return err
			}
			into["/"+name] = "-> " + target
		case d.Type().IsRegular():
			sum, err := hashFile(root, name)
			if err != nil {
				return err
			}
			into["/"+name] = sum
		}
		return nil
	})
}

func hashFile(root fs.FS, name string) (string, error) {
	f, err := root.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(f, maxHashed)); err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// readFile reads a file that is to be parsed.
func readFile(root fs.FS, name string) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxText+1))
	if err == nil && len(data) > maxText {
		err = fmt.Errorf("more than %d bytes", maxText)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return data, nil
}

func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// sortImages sorts images, each once.
func sortImages(images []Image) []Image {
	slices.SortFunc(images, func(a, b Image) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Store, b.Store), cmp.Compare(a.ID, b.ID))
	})
	return slices.Compact(images)
}
