package backend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"
)

// testBackend is what every Backend must do. open gives handles of one empty
// place: each stands for another process.
func testBackend(t *testing.T, open func(t *testing.T) func() Backend) {
	for _, test := range []struct {
		name string
		fn   func(t *testing.T, open func() Backend)
	}{
		{"Put", testPut},
		{"PutRace", testPutRace},
		{"PutFails", testPutFails},
		{"ReadAt", testReadAt},
		{"Absent", testAbsent},
		{"List", testList},
		{"Delete", testDelete},
		{"Cancelled", testCancelled},
		{"Lease", testLease},
		{"LeaseRace", testLeaseRace},
		{"Leases", testLeases},
	} {
		t.Run(test.name, func(t *testing.T) { test.fn(t, open(t)) })
	}
}

func put(t *testing.T, b Backend, name, content string) {
	t.Helper()
	if err := b.Put(t.Context(), name, strings.NewReader(content), int64(len(content))); err != nil {
		t.Fatalf("Put(%s): %v", name, err)
	}
}

// content reads a whole object.
func content(t *testing.T, b Backend, name string) string {
	t.Helper()
	r, err := b.Open(t.Context(), name)
	if err != nil {
		t.Fatalf("Open(%s): %v", name, err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("read of %s: %v", name, err)
	}
	return string(data)
}

// list returns the names under prefix, sorted.
func list(t *testing.T, b Backend, prefix string) []string {
	t.Helper()
	var names []string
	err := b.List(t.Context(), prefix, func(info Info) error {
		names = append(names, info.Name)
		return nil
	})
	if err != nil {
		t.Fatalf("List(%q): %v", prefix, err)
	}
	slices.Sort(names)
	return names
}

func testPut(t *testing.T, open func() Backend) {
	b, other := open(), open()
	for name, want := range map[string]string{"config.json": "{}", "a/b/c": "nested", "doomed/empty": "", "a/!b._+-9": "odd"} {
		put(t, b, name, want)
		if got := content(t, other, name); got != want {
			t.Errorf("content of %s = %q, want %q", name, got, want)
		}
		info, err := other.Stat(t.Context(), name)
		if err != nil || info.Name != name || info.Size != int64(len(want)) || info.Created.IsZero() {
			t.Errorf("Stat(%s) = %+v, %v, want size %d", name, info, err, len(want))
		}
		err = other.Put(t.Context(), name, strings.NewReader("other"), 5)
		if !errors.Is(err, ErrExist) {
			t.Errorf("second Put(%s) = %v, want ErrExist", name, err)
		}
		if got := content(t, b, name); got != want {
			t.Errorf("content of %s after a second Put = %q, want %q", name, got, want)
		}
	}
}

func testPutRace(t *testing.T, open func() Backend) {
	const writers = 16
	for round := range 3 {
		name := fmt.Sprintf("race/%d/object", round)
		errs := make([]error, writers)
		var wg sync.WaitGroup
		for i := range writers {
			b := open()
			wg.Go(func() {
				data := bytes.Repeat([]byte{byte(i)}, 1000+i)
				errs[i] = b.Put(t.Context(), name, bytes.NewReader(data), int64(len(data)))
			})
		}
		wg.Wait()
		winner := slices.Index(errs, nil)
		if winner < 0 {
			t.Fatalf("no writer won: %v", errs)
		}
		for i, err := range errs {
			if i != winner && !errors.Is(err, ErrExist) {
				t.Errorf("writer %d, after writer %d won: %v, want ErrExist", i, winner, err)
			}
		}
		if got, want := content(t, open(), name), strings.Repeat(string(rune(winner)), 1000+winner); got != want {
			t.Errorf("the object is not the one of writer %d, which won", winner)
		}
		if got := list(t, open(), fmt.Sprintf("race/%d/", round)); len(got) != 1 {
			t.Errorf("the race left %q, want one object", got)
		}
	}
}

func testPutFails(t *testing.T, open func() Backend) {
	b := open()
	broken := errors.New("source on fire")
	for _, test := range []struct {
		name string
		r    io.Reader
		size int64
	}{
		{"too short", strings.NewReader("abc"), 4},
		{"too long", strings.NewReader("abcde"), 4},
		{"failing reader", io.MultiReader(strings.NewReader("ab"), iotest.ErrReader(broken)), 4},
	} {
		err := b.Put(t.Context(), "dir/object", test.r, test.size)
		if err == nil || errors.Is(err, ErrExist) {
			t.Errorf("Put(%s) = %v, want an error of its own", test.name, err)
		}
		if got := list(t, b, ""); len(got) != 0 {
			t.Errorf("Put(%s) left %q, want nothing", test.name, got)
		}
	}
	put(t, b, "dir/object", "abcd")
}

func testReadAt(t *testing.T, open func() Backend) {
	b := open()
	put(t, b, "object", "0123456789")
	for _, test := range []struct {
		off     int64
		n       int
		want    string
		wantErr error
	}{
		{0, 10, "0123456789", nil},
		{3, 4, "3456", nil},
		{9, 1, "9", nil},
		{0, 0, "", nil},
		{0, 11, "", io.ErrUnexpectedEOF},
		{9, 2, "", io.ErrUnexpectedEOF},
		{10, 1, "", io.ErrUnexpectedEOF},
		{1000, 1, "", io.ErrUnexpectedEOF},
	} {
		p := make([]byte, test.n)
		err := b.ReadAt(t.Context(), "object", p, test.off)
		if !errors.Is(err, test.wantErr) || err == nil && string(p) != test.want {
			t.Errorf("ReadAt(%d bytes at %d) = %q, %v, want %q, %v", test.n, test.off, p, err, test.want, test.wantErr)
		}
	}
	// More objects than a backend may keep open, read at the same time.
	for i := range 100 {
		put(t, b, fmt.Sprintf("many/%d", i), fmt.Sprint(i))
	}
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := range 200 {
				want := fmt.Sprint((i*7 + worker) % 100)
				p := make([]byte, len(want))
				if err := b.ReadAt(t.Context(), "many/"+want, p, 0); err != nil || string(p) != want {
					t.Errorf("ReadAt(many/%s) = %q, %v", want, p, err)
				}
			}
		})
	}
	wg.Wait()
}

func testAbsent(t *testing.T, open func() Backend) {
	for _, filled := range []bool{false, true} {
		b := open()
		if filled {
			put(t, b, "dir/there", "x")
		}
		if err := b.ReadAt(t.Context(), "dir/absent", make([]byte, 1), 0); !errors.Is(err, ErrNotFound) {
			t.Errorf("ReadAt(absent) = %v, want ErrNotFound", err)
		}
		if _, err := b.Open(t.Context(), "dir/absent"); !errors.Is(err, ErrNotFound) {
			t.Errorf("Open(absent) = %v, want ErrNotFound", err)
		}
		if _, err := b.Stat(t.Context(), "dir/absent"); !errors.Is(err, ErrNotFound) {
			t.Errorf("Stat(absent) = %v, want ErrNotFound", err)
		}
		if got := list(t, b, "absent/"); len(got) != 0 {
			t.Errorf("List(absent/) = %q, want none", got)
		}
		if err := b.Delete(t.Context(), "dir/absent"); err != nil {
			t.Errorf("Delete(absent) = %v", err)
		}
	}
}

func testList(t *testing.T, open func() Backend) {
	b := open()
	for _, name := range []string{"a/1", "a/b/2", "ab/3", "c"} {
		put(t, b, name, name)
	}
	for prefix, want := range map[string][]string{
		"":     {"a/1", "a/b/2", "ab/3", "c"},
		"a/":   {"a/1", "a/b/2"},
		"a/b/": {"a/b/2"},
		"d/":   nil,
	} {
		if got := list(t, b, prefix); !slices.Equal(got, want) {
			t.Errorf("List(%q) = %q, want %q", prefix, got, want)
		}
	}
	stop := errors.New("enough")
	calls := 0
	if err := b.List(t.Context(), "", func(Info) error { calls++; return stop }); !errors.Is(err, stop) || calls != 1 {
		t.Errorf("List made %d calls, %v, want 1, %v", calls, err, stop)
	}
	err := b.List(t.Context(), "", func(info Info) error {
		if info.Size != int64(len(info.Name)) || time.Since(info.Created).Abs() > time.Hour {
			t.Errorf("List gave %+v, want size %d and a time near now", info, len(info.Name))
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func testDelete(t *testing.T, open func() Backend) {
	b, other := open(), open()
	for range 2 { // a name can be used again
		put(t, b, "dir/object", "content")
		if err := b.ReadAt(t.Context(), "dir/object", make([]byte, 1), 0); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := b.Delete(t.Context(), "dir/object"); err != nil {
				t.Errorf("Delete = %v", err)
			}
		}
		for _, b := range []Backend{b, other} {
			if err := b.ReadAt(t.Context(), "dir/object", make([]byte, 1), 0); !errors.Is(err, ErrNotFound) {
				t.Errorf("ReadAt after Delete = %v, want ErrNotFound", err)
			}
		}
		if got := list(t, b, ""); len(got) != 0 {
			t.Errorf("List after Delete = %q, want none", got)
		}
	}
}

func testCancelled(t *testing.T, open func() Backend) {
	b := open()
	put(t, b, "object", "x")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, openErr := b.Open(ctx, "object")
	_, statErr := b.Stat(ctx, "object")
	for what, err := range map[string]error{
		"Put":    b.Put(ctx, "new", strings.NewReader("x"), 1),
		"ReadAt": b.ReadAt(ctx, "object", make([]byte, 1), 0),
		"Open":   openErr,
		"Stat":   statErr,
		"List":   b.List(ctx, "", func(Info) error { return nil }),
		"Delete": b.Delete(ctx, "object"),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled %s = %v, want context.Canceled", what, err)
		}
	}
	if got := list(t, b, ""); !slices.Equal(got, []string{"object"}) {
		t.Errorf("cancelled calls left %q, want the object alone", got)
	}
}
