package guest

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io/fs"
	"strings"
)

// Where container engines keep what they have: containers-storage.conf(5), and
// containerd's config.toml(5).
const (
	containersStorage = "var/lib/containers/storage"
	containerdDB      = "var/lib/containerd/io.containerd.metadata.v1.bolt/meta.db"
)

// images finds container images of Podman, Buildah and CRI-O, and of containerd.
func (s *State) images(root fs.FS) error {
	folders, err := fs.ReadDir(root, containersStorage)
	if err != nil && !absent(err) {
		return err
	}
	for _, e := range folders {
		if !strings.HasSuffix(e.Name(), "-images") { // by driver: overlay-images, vfs-images
			continue
		}
		name := containersStorage + "/" + e.Name() + "/images.json"
		data, err := readFile(root, name)
		if absent(err) {
			continue
		}
		if err == nil {
			err = s.storageImages(data)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	data, err := readFile(root, containerdDB)
	if err == nil {
		err = s.containerdImages(data)
	}
	if err != nil && !absent(err) {
		return fmt.Errorf("%s: %w", containerdDB, err)
	}
	s.Images = sortImages(s.Images)
	return nil
}

// storageImages reads images.json of containers-storage.
func (s *State) storageImages(data []byte) error {
	var all []struct {
		ID     string           `json:"id"`
		Digest string           `json:"digest"`
		Names  []string         `json:"names"`
		Sizes  map[string]int64 `json:"big-data-sizes"`
	}
	if err := json.Unmarshal(data, &all); err != nil {
		return err
	}
	for _, image := range all {
		if len(image.Names) == 0 {
			image.Names = []string{"<none>@" + image.Digest}
		}
		for _, name := range image.Names {
			s.Images = append(s.Images, Image{Name: name, ID: image.ID, Store: "containers-storage"})
		}
	}
	return nil
}

// containerdImages reads containerd's database: the bucket v1, in it one for each
// namespace, in that images, by name, with target.
func (s *State) containerdImages(data []byte) error {
	db, err := openBolt(data)
	if err != nil {
		return err
	}
	namespaces, err := db.bucket("v1")
	if err != nil {
		return err
	}
	return namespaces.each(func(namespace string, b *bucket, _ []byte) error {
		if b == nil {
			return nil
		}
		images, err := b.bucket("images")
		if err != nil {
			return err
		}
		return images.each(func(name string, b *bucket, _ []byte) error {
			if b == nil {
				return nil
			}
			image := Image{Name: name, Store: "containerd " + namespace}
			target, err := b.bucket("target")
			if err != nil {
				return err
			}
			err = target.each(func(key string, _ *bucket, value []byte) error {
				switch key {
				case "digest":
					image.ID = string(value)
				case "size":
					if n, ok := binary.Varint(value); ok > 0 {
						image.Size = n
					}
				}
				return nil
			})
			s.Images = append(s.Images, image)
			return err
		})
	})
}
