package delta

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"ferry/cas/backend"
	"ferry/chunking"
	"ferry/manifest"
	"ferry/manifest/place"
	"ferry/manifest/tree"
)

// inventoryOf makes the inventory of a folder, as it comes out of its file.
func inventoryOf(t testing.TB, dir string) *Inventory {
	t.Helper()
	v := version(t, "site", dir)
	inv, err := NewInventory(context.Background(), v.Manifest, chunking.Default(), v.Files.Recipe)
	must(t, err)
	inv.Label, inv.Number = "base-0", "1.0.0"
	data, err := inv.Encode()
	must(t, err)
	back, err := ReadInventory(bytes.NewReader(data), 0)
	must(t, err)
	if !sameInventory(back, inv) {
		t.Fatal("ReadInventory(Encode) differs from what was encoded")
	}
	return back
}

func sameInventory(a, b *Inventory) bool {
	return a.Label == b.Label && a.Number == b.Number && a.Params == b.Params && reflect.DeepEqual(a.Manifest, b.Manifest) &&
		maps.EqualFunc(a.recipes, b.recipes, func(x, y *manifest.Recipe) bool { return bytes.Equal(x.Encode(), y.Encode()) })
}

func (v *Inventory) version() Version {
	return Version{Label: v.Label, Manifest: v.Manifest, Files: v, Params: v.Params}
}

// libraryOf makes an archive of versions.
func libraryOf(t testing.TB, versions ...files) *manifest.Archive {
	t.Helper()
	ctx := context.Background()
	b := backend.NewLocal(t.TempDir())
	must(t, manifest.CreateArchive(ctx, b, chunking.Default()))
	a, err := manifest.OpenArchive(ctx, b)
	must(t, err)
	t.Cleanup(func() { a.Close() })
	for _, f := range versions {
		tr, err := tree.Open(f.write(t), tree.Options{})
		must(t, err)
		_, _, err = a.Add(ctx, tr, manifest.AddOptions{Members: true})
		must(t, err)
		must(t, tr.Close())
	}
	return a
}

// createFrom makes a delta between versions and returns its path.
func createFrom(t testing.TB, target Version, opts CreateOptions, bases ...Version) (string, *Info) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "delta.ferry")
	f, err := os.Create(path)
	must(t, err)
	info, err := Create(context.Background(), f, bases, target, opts)
	must(t, err)
	must(t, f.Close())
	return path, info
}

// packed adds containers to a release.
func packed(f files, release uint64) files {
	return f.with(files{
		"img/pkg.zip": shapes["zip in a zip"](artifacts(release)),
		"img/pkg.tgz": shapes["tar.gz"](artifacts(release)),
	})
}

// changedSite is a release that a site has changed.
func changedSite() files {
	return packed(v1(), 1).with(files{
		"lib/a.ps1":    "edited at the site\n",
		"bin/tool.exe": splice(bytesOf(1, 900<<10), 99),
		"site/own":     bytesOf(98, 30<<10),
		"img/pkg.tgz":  shapes["tar.gz"](artifacts(1).with(files{"etc/site.conf": "site"})),
	})
}

// left is what of changedSite a target does not know and does not stand in its way.
func left() files {
	return files{
		"site/own": changedSite()["site/own"], "old/gone.txt": "removed", "bin/moved.exe": changedSite()["bin/moved.exe"], "empty-goes/": "",
	}
}

func TestDeltaFromInventory(t *testing.T) {
	target := packed(v2(), 2)
	sizes := map[string]int64{}
	for name, library := range map[string]*manifest.Archive{"none": nil, "release": libraryOf(t, packed(v1(), 1)), "all": libraryOf(t, changedSite())} {
		inv := inventoryOf(t, changedSite().write(t))
		if library != nil {
			inv.SetLibrary(library)
		}
		path, info := createFrom(t, version(t, "target", target.write(t)), CreateOptions{}, inv.version())
		sizes[name] = info.PayloadSize
		d := open(t, path)
		to := filepath.Join(t.TempDir(), "new")
		_, err := Apply(context.Background(), d, treeBase(t, changedSite().write(t)), to, place.Options{})
		if err != nil {
			t.Fatalf("library %s: %v", name, err)
		}
		same(t, read(t, to), target)

		dir := changedSite().write(t)
		r := applyInPlace(t, path, dir, false)
		same(t, read(t, dir), target.with(left()))
		if len(r.Modified) > 0 {
			t.Errorf("library %s: modified = %v, want none: the inventory knows them", name, r.Modified)
		}
		_, err = Undo(context.Background(), dir, false)
		must(t, err)
		same(t, read(t, dir), changedSite())
	}
	_, whole := createFrom(t, version(t, "target", target.write(t)), CreateOptions{}, version(t, "nothing", files{"x": "y"}.write(t)))
	if sizes["all"] > sizes["release"] || sizes["release"] > sizes["none"] || sizes["none"] > whole.PayloadSize*3/4 {
		t.Errorf("payloads by library: %v; with no base %d: want each less than the next", sizes, whole.PayloadSize)
	}
}

// TestInventoryWithAllContent makes of an inventory, with a library that has all of the
// site, just the delta that the site itself gives.
func TestInventoryWithAllContent(t *testing.T) {
	inv := inventoryOf(t, changedSite().write(t))
	inv.SetLibrary(libraryOf(t, changedSite()))
	target := packed(v2(), 2)
	got, _ := createFrom(t, version(t, "target", target.write(t)), CreateOptions{RemoveUnknown: true}, inv.version())
	want, _ := create(t, target, changedSite())
	a, err := os.ReadFile(got)
	must(t, err)
	b, err := os.ReadFile(want)
	must(t, err)
	if !bytes.Equal(a, b) {
		t.Errorf("a delta from an inventory has %d bytes, from the site %d others", len(a), len(b))
	}
}

func TestInventoryAndBases(t *testing.T) {
	target, base := packed(v2(), 2), packed(v1(), 1)
	inv := inventoryOf(t, changedSite().write(t))
	path, info := createFrom(t, version(t, "target", target.write(t)), CreateOptions{}, inv.version(), version(t, "base-1", base.write(t)))
	for _, p := range []string{"old/gone.txt", "bin/moved.exe"} {
		if !contains(info.Removed, p) {
			t.Errorf("Removed = %v, want %s, which a base has", info.Removed, p)
		}
	}
	if contains(info.Removed, "site/own") {
		t.Errorf("Removed = %v, want no file that only the site has", info.Removed)
	}
	dir := changedSite().write(t)
	applyInPlace(t, path, dir, false)
	same(t, read(t, dir), target.with(files{"site/own": changedSite()["site/own"]}))
	to := filepath.Join(t.TempDir(), "new")
	_, err := Apply(context.Background(), open(t, path), treeBase(t, base.write(t)), to, place.Options{})
	must(t, err)
	same(t, read(t, to), target)

	path, _ = createFrom(t, version(t, "target", target.write(t)), CreateOptions{RemoveUnknown: true}, inv.version())
	dir = changedSite().write(t)
	applyInPlace(t, path, dir, false)
	same(t, read(t, dir), target)
}

func contains(all []string, s string) bool {
	for _, x := range all {
		if x == s {
			return true
		}
	}
	return false
}

// TestInventoryMismatch tells a site that changed since its inventory.
func TestInventoryMismatch(t *testing.T) {
	inv := inventoryOf(t, changedSite().write(t))
	path, _ := createFrom(t, version(t, "target", packed(v2(), 2).write(t)), CreateOptions{}, inv.version())
	changed := []byte(changedSite()["img/pkg.tgz"])
	for i := 100; i < len(changed); i += 500 {
		changed[i] ^= 0x11
	}
	dir := changedSite().with(files{"img/pkg.tgz": string(changed)}).write(t)
	_, err := Apply(context.Background(), open(t, path), treeBase(t, dir), filepath.Join(t.TempDir(), "new"), place.Options{})
	var mismatch *BaseMismatchError
	if !errors.As(err, &mismatch) {
		t.Errorf("Apply = %v, want a BaseMismatchError", err)
	}
}

func TestInventoryPolicy(t *testing.T) {
	inv := inventoryOf(t, v1().write(t))
	target := version(t, "target", v2().write(t))
	target.Params = chunking.Default()
	target.Params.Max = 64 << 10
	if _, err := Create(context.Background(), &bytes.Buffer{}, []Version{inv.version()}, target, CreateOptions{}); !errors.Is(err, ErrPolicy) {
		t.Errorf("Create = %v, want %v", err, ErrPolicy)
	}
}

func TestInventoryNoContent(t *testing.T) {
	inv := inventoryOf(t, packed(v1(), 1).write(t))
	for _, e := range inv.Manifest.Entries {
		if e.Type != manifest.TypeFile || e.Size == 0 {
			continue
		}
		if ok, err := inv.Available(context.Background(), e); ok || err != nil {
			t.Errorf("Available(%s) = %t, %v, want false", e.Path, ok, err)
		}
		if c, err := inv.OpenAt(context.Background(), e); !errors.Is(err, ErrNoContent) || c != nil {
			t.Errorf("OpenAt(%s) = %v, %v, want %v", e.Path, c, err, ErrNoContent)
		}
	}
}

// TestInventorySize holds an inventory to 40 bytes for each chunk, and a little.
func TestInventorySize(t *testing.T) {
	f := files{"a.bin": bytesOf(1, 4<<20), "again.bin": bytesOf(1, 4<<20), "pkg.zip": zipped(files{"a.bin": bytesOf(1, 4<<20)}, zip.Deflate)}
	inv := inventoryOf(t, f.write(t))
	data, err := inv.Encode()
	must(t, err)
	if most := (4<<20)/(16<<10)*40 + 2000; len(data) > most {
		t.Errorf("the inventory has %d bytes, want at most %d", len(data), most)
	}
}

func TestInventoryRefuses(t *testing.T) {
	inv := inventoryOf(t, packed(files{"a": "b", "zero": string(make([]byte, 1<<20))}, 1).write(t))
	data, err := inv.Encode()
	must(t, err)
	refused := func(what string, data []byte, limit int64) {
		t.Helper()
		if got, err := ReadInventory(bytes.NewReader(data), limit); !errors.Is(err, ErrInvalid) || got != nil {
			t.Errorf("%s: ReadInventory = %v, %v, want ErrInvalid", what, got, err)
		}
	}
	for n := 0; n < len(data); n += 1 + n/50 {
		refused("cut off", data[:n], 0)
		flipped := bytes.Clone(data)
		flipped[n] ^= 4
		refused("a byte flipped", flipped, 0)
	}
	refused("a byte more", append(bytes.Clone(data), 0), 0)
	refused("over the limit", data, int64(len(data)-1))
	refused("packed over the limit", data, int64(len(data)))
	body, err := inv.body()
	must(t, err)
	for n := 0; n < len(body); n += 1 + n/50 {
		if got, err := decodeInventory(body[:n]); !errors.Is(err, ErrInvalid) || got != nil {
			t.Fatalf("the first %d bytes: decodeInventory = %v, %v, want ErrInvalid", n, got, err)
		}
	}
	if _, err := decodeInventory(append(body, 0)); !errors.Is(err, ErrInvalid) {
		t.Errorf("decodeInventory with a byte too many = %v, want ErrInvalid", err)
	}
}

func FuzzDecodeInventory(f *testing.F) {
	for _, tree := range []files{{"a": "b"}, packed(files{"a": "b", "zero": string(make([]byte, 1<<20))}, 1)} {
		body, err := inventoryOf(f, tree.write(f)).body()
		must(f, err)
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		inv, err := decodeInventory(body)
		if err != nil {
			if inv != nil || !errors.Is(err, ErrInvalid) {
				t.Fatalf("decodeInventory = %v, %v, want nil and ErrInvalid", inv, err)
			}
			return
		}
		for _, r := range inv.recipes {
			r.Locations()
		}
		again, err := inv.body()
		must(t, err)
		back, err := decodeInventory(again)
		if err != nil || !sameInventory(back, inv) {
			t.Fatalf("not the same after a round trip: %v", err)
		}
	})
}

func FuzzReadInventory(f *testing.F) {
	data, err := inventoryOf(f, files{"a": "b", "c": bytesOf(1, 100<<10)}.write(f)).Encode()
	must(f, err)
	f.Add(data)
	f.Add([]byte(inventoryMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		if inv, err := ReadInventory(bytes.NewReader(data), 4<<20); err != nil && (inv != nil || !errors.Is(err, ErrInvalid)) {
			t.Fatalf("ReadInventory = %v, %v, want nil and ErrInvalid", inv, err)
		}
	})
}
