package delta

import (
	"archive/zip"
	"cmp"
	"context"
	_ "embed"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"ferry/manifest/tree"
)

// Names of the entries with which a delta can be applied where no ferry is.
const (
	toolDir        = "tool/"
	shellName      = "apply.sh"
	powershellName = "apply.ps1"
)

//go:embed apply.sh
var shellScript string

//go:embed apply.ps1
var powershellScript string

// writeTools writes the scripts that apply the delta, and the programs that it is to
// carry for them.
func writeTools(ctx context.Context, zw *zip.Writer, tools []string) error {
	lines := strings.ReplaceAll(powershellScript, "\r\n", "\n")
	if err := writeEntry(zw, powershellName, zip.Deflate, []byte(strings.ReplaceAll(lines, "\n", "\r\n"))); err != nil {
		return err
	}
	w, err := createProgram(zw, shellName)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, strings.ReplaceAll(shellScript, "\r\n", "\n")); err != nil {
		return err
	}
	tools = slices.SortedFunc(slices.Values(tools), func(a, b string) int { return cmp.Compare(filepath.Base(a), filepath.Base(b)) })
	for i, path := range tools {
		name := filepath.Base(path)
		if i > 0 && strings.EqualFold(filepath.Base(tools[i-1]), name) {
			return fmt.Errorf("%s: a tool of this name is carried already", path)
		}
		if err := tree.CheckPath(name); err != nil {
			return err
		}
		if err := writeTool(ctx, zw, path, toolDir+name); err != nil {
			return err
		}
	}
	return nil
}

func writeTool(ctx context.Context, zw *zip.Writer, path, name string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return cmp.Or(err, fmt.Errorf("%s: not a file", path))
	}
	w, err := createProgram(zw, name)
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, f); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return ctx.Err()
}

// createProgram is createEntry for a file that may be executed once it is unpacked.
func createProgram(zw *zip.Writer, name string) (io.Writer, error) {
	//lint:ignore SA1019 Modified would add an extra field that says nothing
	h := &zip.FileHeader{Name: name, Method: zip.Deflate, ModifiedDate: 1<<5 | 1}
	h.SetMode(0o755)
	return zw.CreateHeader(h)
}
