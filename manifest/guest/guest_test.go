package guest

import (
	"bytes"
	"context"
	"encoding/binary"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	bolt "go.etcd.io/bbolt"

	"ferry/chunking/disk"
	"ferry/chunking/disk/disktest"
)

// read reads the system of an image.
func read(t *testing.T, data []byte) *State {
	t.Helper()
	m, err := disk.Open(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	v, _ := m.Volume(2)
	files, err := v.Files(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	s, err := Read(context.Background(), files, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCompare(t *testing.T) {
	base, target := read(t, disktest.Base(t)), read(t, disktest.Target(t))
	got := Compare(base, target)
	want := &Diff{
		DebianPackageDiff: PackageDiff{
			Processed: true, Added: []string{"fresh=3"}, Removed: []string{"gone=3"}, Changed: []string{"upgraded: 1:2.0-1+deb12u1 -> 1:2.0-1+deb12u2"},
			AddedCount: 1, RemovedCount: 1, ChangedCount: 1,
		},
		ContainerImageDiff: ImageDiff{
			AddedImages: []ImageName{{"docker.io/library/fresh:2", "linux"}}, RemovedImages: []ImageName{{"docker.io/library/old:1", "linux"}}, ChangedImages: []ImageName{},
			AddedCount: 1, RemovedCount: 1,
		},
		GuestConfigDiff: FileDiff{Added: []string{}, Removed: []string{}, Changed: []string{"/etc/kubernetes/config.yaml"}, ChangedCount: 1},
		SystemdUnitDiff: FileDiff{Added: []string{}, Changed: []string{}, Removed: []string{"/etc/systemd/system/one.service"}, RemovedCount: 1},
		KernelDiff:      KernelDiff{Added: []string{"6.1.0-2-amd64"}, Removed: []string{}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("Compare = %+v\nwant %+v", got, want)
	}
	if got.Empty() || !Compare(base, base).Empty() {
		t.Error("Empty is wrong")
	}
}

func TestStatus(t *testing.T) {
	s := &State{Packages: map[string]string{}}
	s.status("Package: a\r\nStatus: install ok installed\r\nArchitecture: amd64\r\nVersion: 1\r\nDescription: x\r\n Version: 9\r\n\r\n"+
		"Package: a\nStatus: hold ok installed\nArchitecture: i386\nVersion: 2\n\n"+
		"Package: half\nStatus: install ok half-installed\nVersion: 3\n\n\n\nno stanza\n\nPackage: none\n", false)
	if want := (map[string]string{"a": "1", "a:i386": "2"}); !maps.Equal(s.Packages, want) {
		t.Errorf("packages are %v, want %v", s.Packages, want)
	}
}

// database makes a database as containerd has it, with many images, so that it has
// branches and pages that follow others.
func database(t testing.TB, images map[string]string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "meta.db")
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, digest := range images { // in several transactions
		err := db.Update(func(tx *bolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("v1"))
			if err != nil {
				return err
			}
			for _, key := range []string{"k8s.io", "images", name, "target"} {
				if b, err = b.CreateBucketIfNotExists([]byte(key)); err != nil {
					return err
				}
			}
			if err := b.Put([]byte("digest"), []byte(digest)); err != nil {
				return err
			}
			return b.Put([]byte("size"), binary.AppendVarint(nil, 1234))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestContainerd(t *testing.T) {
	want := map[string]string{}
	for i := range 150 {
		name := "registry.example/" + strings.Repeat("deep/", i%20) + "image:" + strings.Repeat("x", i)
		want[name] = "sha256:" + strings.Repeat("ab", 32)
	}
	s, err := Read(context.Background(), fstest.MapFS{containerdDB: {Data: database(t, want)}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, i := range s.Images {
		if i.Size != 1234 || i.Store != "containerd k8s.io" {
			t.Fatalf("image %+v", i)
		}
		got[i.Name] = i.ID
	}
	if !maps.Equal(got, want) {
		t.Errorf("%d images, want %d", len(got), len(want))
	}
}

func TestImageDiff(t *testing.T) {
	d := compareImages([]Image{{Name: "a", ID: "1"}, {Name: "b", ID: "1"}}, []Image{{Name: "b", ID: "2"}, {Name: "c", ID: "1"}})
	if len(d.AddedImages) != 1 || d.AddedImages[0].FullName != "c" || d.RemovedImages[0].FullName != "a" || d.ChangedImages[0].FullName != "b" {
		t.Errorf("compareImages = %+v", d)
	}
}

// TestMalformed gives files that are not what they are called.
func TestMalformed(t *testing.T) {
	for path, data := range map[string]string{
		containerdDB: "not a database",
		containersStorage + "/overlay-images/images.json": "{",
	} {
		if _, err := Read(context.Background(), fstest.MapFS{path: {Data: []byte(data)}}, nil); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: Read = %v", path, err)
		}
	}
	s, err := Read(context.Background(), fstest.MapFS{}, nil)
	if err != nil || len(s.Packages)+len(s.Images)+len(s.Kernels)+len(s.Units)+len(s.Config) > 0 {
		t.Errorf("of nothing, Read = %+v, %v", s, err)
	}
}

func FuzzContainerd(f *testing.F) {
	f.Add(database(f, map[string]string{"a": "1", "b": "2"}), uint32(0), []byte{})
	f.Add(database(f, map[string]string{"a": "1"}), uint32(2*4096+8), []byte{2, 0, 9})
	f.Fuzz(func(t *testing.T, data []byte, off uint32, patch []byte) {
		b := slices.Clone(data)
		copy(b[min(int(off), len(b)):], patch)
		s := &State{}
		s.containerdImages(b)
	})
}
