package delta

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ferry/cas/backend"
	"ferry/chunking"
	"ferry/manifest"
	"ferry/manifest/place"
	"ferry/manifest/tree"
)

// zipped packs files into a zip.
func zipped(f files, method uint16) string {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, path := range slices.Sorted(maps.Keys(f)) {
		fw, _ := w.CreateHeader(&zip.FileHeader{Name: path, Method: method})
		fw.Write([]byte(f[path]))
	}
	w.Close()
	return b.String()
}

// tarred packs files into a tar.
func tarred(f files) string {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, path := range slices.Sorted(maps.Keys(f)) {
		w.WriteHeader(&tar.Header{Name: path, Size: int64(len(f[path])), Mode: 0o644, Typeflag: tar.TypeReg})
		w.Write([]byte(f[path]))
	}
	w.Close()
	return b.String()
}

func gzipped(s string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write([]byte(s))
	w.Close()
	return b.String()
}

// artifacts are what containers hold, in two releases.
func artifacts(release uint64) files {
	f := files{}
	for i := range uint64(12) {
		f[fmt.Sprintf("lib/same%d.dll", i)] = bytesOf(40+i, 20_000+int(i)*3000)
	}
	f["bin/tool.exe"] = bytesOf(20, 400<<10)
	f["bin/gone.exe"] = bytesOf(21, 50<<10)
	f["readme.txt"] = strings.Repeat("Read me. ", 300)
	if release > 1 {
		f = f.with(files{
			"bin/tool.exe": splice(bytesOf(20, 400<<10), release), "bin/gone.exe": "", "bin/new.exe": bytesOf(90, 30<<10),
			"readme.txt": strings.Repeat("Read me, too. ", 300),
		})
	}
	return f
}

// shapes pack artifacts in all ways that are taken apart.
var shapes = map[string]func(files) string{
	"zip":        func(f files) string { return zipped(f, zip.Deflate) },
	"stored zip": func(f files) string { return zipped(f, zip.Store) },
	"zip in a zip": func(f files) string {
		return zipped(files{"in.zip": zipped(f, zip.Deflate), "x": bytesOf(5, 9000)}, zip.Deflate)
	},
	"tar":             tarred,
	"tar.gz":          func(f files) string { return gzipped(tarred(f)) },
	"tar.gz in a tar": func(f files) string { return tarred(files{"layer.tar.gz": gzipped(tarred(f)), "index.json": "{}"}) },
}

// applied makes a delta, applies it in both ways, takes it back, and returns it.
func applied(t *testing.T, base, target files) *Info {
	t.Helper()
	path, info := create(t, target, base)
	d := open(t, path)
	to := filepath.Join(t.TempDir(), "new")
	_, err := Apply(context.Background(), d, treeBase(t, base.write(t)), to, place.Options{})
	must(t, err)
	same(t, read(t, to), target)

	dir := base.write(t)
	_, err = ApplyInPlace(context.Background(), d, dir, InPlaceOptions{})
	must(t, err)
	same(t, read(t, dir), target)
	_, err = Undo(context.Background(), dir, false)
	must(t, err)
	same(t, read(t, dir), base)
	return info
}

// TestContainers patches the members of containers, not their packed bytes.
func TestContainers(t *testing.T) {
	for name, pack := range shapes {
		t.Run(name, func(t *testing.T) {
			base, target := files{"pkg": pack(artifacts(1))}, files{"pkg": pack(artifacts(2))}
			info := applied(t, base, target)
			loose := applied(t, artifacts(1), artifacts(2))
			if most := loose.PayloadSize*115/100 + 1000; info.PayloadSize > most {
				t.Errorf("payload is %d bytes, want at most %d: the members unpacked take %d", info.PayloadSize, most, loose.PayloadSize)
			}
			f := info.Files[0]
			if !slices.ContainsFunc(f.Members, func(m InfoMember) bool { return strings.HasSuffix(m.Name, "bin/new.exe") && m.Cost > 5<<10 }) {
				t.Errorf("the members' costs do not name bin/new.exe: %+v", f.Members)
			}
		})
	}
}

// TestMembersElsewhere finds in the base what a container of the target holds,
// unpacked or in another container, and the other way round.
func TestMembersElsewhere(t *testing.T) {
	loose, packed := artifacts(1), shapes["zip in a zip"](artifacts(1))
	for name, test := range map[string]struct{ base, target files }{
		"packed of unpacked":  {loose, files{"pkg.zip": packed}},
		"unpacked of packed":  {files{"pkg.zip": packed}, loose},
		"packed another way":  {files{"pkg.tgz": shapes["tar.gz"](artifacts(1))}, files{"pkg.zip": packed}},
		"renamed and changed": {files{"a/pkg-1.zip": packed}, files{"b/pkg-2.zip": shapes["zip in a zip"](artifacts(1).with(files{"more": "more"}))}},
	} {
		t.Run(name, func(t *testing.T) {
			info := applied(t, test.base, test.target)
			if info.PayloadSize > 12<<10 {
				t.Errorf("payload is %d bytes: %+v", info.PayloadSize, info.Dearest(3))
			}
		})
	}
}

// TestContainersOfSeveralBases serves bases whose containers differ.
func TestContainersOfSeveralBases(t *testing.T) {
	pack := shapes["zip"]
	one := files{"pkg.zip": pack(artifacts(1)), "other": "x"}
	two := files{"pkg.tgz": shapes["tar.gz"](artifacts(1)), "tool.exe": artifacts(2)["bin/tool.exe"]}
	three := files{"lib.zip": pack(artifacts(2)), "pkg.zip": pack(artifacts(1).with(files{"x": bytesOf(77, 5000)}))}
	target := files{"pkg.zip": pack(artifacts(2)), "other": "y"}
	path, _ := create(t, target, one, two, three, files{"nothing": "alike"})
	for i, base := range []files{one, two, three, {"nothing": "alike"}} {
		to := filepath.Join(t.TempDir(), "new")
		_, err := Apply(context.Background(), open(t, path), treeBase(t, base.write(t)), to, place.Options{})
		if err != nil {
			t.Fatalf("base %d: %v", i, err)
		}
		same(t, read(t, to), target)
	}
}

// TestStoredContainers makes the same of stored versions as of folders, and applies
// it to stored ones.
func TestStoredContainers(t *testing.T) {
	ctx := context.Background()
	base, target := files{"pkg.zip": shapes["zip in a zip"](artifacts(1)), "a.tgz": shapes["tar.gz"](artifacts(1))}, files{"pkg.zip": shapes["zip in a zip"](artifacts(2)), "a.tgz": shapes["tar.gz"](artifacts(2))}
	b := backend.NewLocal(t.TempDir())
	must(t, manifest.CreateArchive(ctx, b, chunking.Default()))
	a, err := manifest.OpenArchive(ctx, b)
	must(t, err)
	defer a.Close()
	var stored []Version
	for _, f := range []files{base, target} {
		tr, err := tree.Open(f.write(t), tree.Options{})
		must(t, err)
		m, _, err := a.Add(ctx, tr, manifest.AddOptions{Members: true})
		must(t, err)
		must(t, tr.Close())
		stored = append(stored, Version{Label: []string{"base-0", "target"}[len(stored)], Manifest: m, Files: a})
	}
	var fromStore bytes.Buffer
	_, err = Create(ctx, &fromStore, stored[:1], stored[1], CreateOptions{})
	must(t, err)
	path, _ := create(t, target, base)
	fromFolders, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(fromStore.Bytes(), fromFolders) {
		t.Errorf("a delta of stored versions has %d bytes, one of folders %d others", fromStore.Len(), len(fromFolders))
	}
	to := filepath.Join(t.TempDir(), "new")
	_, err = Apply(ctx, open(t, path), StoredBase{stored[0].Manifest, a}, to, place.Options{})
	must(t, err)
	same(t, read(t, to), target)
}

// TestChangedContainer tells a container of the base that a site has changed from a
// damaged delta.
func TestChangedContainer(t *testing.T) {
	base, target := files{"pkg": shapes["tar.gz"](artifacts(1))}, files{"pkg": shapes["tar.gz"](artifacts(2))}
	path, _ := create(t, target, base)
	for _, at := range []int{20, len(base["pkg"]) / 2, len(base["pkg"]) - 3} {
		changed := []byte(base["pkg"])
		changed[at] ^= 0x10
		to := filepath.Join(t.TempDir(), "new")
		_, err := Apply(context.Background(), open(t, path), treeBase(t, files{"pkg": string(changed)}.write(t)), to, place.Options{})
		var mismatch *BaseMismatchError
		if err != nil && !errors.As(err, &mismatch) {
			t.Errorf("byte %d of the base changed: %v, want a mismatch", at, err)
		}
		if err == nil {
			same(t, read(t, to), target) // the change did not matter
		}
	}
}

// TestContainersAnyhow makes deltas between packings of random changes.
func TestContainersAnyhow(t *testing.T) {
	seeds := uint64(6)
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		rng := rand.New(rand.NewPCG(seed, 3))
		names := slices.Sorted(maps.Keys(shapes))
		change := func(f files) files {
			for _, path := range slices.Sorted(maps.Keys(f)) {
				switch rng.IntN(5) {
				case 0:
					f[path] = splice(f[path], rng.Uint64())
				case 1:
					f[path+".moved"] = f[path]
					delete(f, path)
				}
			}
			return f
		}
		f := artifacts(1)
		base, target := files{}, files{}
		for i := range 1 + rng.IntN(3) {
			pack := shapes[names[rng.IntN(len(names))]]
			base[fmt.Sprint("pkg", i)] = pack(f)
			f = change(maps.Clone(f))
			target[fmt.Sprint("pkg", i+rng.IntN(2))] = pack(f)
		}
		for path, content := range change(maps.Clone(f)) {
			if rng.IntN(3) == 0 {
				target["loose/"+path] = content
			}
		}
		applied(t, base, target)
	}
}
