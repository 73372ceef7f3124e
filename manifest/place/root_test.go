package place

import (
	"io/fs"
	"os"
	"slices"
	"testing"
)

func TestRemoveEmpty(t *testing.T) {
	for _, test := range []struct {
		name, remove string
		dirs, want   []string
	}{
		{"all", "a/b/c", []string{"a/b/c"}, []string{"."}},
		{"up to one that is not empty", "a/b/c", []string{"a/b/c", "a/d"}, []string{".", "a", "a/d"}},
		{"not empty itself", "a", []string{"a/b"}, []string{".", "a", "a/b"}},
		// Who was killed between two folders left these.
		{"the last was not made", "a/b/c", []string{"a/b"}, []string{"."}},
		{"only the first was made", "a/b/c", []string{"a", "other"}, []string{".", "other"}},
		{"none was made", "a/b/c", []string{"other"}, []string{".", "other"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			root, err := os.OpenRoot(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			for _, d := range test.dirs {
				if err := root.MkdirAll(d, 0o777); err != nil {
					t.Fatal(err)
				}
			}
			RemoveEmpty(root, test.remove)
			var got []string
			err = fs.WalkDir(root.FS(), ".", func(p string, _ fs.DirEntry, err error) error {
				got = append(got, p)
				return err
			})
			if err != nil || !slices.Equal(got, test.want) {
				t.Errorf("left: %q, %v, want %q", got, err, test.want)
			}
		})
	}
}
