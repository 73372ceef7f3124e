package delta

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ferry/manifest/place"
)

// matchUnder takes rules for paths, and for folders with all in them.
func matchUnder(rules []string) (func(path string) bool, error) {
	return func(p string) bool {
		return slices.ContainsFunc(rules, func(r string) bool { return p == r || strings.HasPrefix(p, r+"/") })
	}, nil
}

// product is a release of something with settings, and tools that belong together.
func product(release string) files {
	f := files{
		"VERSION": release, "bin/x": "program " + release, "bin/cni/a": "a of " + release, "bin/cni/b": "b",
		"cfg/config.json": "settings of " + release, "cfg/other": "other settings", "cfg/default.json": "settings of 1.4.0",
	}
	if release != "1.4.0" {
		f["cfg/new"] = "new settings"
	} else {
		f["cfg/old"] = "old settings"
	}
	return f
}

// productDelta is a delta of it with rules.
func productDelta(t *testing.T) string {
	t.Helper()
	var versions []Version
	for _, release := range []string{"1.4.0", "1.5.0"} {
		v := version(t, "pkg-"+release, product(release).write(t))
		number, err := ReadNumber(context.Background(), v.Manifest, v.Files, "VERSION")
		must(t, err)
		v.Number = number
		versions = append(versions, v)
	}
	path, info := createFrom(t, versions[1], CreateOptions{
		Rules: Rules{Preserve: []string{"cfg", "own.conf"}, Wholesale: []string{"bin/cni"}, Mandatory: []string{"VERSION", "bin"}, VersionFile: "VERSION"},
		Match: matchUnder,
	}, versions[0])
	if info.BaseVersion != "1.4.0" || info.TargetVersion != "1.5.0" || info.BasePackage != "pkg-1.4.0" || info.WholeDirectoriesCount != 1 || info.GeneratedUtc != "2023-11-14T22:13:20Z" {
		t.Errorf("info = %+v", info)
	}
	return path
}

// settled is what a site made of the settings.
func settled() files {
	return files{"cfg/config.json": "the site's", "cfg/other": "the site's, too", "cfg/new": "in the way", "cfg/old": "changed", "cfg/deep/own": "mine", "own.conf": "mine"}
}

func TestPreserve(t *testing.T) {
	path := productDelta(t)
	for name, change := range map[string]files{"none": {}, "some": {"cfg/other": "changed"}, "all": settled()} {
		base := product("1.4.0").with(change)
		want := product("1.5.0").with(change)
		to := filepath.Join(t.TempDir(), "new")
		r, err := ApplyRules(context.Background(), open(t, path), treeBase(t, base.write(t)), to, ApplyOptions{Match: matchUnder})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		same(t, read(t, to), want)
		if len(r.Preserved) != len(change) {
			t.Errorf("%s: preserved %v, want %d", name, r.Preserved, len(change))
		}
		for _, force := range []bool{false, true} {
			dir := base.write(t)
			r, err := ApplyInPlace(context.Background(), open(t, path), dir, InPlaceOptions{Force: force, Match: matchUnder})
			must(t, err)
			same(t, read(t, dir), want)
			if known := len(change) - len(files{}.with(change).only("cfg/deep/own", "own.conf")); len(r.Preserved) != known || len(r.Modified) > 0 {
				t.Errorf("%s: preserved %v, modified %v, want %d and none", name, r.Preserved, r.Modified, known)
			}
		}
	}
}

// only returns those of f that are at the paths.
func (f files) only(paths ...string) files {
	out := files{}
	for _, p := range paths {
		if content, ok := f[p]; ok {
			out[p] = content
		}
	}
	return out
}

func TestPreserveNeedsRoom(t *testing.T) {
	base, target := files{"a": "1", "cfg/x": "x"}, files{"a": "2", "cfg/x/y": "y", "cfg/empty/": ""}
	path, _ := createFrom(t, version(t, "target", target.write(t)), CreateOptions{Rules: Rules{Preserve: []string{"cfg"}}, Match: matchUnder}, version(t, "base", base.write(t)))
	to := filepath.Join(t.TempDir(), "new")
	dir := base.with(files{"cfg/x": "changed", "cfg/empty/own": "mine"}).write(t)
	r, err := ApplyRules(context.Background(), open(t, path), treeBase(t, dir), to, ApplyOptions{Match: matchUnder})
	must(t, err)
	same(t, read(t, to), files{"a": "2", "cfg/x/y": "y", "cfg/empty/own": "mine"})
	if len(r.Preserved) != 2 || !r.Preserved[0].Kept || r.Preserved[1].Kept {
		t.Errorf("preserved %v, want cfg/empty/own kept and cfg/x not", r.Preserved)
	}
}

// TestPreserveUnknown keeps what an inventory alone knows, by the rules.
func TestPreserveUnknown(t *testing.T) {
	at := product("1.4.0").with(settled())
	inv := inventoryOf(t, at.write(t))
	path, _ := createFrom(t, version(t, "target", product("1.5.0").write(t)), CreateOptions{Rules: Rules{Preserve: []string{"cfg"}}, Match: matchUnder},
		inv.version(), version(t, "base", product("1.4.0").write(t)))
	dir := at.write(t)
	_, err := ApplyInPlace(context.Background(), open(t, path), dir, InPlaceOptions{Match: matchUnder})
	must(t, err)
	same(t, read(t, dir), product("1.5.0").with(settled()))
}

func TestWholesale(t *testing.T) {
	path := productDelta(t)
	changed := product("1.4.0").with(files{"bin/cni/extra": "mine", "bin/cni/sub/deep": "mine", "bin/cni/void/": "", "bin/own": "mine"})
	dir := changed.write(t)
	r, err := ApplyInPlace(context.Background(), open(t, path), dir, InPlaceOptions{Match: matchUnder})
	must(t, err)
	same(t, read(t, dir), product("1.5.0").with(files{"bin/own": "mine"}))
	if len(r.Modified) != 2 || slices.ContainsFunc(r.Modified, func(m Modified) bool { return m.Kept }) {
		t.Errorf("modified %v, want 2 that were not kept", r.Modified)
	}
	_, err = Undo(context.Background(), dir, false)
	must(t, err)
	same(t, read(t, dir), changed)

	// What is patched needs the base's file.
	changed = product("1.4.0").with(files{"bin/cni/a": "edited"})
	dir = changed.write(t)
	var mismatch *BaseMismatchError
	if _, err := ApplyInPlace(context.Background(), open(t, path), dir, InPlaceOptions{Match: matchUnder}); !errors.As(err, &mismatch) || mismatch.Path != "bin/cni/a" {
		t.Errorf("ApplyInPlace = %v, want a mismatch at bin/cni/a", err)
	}
	same(t, read(t, dir), changed)

	// What the delta does not carry cannot be put right.
	changed = product("1.4.0").with(files{"bin/cni/b": "edited"})
	dir = changed.write(t)
	if _, err := ApplyInPlace(context.Background(), open(t, path), dir, InPlaceOptions{Match: matchUnder}); !errors.Is(err, ErrModified) {
		t.Errorf("ApplyInPlace = %v, want %v", err, ErrModified)
	}
	same(t, read(t, dir), changed)
	_, err = ApplyInPlace(context.Background(), open(t, path), dir, InPlaceOptions{Match: matchUnder, Force: true})
	must(t, err)
	same(t, read(t, dir), product("1.5.0").with(files{"bin/cni/b": "edited"}))
}

// Where the folder is carried, whatever a site did there is replaced.
func TestCarryWholesale(t *testing.T) {
	archive := zipped(files{"one": strings.Repeat("a line of a member\n", 500), "two": "short"}, zip.Deflate)
	v1 := product("1.4.0").with(files{"bin/cni/archive.zip": archive, "bin/cni/changed.zip": archive})
	v2 := product("1.5.0").with(files{"bin/cni/archive.zip": archive, "bin/cni/changed.zip": zipped(files{"one": "another"}, zip.Deflate), "bin/cni/new": "new"})
	opts := CreateOptions{Rules: Rules{Wholesale: []string{"bin/cni"}, CarryWholesale: true}, Match: matchUnder}
	path, info := createFrom(t, version(t, "target", v2.write(t)), opts, version(t, "other", product("1.3.0").write(t)), version(t, "base", v1.write(t)))
	if i := slices.IndexFunc(info.Files, func(f InfoFile) bool { return f.Path == "bin/cni/b" }); i < 0 || info.Files[i].Copied > 0 {
		t.Errorf("files %+v, want bin/cni/b, and not copied", info.Files)
	}
	for name, there := range map[string]files{
		"edited":    {"bin/cni/a": "edited", "bin/cni/b": "edited", "bin/cni/archive.zip": "edited", "bin/cni/changed.zip": "edited", "bin/cni/new": "mine", "bin/cni/extra": "mine"},
		"as it was": {},
	} {
		t.Run(name, func(t *testing.T) {
			dir := v1.with(there).write(t)
			r, err := ApplyInPlace(context.Background(), open(t, path), dir, InPlaceOptions{Match: matchUnder})
			must(t, err)
			same(t, read(t, dir), v2)
			if len(r.Modified) != len(there) || slices.ContainsFunc(r.Modified, func(m Modified) bool { return m.Kept }) {
				t.Errorf("modified %v, want %d that were not kept", r.Modified, len(there))
			}
			_, err = Undo(context.Background(), dir, false)
			must(t, err)
			same(t, read(t, dir), v1.with(there))
		})
	}
}

func TestVersionFile(t *testing.T) {
	path := productDelta(t)
	other := product("1.4.0").with(files{"VERSION": "1.3.0\r\n"})
	dir := other.write(t)
	var mismatch *BaseMismatchError
	_, err := ApplyInPlace(context.Background(), open(t, path), dir, InPlaceOptions{Match: matchUnder})
	if want := "base version mismatch: this delta starts from 1.4.0, " + dir + " is 1.3.0"; !errors.As(err, &mismatch) || err.Error() != want {
		t.Errorf("ApplyInPlace = %v, want %s", err, want)
	}
	same(t, read(t, dir), other)
	to := filepath.Join(t.TempDir(), "new")
	opts := ApplyOptions{Match: matchUnder, Name: "the base"}
	_, err = ApplyRules(context.Background(), open(t, path), treeBase(t, dir), to, opts)
	if !errors.As(err, &mismatch) || mismatch.Have != "1.3.0" {
		t.Errorf("ApplyRules = %v, want a version mismatch", err)
	}
	opts.Force = true
	r, err := ApplyRules(context.Background(), open(t, path), treeBase(t, product("1.4.0").with(files{"VERSION": "1.2.0"}).write(t)), to, opts)
	if r.Forced == "" {
		t.Errorf("ApplyRules by force reports nothing, and %v", err)
	}
	rep, err := ApplyInPlace(context.Background(), open(t, path), dir, InPlaceOptions{Match: matchUnder, Force: true})
	must(t, err)
	if rep.Forced == "" {
		t.Error("ApplyInPlace by force reports nothing")
	}
	same(t, read(t, dir), product("1.5.0"))
	rep, err = ApplyInPlace(context.Background(), open(t, path), dir, InPlaceOptions{Match: matchUnder})
	must(t, err)
	if !rep.Already {
		t.Errorf("report of the target itself = %+v, want Already", rep)
	}
}

func TestMandatory(t *testing.T) {
	base, target := version(t, "base", v1().write(t)), version(t, "target", v2().write(t))
	_, err := Create(context.Background(), io.Discard, []Version{base}, target, CreateOptions{Rules: Rules{Mandatory: []string{"VERSION", "k2s.exe", "lib"}}, Match: matchUnder})
	if !errors.Is(err, ErrMandatory) || !strings.HasSuffix(err.Error(), ": k2s.exe") {
		t.Errorf("Create = %v, want %v: k2s.exe", err, ErrMandatory)
	}
	if _, err := Create(context.Background(), io.Discard, []Version{base}, target, CreateOptions{Rules: Rules{Preserve: []string{"x"}}}); err == nil {
		t.Error("Create with rules and no Match = nil, want an error")
	}
}

// packageFile returns a Debian package file with some content.
func packageFile(t *testing.T, name, version, arch, content string) string {
	t.Helper()
	var control bytes.Buffer
	w := tar.NewWriter(&control)
	text := fmt.Sprintf("Package: %s\nArchitecture: %s\nVersion: %s\n", name, arch, version)
	must(t, w.WriteHeader(&tar.Header{Name: "./control", Size: int64(len(text)), Mode: 0o644, Typeflag: tar.TypeReg}))
	io.WriteString(w, text)
	must(t, w.Close())
	b := []byte("!<arch>\n")
	for _, m := range []struct {
		name string
		data []byte
	}{{"debian-binary", []byte("2.0\n")}, {"control.tar", control.Bytes()}, {"data.tar", []byte(content)}} {
		b = fmt.Appendf(b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", m.name, 0, 0, 0, "100644", len(m.data))
		b = append(b, m.data...)
		b = append(b, "\n"[:len(m.data)%2]...)
	}
	return string(b)
}

// TestDebs pairs Debian package files by what they say of themselves; files that are none,
// or cannot be read, by what their names say.
func TestDebs(t *testing.T) {
	base := files{
		"images/x.tar": "x",
		"packages/debian12/k/cri-o_1.0_amd64.deb":          "by name",
		"packages/debian12/k/gone_1_all.deb":               "by name, too",
		"packages/debian12/k/kubelet_1.33.0-1.1_amd64.deb": "kubelet",
		"packages/debian13/k/kubelet_1.33.0-1.1_amd64.deb": "kubelet of 13",
		"packages/debian12/k/helm.deb":                     packageFile(t, "helm", "3.1", "amd64", "old"),
		"packages/debian12/k/lying_1_amd64.deb":            packageFile(t, "flux", "2:1.0", "amd64", "old"),
	}
	target := files{
		"packages/debian12/k/cri-o_1.0_amd64.deb":          "by name",
		"packages/debian12/k/kubelet_1.33.1-1.1_amd64.deb": "kubelet, newer",
		"packages/debian12/k/new_1%3a2-3_all.deb":          "new",
		"packages/debian13/k/kubelet_1.33.0-1.1_amd64.deb": "kubelet of 13",
		"packages/odd.deb":                     "odd",
		"packages/debian12/h/helm-latest.deb":  packageFile(t, "helm", "3.2", "amd64", "new"),
		"packages/debian12/k/flux_1_amd64.deb": packageFile(t, "flux", "2:1.1", "amd64", "new"),
	}
	info := applied(t, base, target)
	var d DebianDiff
	data, err := json.Marshal(info.DebianPackageDiff)
	must(t, err)
	must(t, json.Unmarshal(data, &d))
	if !slices.Equal(d.Added, []string{"new=1:2-3"}) || !slices.Equal(d.Removed, []string{"gone=1"}) ||
		!slices.Equal(d.Changed, []string{"flux: 2:1.0 -> 2:1.1", "helm: 3.1 -> 3.2", "kubelet: 1.33.0-1.1 -> 1.33.1-1.1"}) {
		t.Errorf("DebianPackageDiff = %+v", d)
	}
	if !slices.Contains(info.Changed, "packages/debian12/h/helm-latest.deb") {
		t.Errorf("changed are %v, want a package whose file has another name now", info.Changed)
	}
	if info := applied(t, files{"a": "a"}, files{"a": "b"}); info.DebianPackageDiff != nil {
		t.Errorf("DebianPackageDiff of no packages = %+v, want nil", info.DebianPackageDiff)
	}
}

// TestDebUpgrade codes a package file against its release before, though another one
// is more alike by name and place, and lists one change.
func TestDebUpgrade(t *testing.T) {
	base := files{"packages/debian12/k/kubelet_1.33.0_amd64.deb": bytesOf(60, 200<<10), "packages/debian12/b/buildah_1.33.1_amd64.deb": bytesOf(61, 200<<10)}
	target := files{"packages/debian12/n/kubelet_1.33.1_amd64.deb": splice(bytesOf(60, 200<<10), 3), "packages/debian12/b/buildah_1.33.1_amd64.deb": bytesOf(61, 200<<10)}
	info := applied(t, base, target)
	if len(info.Changed) != 1 || len(info.Added)+len(info.Removed) > 0 || info.PayloadSize > 4<<10 {
		t.Errorf("added %v, changed %v, removed %v, payload %d; want one change of little", info.Added, info.Changed, info.Removed, info.PayloadSize)
	}
}

// TestUnpacked applies a delta that was unpacked to a folder, programs and all.
func TestUnpacked(t *testing.T) {
	tool := filepath.Join(t.TempDir(), "ferry.exe")
	must(t, os.WriteFile(tool, []byte("MZ"), 0o666))
	path, _ := createFrom(t, version(t, "target", v2().write(t)), CreateOptions{Tools: []string{tool}}, version(t, "base-0", v1().write(t)))
	dir := filepath.Join(t.TempDir(), "un packed")
	zr, err := zip.OpenReader(path)
	must(t, err)
	defer zr.Close()
	must(t, os.CopyFS(dir, zr))
	data, err := os.ReadFile(filepath.Join(dir, "tool", "ferry.exe"))
	if err != nil || !bytes.Equal(data, []byte("MZ")) {
		t.Errorf("tool/ferry.exe = %q, %v", data, err)
	}
	if !IsDelta(dir) || !IsDelta(path) || IsDelta(t.TempDir()) {
		t.Error("IsDelta is wrong")
	}
	d := open(t, dir)
	must(t, d.Verify(context.Background(), func(f Finding) { t.Errorf("finding %v", f) }))
	to := filepath.Join(t.TempDir(), "new")
	_, err = Apply(context.Background(), d, treeBase(t, v1().write(t)), to, place.Options{})
	must(t, err)
	same(t, read(t, to), v2())
	must(t, os.Remove(filepath.Join(dir, "payload", "000000")))
	if d, err := Open(dir); !errors.Is(err, ErrInvalid) || d != nil {
		t.Errorf("Open of a folder without payload = %v, want ErrInvalid", err)
	}
	if _, err := Create(context.Background(), io.Discard, []Version{version(t, "b", v1().write(t))}, version(t, "t", v2().write(t)), CreateOptions{Tools: []string{tool, tool}}); err == nil {
		t.Error("Create with a tool twice = nil, want an error")
	}
}
