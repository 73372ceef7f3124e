package manifest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"ferry/cas"
)

var testTime = time.Date(2026, 3, 1, 12, 0, 0, 999, time.FixedZone("", 3600))

// refs lists the catalogue.
func refs(t testing.TB, a *Archive) []string {
	t.Helper()
	versions, err := a.Versions(t.Context())
	if err != nil {
		t.Fatalf("Versions() = %v", err)
	}
	var refs []string
	for _, v := range versions {
		refs = append(refs, v.Ref.String())
	}
	return refs
}

func TestTag(t *testing.T) {
	a, dir := newArchive(t, testParams())
	ref := Ref{"tool", "1.0"}
	one, two := mustNew(t, file("a", "one"), link("l", "a")), mustNew(t, file("a", "two"))
	if v, err := a.Version(t.Context(), ref); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("Version before any tag = %+v, %v, want %v", v, err, cas.ErrNotFound)
	}
	first, err := a.Tag(t.Context(), ref, one, "/some/where", testTime, false)
	if err != nil {
		t.Fatal(err)
	}
	want := Version{Ref: ref, Format: catalogueFormat, Manifest: one.ID(), Added: testTime.UTC().Truncate(time.Second),
		Files: 1, Size: 3, Source: "/some/where", generation: 1}
	if first != want {
		t.Errorf("Tag = %+v, want %+v", first, want)
	}
	if got, err := openArchive(t, dir).Version(t.Context(), ref); err != nil || got != want {
		t.Errorf("Version = %+v, %v, want %+v", got, err, want)
	}
	again, err := a.Tag(t.Context(), ref, one, "/else/where", testTime.Add(time.Hour), false)
	if err != nil || again != want {
		t.Errorf("Tag of the same again = %+v, %v, want nothing changed", again, err)
	}
	if got, err := a.Tag(t.Context(), ref, two, "", testTime, false); !errors.Is(err, ErrTaken) || got != want {
		t.Errorf("Tag of another = %+v, %v, want %v", got, err, ErrTaken)
	}
	replaced, err := a.Tag(t.Context(), ref, two, "", testTime, true)
	if err != nil || replaced.Manifest != two.ID() || replaced.generation != 2 {
		t.Errorf("Tag to replace = %+v, %v, want %s", replaced, err, two.ID().Short())
	}
	if got, err := a.Version(t.Context(), ref); err != nil || got != replaced {
		t.Errorf("Version = %+v, %v, want %+v", got, err, replaced)
	}
	if got := refs(t, a); !slices.Equal(got, []string{"tool@1.0"}) {
		t.Errorf("Versions = %v, want the one", got)
	}
}

func TestRemove(t *testing.T) {
	a, _ := newArchive(t, testParams())
	ref := Ref{"tool", "1.0"}
	m := mustNew(t, file("a", "one"))
	if err := a.Remove(t.Context(), ref, testTime); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("Remove of nothing = %v, want %v", err, cas.ErrNotFound)
	}
	for range 3 { // removed and added anew, it is there again
		if _, err := a.Tag(t.Context(), ref, m, "", testTime, false); err != nil {
			t.Fatal(err)
		}
		if got := refs(t, a); len(got) != 1 {
			t.Errorf("Versions = %v, want one", got)
		}
		if err := a.Remove(t.Context(), ref, testTime); err != nil {
			t.Fatal(err)
		}
		if got := refs(t, a); len(got) != 0 {
			t.Errorf("Versions = %v, want none", got)
		}
		if v, err := a.Version(t.Context(), ref); !errors.Is(err, cas.ErrNotFound) {
			t.Errorf("Version of a removed one = %+v, %v, want %v", v, err, cas.ErrNotFound)
		}
		if err := a.Remove(t.Context(), ref, testTime); !errors.Is(err, cas.ErrNotFound) {
			t.Errorf("Remove again = %v, want %v", err, cas.ErrNotFound)
		}
	}
}

// TestNamesOfOtherCase also holds on file systems that do not tell case.
func TestNamesOfOtherCase(t *testing.T) {
	a, dir := newArchive(t, testParams())
	all := []Ref{{"K2s", "V1"}, {"k2s", "v1"}, {"K2S", "v1"}, {"k2s", "V1"}}
	for i, ref := range all {
		if _, err := a.Tag(t.Context(), ref, mustNew(t, file("a", fmt.Sprint(i))), "", testTime, false); err != nil {
			t.Fatalf("Tag(%s) = %v", ref, err)
		}
	}
	for i, ref := range all {
		v, err := a.Version(t.Context(), ref)
		if want := mustNew(t, file("a", fmt.Sprint(i))); err != nil || v.Manifest != want.ID() || v.Ref != ref {
			t.Errorf("Version(%s) = %+v, %v, want manifest %s", ref, v, err, want.ID().Short())
		}
	}
	if got := refs(t, a); len(got) != len(all) {
		t.Errorf("Versions = %v, want %v", got, all)
	}
	want := []string{"catalogue/!k2!s/v1/000001", "catalogue/!k2s/!v1/000001", "catalogue/k2s/!v1/000001", "catalogue/k2s/v1/000001"}
	if got := objects(t, dir, "catalogue"); !slices.Equal(got, want) {
		t.Errorf("objects = %v, want %v", got, want)
	}
}

func TestVersionsOrder(t *testing.T) {
	a, _ := newArchive(t, testParams())
	for i, s := range []string{"b@2", "a@9", "a@10", "a@1", "c@1"} {
		ref, err := ParseRef(s)
		if err != nil {
			t.Fatal(err)
		}
		added := testTime.Add(time.Duration(i) * time.Minute)
		if s == "a@1" {
			added = testTime.Add(2 * time.Minute) // at the same time as a@10
		}
		if _, err := a.Tag(t.Context(), ref, mustNew(t), "", added, false); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := refs(t, a), []string{"a@9", "a@1", "a@10", "b@2", "c@1"}; !slices.Equal(got, want) {
		t.Errorf("Versions = %v, want %v", got, want)
	}
}

// TestTagAtOnce has many sessions tag at the same time.
func TestTagAtOnce(t *testing.T) {
	a, dir := newArchive(t, testParams())
	const n = 8
	same, replaced := Ref{"same", "1"}, Ref{"replaced", "1"}
	var wg sync.WaitGroup
	won := make([]error, n)
	for i := range n {
		session := openArchive(t, dir)
		wg.Go(func() {
			m := mustNew(t, file("a", fmt.Sprint(i)))
			own := Ref{"own", fmt.Sprint(i)}
			if _, err := session.Tag(t.Context(), own, m, "", testTime, false); err != nil {
				t.Errorf("Tag(%s) = %v", own, err)
			}
			_, won[i] = session.Tag(t.Context(), same, m, "", testTime, false)
			if v, err := session.Tag(t.Context(), replaced, m, "", testTime, true); err != nil || v.Manifest != m.ID() {
				t.Errorf("Tag to replace = %+v, %v, want %s", v, err, m.ID().Short())
			}
		})
	}
	wg.Wait()
	winner := -1
	for i, err := range won {
		switch {
		case err == nil && winner < 0:
			winner = i
		case !errors.Is(err, ErrTaken):
			t.Errorf("session %d tags what session %d has: %v, want %v", i, winner, err, ErrTaken)
		}
	}
	v, err := a.Version(t.Context(), same)
	if want := mustNew(t, file("a", fmt.Sprint(winner))); err != nil || v.Manifest != want.ID() {
		t.Errorf("Version(%s) = %+v, %v, want that of session %d", same, v, err, winner)
	}
	v, err = a.Version(t.Context(), replaced)
	if err != nil || v.generation != n {
		t.Errorf("Version(%s) = %+v, %v, want generation %d", replaced, v, err, n)
	}
	if got := refs(t, a); len(got) != n+2 {
		t.Errorf("Versions = %v, want %d", got, n+2)
	}
}

// TestForeignCatalogueFiles has files in the catalogue that no Ferry wrote.
func TestForeignCatalogueFiles(t *testing.T) {
	a, dir := newArchive(t, testParams())
	if _, err := a.Tag(t.Context(), Ref{"tool", "1"}, mustNew(t), "", testTime, false); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"notes.txt", "tool/notes.txt", "tool/1/notes.txt", "tool/1/000000", "tool/1/-1", "tool/1/+9", "tool/1/9", "tool/1/0000009", "tool/2/0", "tool/1/sub/000009"} {
		path := filepath.Join(dir, "catalogue", filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("{}"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if got := refs(t, a); !slices.Equal(got, []string{"tool@1"}) {
		t.Errorf("Versions = %v, want the one", got)
	}
	if v, err := a.Version(t.Context(), Ref{"tool", "1"}); err != nil || v.generation != 1 {
		t.Errorf("Version = %+v, %v, want generation 1", v, err)
	}
}

func TestDamagedCatalogue(t *testing.T) {
	for body, want := range map[string]error{
		"":         cas.ErrCorrupt,
		"not JSON": cas.ErrCorrupt,
		`{"format":"ferry.catalogue/1","manifest":"blake3:0"}`: cas.ErrCorrupt,
		`{"format":"ferry.catalogue/2"}`:                       cas.ErrVersion,
		`{}`:                                                   cas.ErrVersion,
	} {
		a, dir := newArchive(t, testParams())
		ref := Ref{"tool", "1"}
		if _, err := a.Tag(t.Context(), ref, mustNew(t), "", testTime, false); err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, "catalogue", "tool", "1", "000001")
		if err := errors.Join(os.Chmod(name, 0o666), os.WriteFile(name, []byte(body), 0o666)); err != nil {
			t.Fatal(err)
		}
		if v, err := a.Version(t.Context(), ref); !errors.Is(err, want) {
			t.Errorf("Version with %q = %+v, %v, want %v", body, v, err, want)
		}
		if v, err := a.Versions(t.Context()); v != nil || !errors.Is(err, want) {
			t.Errorf("Versions with %q = %v, %v, want %v", body, v, err, want)
		}
		if _, err := a.Tag(t.Context(), ref, mustNew(t, file("a", "b")), "", testTime, true); !errors.Is(err, want) {
			t.Errorf("Tag over %q = %v, want %v", body, err, want)
		}
	}
}
