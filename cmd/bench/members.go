//go:build unix

package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"ferry/chunking/deflate"
)

// members measures container files: what is reproduced of the encoders of this
// system, and a package that is a zip in a zip, in the store and as a delta.
func (b *bench) members() error {
	if err := b.build(); err != nil {
		return err
	}
	if err := b.nested(); err != nil {
		return err
	}
	if err := b.encoders(); err != nil {
		return err
	}
	return b.nestedStore()
}

// nestedParts are what a nested package holds, in three releases.
var nestedParts = []struct {
	name     string
	releases [3]string
}{
	{"@esbuild/win32-x64", [3]string{"0.28.0", "0.28.1", "0.28.2"}},
	{"lightningcss-win32-x64-msvc", [3]string{"1.30.0", "1.30.1", "1.30.2"}},
	{"typescript", [3]string{"5.8.3", "5.9.2", "5.9.3"}},
}

// nested makes three releases of a package: a zip that holds a zip of programs and
// text, some of which stand beside it, too; and the same unpacked.
func (b *bench) nested() error {
	for i := range 3 {
		err := once(b.path("nested", fmt.Sprint(i)), func(dir string) error {
			loose := filepath.Join(dir, "loose")
			for _, p := range nestedParts {
				if err := b.npm(p.name, p.releases[i], filepath.Join(loose, "artifacts", npmPackage{name: p.name}.folder())); err != nil {
					return err
				}
			}
			if err := run("cp", "-a", filepath.Join(loose, "artifacts", "lightningcss-win32-x64-msvc"), filepath.Join(loose, "bin")); err != nil {
				return err
			}
			packed := filepath.Join(dir, "packed")
			if err := run("cp", "-a", loose, packed); err != nil {
				return err
			}
			zip := func(in, out, what string) error {
				cmd := exec.Command("zip", "-q", "-6", "-r", out, what)
				cmd.Dir = in
				if out, err := cmd.CombinedOutput(); err != nil {
					return fmt.Errorf("zip: %w\n%s", err, out)
				}
				return os.RemoveAll(filepath.Join(in, what))
			}
			if err := zip(packed, "WindowsNodeArtifacts.zip", "artifacts"); err != nil {
				return err
			}
			if err := os.Mkdir(filepath.Join(dir, "package"), 0o777); err != nil {
				return err
			}
			return zip(dir, "package/package.zip", "packed")
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// encoders prints what is reproduced of each encoder.
func (b *bench) encoders() error {
	program := b.path("nested", "2", "loose", "artifacts", "esbuild-win32-x64", "esbuild.exe")
	script := b.path("nested", "2", "loose", "artifacts", "typescript", "lib", "typescript.js")
	fmt.Printf("\n### Deflate streams made again\n\n| encoder | input | bytes | made again | reconstruction | share | analysis MB/s | encoding MB/s | of zlib's speed |\n|---|---|---|---|---|---|---|---|---|\n")
	python := `import sys, zlib
c = zlib.compressobj(int(sys.argv[2]), zlib.DEFLATED, 31, int(sys.argv[3]))
sys.stdout.buffer.write(c.compress(open(sys.argv[1], "rb").read()) + c.flush())`
	node := `const z = require("zlib"), fs = require("fs"), b = z.gzipSync(fs.readFileSync(process.argv[1]), {level: +process.argv[2]})
fs.writeFileSync(process.argv[3], b)`
	for _, input := range []string{program, script} {
		zlib, err := zlibSpeeds(input)
		if err != nil {
			return err
		}
		for _, level := range []string{"1", "2", "3", "4", "5", "6", "7", "8", "9"} {
			out := b.path("stream.zip")
			folder, file := filepath.Split(input)
			for _, tool := range []struct {
				name   string
				args   []string
				levels string // those that it has, if not all
			}{
				{"gzip", []string{"gzip", "-nc" + level, input}, ""},
				{"pigz", []string{"pigz", "-nc" + level, input}, ""},
				{"Info-ZIP zip", []string{"zip", "-qj" + level, "-", input}, ""},
				{"Python zlib", []string{"python3", "-c", python, input, level, "8"}, ""},
				{"Python zlib memLevel 9", []string{"python3", "-c", python, input, level, "9"}, ""},
				{"Node.js", []string{"node", "-e", node, input, level, out}, ""},
				{"7-Zip zip", []string{"7z", "a", "-tzip", "-bso0", "-mx=" + level, out, input}, ""},
				{"libdeflate-gzip", []string{"libdeflate-gzip", "-nc" + level, input}, ""},
				{"advzip", []string{"advzip", "-qa", "-" + level, out, input}, "1234"},
				{"jar", []string{"jar", "cfM", out, "-C", folder, file}, "6"},
				{"zopfli", []string{"zopfli", "-c", input}, "9"},
			} {
				if !have(tool.args[0]) || tool.levels != "" && !strings.Contains(tool.levels, level) {
					continue
				}
				os.Remove(out)
				made, err := exec.Command(tool.args[0], tool.args[1:]...).Output()
				if err != nil {
					return fmt.Errorf("%s: %w", tool.name, err)
				}
				if len(made) > 0 {
					if err := os.WriteFile(out, made, 0o666); err != nil {
						return err
					}
				}
				if err := encoder(tool.name+" -"+level, file, out, zlib[level]); err != nil {
					return err
				}
			}
			if err := goGzip(input, out, level); err != nil {
				return err
			}
			if err := encoder("Go compress/flate -"+level, file, out, zlib[level]); err != nil {
				return err
			}
		}
	}
	return os.Remove(b.path("stream.zip"))
}

// goGzip packs a file as Go's standard library does.
func goGzip(input, out, level string) error {
	data, err := os.ReadFile(input)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(level)
	if err != nil {
		return err
	}
	var packed bytes.Buffer
	w, err := gzip.NewWriterLevel(&packed, n)
	if err != nil {
		return err
	}
	if _, err := w.Write(data); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return os.WriteFile(out, packed.Bytes(), 0o666)
}

// zlibSpeeds returns how fast zlib itself compresses a file at each level, in MB/s of CPU
// time: the best of three runs.
func zlibSpeeds(input string) (map[string]float64, error) {
	python := `import sys, time, zlib
data = open(sys.argv[1], "rb").read()
for level in range(1, 10):
    best = 1e9
    for _ in range(runs):
        begun = time.process_time()
        c = zlib.compressobj(level, zlib.DEFLATED, -15, 8)
        c.compress(data)
        c.flush()
        best = min(best, time.process_time() - begun)
    print(level, len(data) / 1e6 / best)`
	out, err := exec.Command("python3", "-c", strings.Replace(python, "runs", strconv.Itoa(encoderRuns), 1), input).Output()
	if err != nil {
		return nil, fmt.Errorf("python3: %w", err)
	}
	speeds := map[string]float64{}
	for line := range strings.Lines(string(out)) {
		level, speed, _ := strings.Cut(strings.TrimSpace(line), " ")
		if speeds[level], err = strconv.ParseFloat(speed, 64); err != nil {
			return nil, err
		}
	}
	return speeds, nil
}

// encoderRuns is how often each speed is measured; the best counts.
const encoderRuns = 3

// encoder prints the line of one archive of one member, with our speed as a share of
// zlib's.
func encoder(name, input, file string, zlib float64) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	at, size, ok := firstStream(data)
	if !ok {
		return fmt.Errorf("%s: no deflate stream", name)
	}
	stream := data[at : at+size]
	var plain, again bytes.Buffer
	r, err := deflate.Decode(&plain, bytes.NewReader(stream), nil)
	if err != nil {
		fmt.Printf("| %s | %s | %d | no: %v | | | | | |\n", name, input, len(stream), err)
		return nil
	}
	fastest := func(run func() error) (float64, error) {
		best := time.Duration(math.MaxInt64)
		for range encoderRuns {
			begun := time.Now()
			if err := run(); err != nil {
				return 0, err
			}
			best = min(best, time.Since(begun))
		}
		return float64(r.Plain) / 1e6 / best.Seconds(), nil
	}
	analysis, err := fastest(func() error {
		_, err := deflate.Decode(io.Discard, bytes.NewReader(stream), nil)
		return err
	})
	if err != nil {
		return err
	}
	encoding, err := fastest(func() error {
		again.Reset()
		return deflate.Encode(&again, bytes.NewReader(plain.Bytes()), r.Reconstruction)
	})
	if err != nil {
		return err
	}
	if !bytes.Equal(again.Bytes(), stream[:r.Coded]) {
		return fmt.Errorf("%s: made other bytes", name)
	}
	fmt.Printf("| %s | %s | %d | yes | %d | %.3f %% | %.1f | %.1f | %.2f / %.2f |\n", name, input, r.Coded, len(r.Reconstruction), 100*float64(len(r.Reconstruction))/float64(r.Coded), analysis, encoding, analysis/zlib, encoding/zlib)
	return nil
}

// firstStream returns where the deflate stream of a gzip or zip of one member is.
func firstStream(data []byte) (at, size int, ok bool) {
	switch {
	case len(data) > 30 && bytes.HasPrefix(data, []byte("PK\x03\x04")):
		at = 30 + int(data[26]) + int(data[27])<<8 + int(data[28]) + int(data[29])<<8
	case len(data) > 18 && data[0] == 0x1f && data[1] == 0x8b:
		at = 10
		if data[3]&8 != 0 {
			at += bytes.IndexByte(data[at:], 0) + 1
		}
	default:
		return 0, 0, false
	}
	return at, len(data) - at, at < len(data)
}

// nestedStore measures stores of three releases of the nested package, and the
// delta between two.
func (b *bench) nestedStore() error {
	releases := []string{b.path("nested", "0", "package"), b.path("nested", "1", "package"), b.path("nested", "2", "package")}
	plain := int64(0)
	for _, dir := range releases {
		plain += size(dir)
	}
	fmt.Printf("\n### Three releases of a zip in a zip, %d bytes\n\n| store | wall s | CPU s | peak MiB | bytes |\n|---|---|---|---|---|\n", plain)
	best, err := b.peerStores(releases)
	if err != nil {
		return err
	}
	stored, err := b.addAll(releases)
	if err != nil {
		return err
	}
	fmt.Printf("\nferry ÷ best peer: %.3f\n", float64(stored)/float64(best))
	if _, err := b.optimize(); err != nil {
		return err
	}
	b.remove("out4")()
	sum, err := b.command(b.archive("export", archived(2), "-o", b.path("out4"))...)
	if err != nil {
		return err
	}
	storeRow("ferry export", sum, size(b.path("out4")))
	if err := run("diff", "-r", releases[2], b.path("out4")); err != nil {
		return err
	}
	packing := b.path("packing.zip")
	os.Remove(packing)
	if sum, err = b.command("zip", "-q", "-6", "-r", packing, b.path("nested", "2", "loose")); err != nil {
		return err
	}
	storeRow("zip -6 of the same unpacked, once", sum, size(packing))

	fmt.Printf("\n### Delta between two releases of it\n\n| of | create s | apply s | bytes |\n|---|---|---|---|\n")
	for _, what := range []string{"loose", "package"} {
		b.remove("d.ferry", "applied")()
		old, new := b.path("nested", "1", what), b.path("nested", "2", what)
		made, err := b.command(b.ferry, "delta", "create", old, new, "-o", b.path("d.ferry"))
		if err != nil {
			return err
		}
		applied, err := b.command(b.ferry, "delta", "apply", b.path("d.ferry"), "--base", old, "--to", b.path("applied"))
		if err != nil {
			return err
		}
		if err := run("diff", "-r", new, b.path("applied")); err != nil {
			return err
		}
		fmt.Printf("| ferry, %s | %.2f | %.2f | %d |\n", what, made.wall.Seconds(), applied.wall.Seconds(), size(b.path("d.ferry")))
	}
	old, new := filepath.Join(releases[1], "package.zip"), filepath.Join(releases[2], "package.zip")
	for _, peer := range peers {
		if !have(peer.tool) {
			continue
		}
		b.remove("patch", "patched")()
		made, err := b.timed(10*time.Minute, peer.create(old, new, b.path("patch"))...)
		if err != nil {
			return err
		}
		applied, err := b.command(peer.apply(old, b.path("patch"), b.path("patched"))...)
		if err != nil {
			return err
		}
		fmt.Printf("| %s, package | %.2f | %.2f | %d |\n", peer.name, made.wall.Seconds(), applied.wall.Seconds(), size(b.path("patch")))
	}
	return nil
}
