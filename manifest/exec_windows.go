package manifest

import "bytes"

// sniffExec reports whether content says that a file is a program: Windows has
// no execute bits, so Linux programs and scripts are told by how they start.
func sniffExec(head []byte) bool {
	return bytes.HasPrefix(head, []byte("\x7fELF")) || bytes.HasPrefix(head, []byte("#!"))
}
