package bundle

import (
	"bytes"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// registry starts a registry on this machine, and returns where it listens.
func registry(t *testing.T) string {
	t.Helper()
	program := ""
	for _, name := range []string{"docker-registry", "registry"} { // Debian's, and its own
		if path, err := exec.LookPath(name); err == nil {
			program = path
			break
		}
	}
	if program == "" {
		t.Skip("no registry is on PATH (package docker-registry)")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	writeFile(t, config, fmt.Appendf(nil, "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %q}}\nhttp: {addr: %q}\n", filepath.Join(dir, "data"), addr))
	var out bytes.Buffer
	cmd := exec.Command(program, "serve", config)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	for range 100 {
		if r, err := http.Get("http://" + addr + "/v2/"); err == nil {
			r.Body.Close()
			return addr
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("the registry does not answer: %s", out.String())
	return ""
}

// TestRegistry pushes addons to a registry and pulls them from it, and imports what
// came back.
func TestRegistry(t *testing.T) {
	oras, err := exec.LookPath("oras")
	if err != nil {
		t.Skip("oras is not on PATH (oras.land/oras/cmd/oras)")
	}
	addr := registry(t)
	p, dir := sample(), sampleSite(t)
	file := filepath.Join(t.TempDir(), "bundle.oci.tar")
	writeFile(t, file, made(t, p, options(dir, FormatOCI, "ingress nginx", "viewer")))
	out, back := filepath.Join(t.TempDir(), "layout"), filepath.Join(t.TempDir(), "back")
	if err := os.Mkdir(out, 0o777); err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) {
		t.Helper()
		if text, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, text)
		}
	}
	run("tar", "-xf", file, "-C", out)
	for _, name := range []string{"ingress-nginx-1.0.0", "viewer-1.0.0"} {
		run(oras, "cp", "--from-oci-layout", out+":"+name, "--to-plain-http", addr+"/addons:"+name)
		run(oras, "cp", "--from-plain-http", addr+"/addons:"+name, "--to-oci-layout", back+":"+name)
	}
	pulled := tarOfFolder(t, back)
	b, err := Open(t.Context(), bytes.NewReader(pulled), int64(len(pulled)))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if !b.Whole || b.Version != "1.8.0" {
		t.Errorf("pulled: whole %v, version %s; want what the index said", b.Whole, b.Version)
	}
	site := t.TempDir()
	if _, err := Import(t.Context(), b, nil, site, ImportOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, e := range p.manifest(t).Entries {
		if !strings.HasPrefix(e.Path, "addons/ingress/nginx/") && !strings.HasPrefix(e.Path, "addons/viewer/") {
			continue
		}
		if got, err := os.ReadFile(filepath.Join(site, filepath.FromSlash(e.Path))); err != nil || int64(len(got)) != e.Size {
			t.Errorf("%s = %d bytes, %v, want %d", e.Path, len(got), err, e.Size)
		}
	}
}

// tarOfFolder packs a folder.
func tarOfFolder(t *testing.T, dir string) []byte {
	t.Helper()
	var files []tarFile
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		files = append(files, tarFile{name: filepath.ToSlash(rel), text: string(data)})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return tarOf(t, files...)
}
