package delta

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"ferry/chunking/lz4"
	"ferry/delta/codec"
	"ferry/manifest/place"
)

// kernel is a Linux kernel for x86 that holds vmlinux, packed at a level of LZ4.
func kernel(t testing.TB, sectors byte, vmlinux string, level byte) []byte {
	b := []byte(bytesOf(60, (int(max(sectors, 4))+1)*512+100))
	copy(b[kernelFlag:], "\x55\xaa")
	copy(b[kernelMagic:], "HdrS\x0f\x02")
	b[kernelSectors] = sectors
	var packed bytes.Buffer
	must(t, lz4.Encode(&packed, bytes.NewReader([]byte(vmlinux)), []byte{lz4.Version, level}))
	packed.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(vmlinux))))
	binary.LittleEndian.PutUint32(b[kernelPayload:], 100)
	binary.LittleEndian.PutUint32(b[kernelPayloadLen:], uint32(packed.Len()))
	b = append(b, packed.Bytes()...)
	return append(b, bytesOf(61, 3000)...)
}

func kernels(t testing.TB) (old, updated []byte) {
	vmlinux := bytesOf(62, 400<<10)
	return kernel(t, 4, vmlinux, 9), kernel(t, 39, splice(vmlinux, 63), 9)
}

func TestKernelUnpacked(t *testing.T) {
	old, updated := kernels(t)
	coded, kind := encodeWindow(updated, old, codec.Default)
	if kind != codec.Unpacked || len(coded) > 40<<10 {
		t.Fatalf("coded as %v in %d bytes, want as unpacked, in few", kind, len(coded))
	}
	back, err := decodeWindow(coded, old, kind, len(updated))
	if err != nil || !bytes.Equal(back, updated) {
		t.Fatalf("decoded otherwise: %v", err)
	}
	for n := range 40 {
		cut := coded[:len(coded)*n/40]
		if _, err := decodeWindow(cut, old, kind, len(updated)); !errors.Is(err, ErrInvalid) && !errors.Is(err, codec.ErrInvalid) {
			t.Fatalf("cut to %d bytes: %v", len(cut), err)
		}
	}
	other := bytes.Clone(old)
	other[len(other)/2] ^= 1
	if back, err := decodeWindow(coded, other, kind, len(updated)); err == nil && bytes.Equal(back, updated) {
		t.Error("another base gives the same")
	}
}

// TestKernelNotUnpacked codes otherwise what cannot be packed again.
func TestKernelNotUnpacked(t *testing.T) {
	old, updated := kernels(t)
	early := bytes.Clone(updated)
	early[kernelVersion] = 7
	beyond := bytes.Clone(updated)
	binary.LittleEndian.PutUint32(beyond[kernelPayloadLen:], 1<<31)
	foreign := bytes.Clone(updated)
	foreign[bytes.Index(foreign, []byte(lz4.Magic))+8] ^= 0x10 // a literal more or less in the first sequence
	for name, target := range map[string][]byte{"an old version": early, "a part beyond the end": beyond, "another encoder": foreign, "a header only": updated[:kernelHeader], "nothing": {}} {
		if coded := encodeUnpacked(nil, target, old, codec.Fast); len(coded) > 0 {
			t.Errorf("%s is unpacked", name)
		}
	}
	if coded := encodeUnpacked(nil, updated, early, codec.Fast); len(coded) > 0 {
		t.Error("a base that is no kernel is unpacked")
	}
}

func TestKernelInDelta(t *testing.T) {
	old, updated := kernels(t)
	base, target := files{"boot/vmlinuz-6.1.0-50": string(old)}, files{"boot/vmlinuz-6.1.0-56": string(updated), "copy": string(updated)}
	path, info := create(t, target, base)
	if info.PayloadSize > 40<<10 {
		t.Errorf("payload is %d bytes, want few", info.PayloadSize)
	}
	to := filepath.Join(t.TempDir(), "new")
	_, err := Apply(context.Background(), open(t, path), treeBase(t, base.write(t)), to, place.Options{})
	must(t, err)
	same(t, read(t, to), target)
}

func FuzzDecodeUnpacked(f *testing.F) {
	vmlinux := bytesOf(64, 30<<10)
	old, updated := kernel(f, 4, vmlinux, 9), kernel(f, 4, splice(vmlinux, 65), 3)
	f.Add(encodeUnpacked(nil, updated, old, codec.Fast), len(updated))
	f.Fuzz(func(t *testing.T, coded []byte, size int) {
		if size < 0 || size > 1<<20 {
			return
		}
		if back, err := decodeWindow(coded, old, codec.Unpacked, size); err == nil && len(back) != size {
			t.Fatalf("gives %d bytes, want %d", len(back), size)
		}
	})
}

// TestKernelGolden keeps what is decoded from changing.
func TestKernelGolden(t *testing.T) {
	vmlinux := bytesOf(64, 30<<10)
	old, updated := kernel(t, 4, vmlinux, 9), kernel(t, 4, splice(vmlinux, 65), 3)
	name := filepath.Join("testdata", "unpacked")
	if *rewrite {
		must(t, os.WriteFile(name, encodeUnpacked(nil, updated, old, codec.Default), 0o666))
	}
	golden, err := os.ReadFile(name)
	must(t, err)
	if back, err := decodeWindow(golden, old, codec.Unpacked, len(updated)); err != nil || !bytes.Equal(back, updated) {
		t.Errorf("the golden file is decoded otherwise: %v", err)
	}
}
