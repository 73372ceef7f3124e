package delta

import (
	"errors"
	"reflect"
	"testing"

	"ferry/cas"
	"ferry/delta/codec"
	"ferry/manifest"
)

func sampleTarget() *manifest.Manifest {
	return &manifest.Manifest{Entries: []manifest.Entry{
		{Path: "a/empty", Type: manifest.TypeDir},
		{Path: "a/one", Type: manifest.TypeFile, Size: 3, ModTime: 100, Digest: cas.Sum([]byte("one"))},
		{Path: "a/two", Type: manifest.TypeFile, Exec: true, Size: 3, ModTime: -5, Digest: cas.Sum([]byte("two"))},
		{Path: "b", Type: manifest.TypeFile, Digest: cas.Sum(nil)},
		{Path: "c", Type: manifest.TypeLink, Link: "a/one"},
	}}
}

// keepShort keeps short digests of an entry, or of all.
func keepShort(entry int) func(int) int {
	return func(i int) int {
		if entry < 0 || i == entry {
			return shortSize
		}
		return cas.DigestSize
	}
}

func keepAll(int) int { return cas.DigestSize }

func TestTargetRoundTrip(t *testing.T) {
	m := sampleTarget()
	back, _, err := decodeTarget(encodeTarget(m, &unnamed{}, nil, keepShort(1), codec.Default), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !isShort(back.Entries[1].Digest) || !agrees(m.Entries[1].Digest, back.Entries[1].Digest) {
		t.Errorf("digest %v of a/one is not that of %v, shortened", back.Entries[1].Digest, m.Entries[1].Digest)
	}
	if agrees(m.Entries[2].Digest, back.Entries[1].Digest) {
		t.Error("another digest agrees with a short one")
	}
	back.Entries[1].Digest = m.Entries[1].Digest
	if !reflect.DeepEqual(back, m) {
		t.Errorf("decoded\n%+v, want\n%+v", back, m)
	}
}

func TestTargetRefuses(t *testing.T) {
	data := encodeTarget(sampleTarget(), &unnamed{}, nil, keepShort(-1), codec.Fast)
	for n := range data {
		if _, _, err := decodeTarget(data[:n], sampleListed); !errors.Is(err, ErrInvalid) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
	unsorted := sampleTarget()
	unsorted.Entries[0], unsorted.Entries[3] = unsorted.Entries[3], unsorted.Entries[0]
	if _, _, err := decodeTarget(encodeTarget(unsorted, &unnamed{}, nil, keepAll, codec.Fast), nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("unsorted entries: %v", err)
	}
}

// sampleListed are paths that delta.json lists: one of them is no entry.
var sampleListed = []string{"a/one", "a/three", "b"}

func sampleUnnamed() *unnamed {
	u := &unnamed{marks: make([][]mark, len(sampleTarget().Entries)+1), n: 4}
	u.marks[0] = []mark{{path: 0xab, content: 1, mtime: 100}}
	u.marks[3] = []mark{{path: 0, content: 255, exec: true, mtime: -5}, {path: 0xff, mtime: 100}, {path: 1}}
	return u
}

func TestTargetUnnamed(t *testing.T) {
	data := encodeTarget(sampleTarget(), sampleUnnamed(), sampleListed, keepShort(-1), codec.Default)
	_, others, err := decodeTarget(data, sampleListed)
	if err != nil || !reflect.DeepEqual(others, sampleUnnamed()) {
		t.Errorf("decoded %+v, %v; want %+v", others, err, sampleUnnamed())
	}
	for n := range data {
		if _, _, err := decodeTarget(data[:n], sampleListed); !errors.Is(err, ErrInvalid) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
}

func FuzzDecodeTarget(f *testing.F) {
	f.Add(encodeTarget(sampleTarget(), &unnamed{}, nil, keepShort(1), codec.Fast))
	f.Add(encodeTarget(sampleTarget(), sampleUnnamed(), sampleListed, keepShort(1), codec.Fast))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, u, err := decodeTarget(data, sampleListed)
		if err != nil {
			return
		}
		again, others, err := decodeTarget(encodeTarget(m, u, sampleListed, func(i int) int {
			switch d := m.Entries[i].Digest; {
			case d == shortened(d, shortSize):
				return shortSize
			case d == shortened(d, frontSize):
				return frontSize
			}
			return cas.DigestSize
		}, codec.Fast), sampleListed)
		if err != nil || !reflect.DeepEqual(m, again) || !reflect.DeepEqual(u, others) {
			t.Fatalf("not the same after a round trip: %v", err)
		}
	})
}
