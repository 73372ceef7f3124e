package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"ferry/cas"
	"ferry/chunking/disk"
	"ferry/delta"
	"ferry/export"
	"ferry/export/bundle"
	"ferry/manifest"
	"ferry/manifest/addon"
	"ferry/manifest/place"
	"ferry/manifest/profile"
	"ferry/manifest/tree"
)

// Exit codes. 2 is left to the Go runtime.
const (
	exitDone        = 0
	exitFailed      = 1
	exitSkipped     = 3
	exitDamaged     = 4
	exitNotFound    = 5
	exitBase        = 6
	exitLocked      = 7
	exitUsage       = 64
	exitInterrupted = 130
)

// exitHelp is the end of every command's help.
const exitHelp = `
Exit status: 0 done, 1 other failure, 3 finished but some inputs left out,
4 damaged or malformed data, 5 not found, 6 base does not fit, 7 locked,
64 wrong usage, 130 interrupted (the same command goes on where it stopped).`

// usageError is a mistake in the command line.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// errFindings says that a check or a verification found something; what, has
// been printed.
var errFindings = errors.New("problems were found")

// failure is what an error means to the user: the exit code, its stable name,
// and what to do.
type failure struct {
	exit int
	code string
	hint string
}

// classify decides what an error means.
func classify(ctx context.Context, err error) failure {
	var usage *usageError
	var base *delta.BaseMismatchError
	var unsafe *tree.UnsafePathError
	var space *place.SpaceError
	var lacking *bundle.MissingError
	switch {
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return failure{exitInterrupted, "interrupted", "the same command goes on where it stopped"}
	case errors.As(err, &usage), errors.Is(err, manifest.ErrRef), errors.Is(err, export.ErrMethod), errors.Is(err, profile.ErrRule), errors.Is(err, addon.ErrSelection):
		return failure{exitUsage, "usage", "ferry help shows the commands"}
	case errors.As(err, &base):
		return failure{exitBase, "base-mismatch", "the delta needs exactly the base version that it names: ferry delta inspect"}
	case errors.Is(err, delta.ErrModified):
		return failure{exitBase, "modified", "keep the changes and stay, or add --force to replace those files"}
	case errors.Is(err, delta.ErrPolicy):
		return failure{exitBase, "policy", "ferry inventory makes a new one"}
	case errors.Is(err, errFindings):
		return failure{exitDamaged, "findings", ""}
	case errors.Is(err, cas.ErrCorrupt):
		return failure{exitDamaged, "damaged", "ferry check --read-data tells what else is damaged"}
	case errors.Is(err, manifest.ErrInvalid), errors.Is(err, delta.ErrInvalid), errors.Is(err, tree.ErrFormat), errors.Is(err, bundle.ErrInvalid), disk.Malformed(err),
		errors.Is(err, place.ErrContent), errors.As(err, &unsafe):
		return failure{exitDamaged, "malformed", ""}
	case errors.As(err, &lacking):
		return failure{exitNotFound, "missing", "name folders that have it with --images and --packages, or add --allow-missing"}
	case errors.Is(err, delta.ErrMandatory):
		return failure{exitNotFound, "missing", "a profile, or --mandatory, says that the target must have it"}
	case errors.Is(err, cas.ErrNotFound):
		return failure{exitNotFound, "not-found", lookHint(err)}
	case errors.Is(err, fs.ErrNotExist):
		return failure{exitNotFound, "not-found", ""}
	case errors.Is(err, cas.ErrLocked), errors.Is(err, delta.ErrBusy):
		return failure{exitLocked, "locked", "wait until the other command has ended"}
	case errors.Is(err, manifest.ErrTaken):
		return failure{exitFailed, "version-exists", "give it another version, or add --replace"}
	case errors.Is(err, place.ErrExists):
		return failure{exitFailed, "exists", ""}
	case errors.As(err, &space), errors.Is(err, syscall.ENOSPC):
		return failure{exitFailed, "disk-full", "make room and run the same command again"}
	default:
		return failure{exitFailed, "failed", ""}
	}
}

// lookHint says where to look for what was not found.
func lookHint(err error) string {
	var missing *cas.NotFoundError
	if !errors.As(err, &missing) {
		return ""
	}
	switch missing.What {
	case "store":
		return "ferry add makes a store; --store or FERRY_STORE name another"
	case "path", "file":
		return "ferry ls shows the paths of a version"
	case "path in the image":
		return "ferry image info shows the volumes, ferry ls IMAGE '!' the files"
	case "disk image", "Linux system":
		return ""
	case "version":
		return "ferry list shows what the store has"
	default: // what a version is made of
		return "ferry check tells what the store lacks"
	}
}

// fail prints an error and returns the exit code.
func (a *app) fail(ctx context.Context, err error) int {
	f := classify(ctx, err)
	if f.exit == exitInterrupted {
		err = errors.New("interrupted")
	}
	if a.json {
		record := map[string]any{"type": "error", "code": f.code, "exit": f.exit, "error": err.Error()}
		if f.hint != "" {
			record["hint"] = f.hint
		}
		enc := json.NewEncoder(a.stderr)
		enc.SetEscapeHTML(false)
		enc.Encode(record)
		return f.exit
	}
	fmt.Fprintf(a.stderr, "ferry: error: %v\n", err)
	if f.hint != "" {
		fmt.Fprintf(a.stderr, "ferry: hint: %s\n", f.hint)
	}
	return f.exit
}
