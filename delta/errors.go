package delta

import (
	"errors"
	"fmt"
)

var (
	// ErrInvalid says that a delta is malformed, damaged, or of an unknown version.
	ErrInvalid = errors.New("malformed delta")
	// ErrModified says that files of an installed tree were changed at the site.
	ErrModified = errors.New("files were changed at the site")
	// ErrBusy says that another command works on the same tree.
	ErrBusy = errors.New("another command works on this tree")
	// ErrNoUndo says that there is nothing to take back.
	ErrNoUndo = errors.New("nothing to undo")
	// ErrMandatory says that a target lacks files that its rules want.
	ErrMandatory = errors.New("mandatory files are missing")
	// ErrPolicy says that versions were cut under different policies.
	ErrPolicy = errors.New("was cut under another policy")
)

// BaseMismatchError says why a base is not the one that a delta starts from.
type BaseMismatchError struct {
	Base   string // the base that the delta wants
	Path   string // file that differs; empty when it is the whole
	Reason string
	// Have is the version that stands at Path instead, where versions were compared.
	Have string
}

func (e *BaseMismatchError) Error() string {
	if e.Have != "" {
		return fmt.Sprintf("base version mismatch: this delta starts from %s, %s is %s", e.Base, e.Path, e.Have)
	}
	if e.Path == "" {
		return fmt.Sprintf("the base is not %s: %s", e.Base, e.Reason)
	}
	return fmt.Sprintf("the base is not %s: %s: %s", e.Base, e.Path, e.Reason)
}
