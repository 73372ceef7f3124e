package tree

import (
	"bytes"
	"io"
	"os"

	"ferry/cas/durable"
)

// spoolInMemory is the size in bytes up to which a copy is kept in memory.
const spoolInMemory = 4 << 20

// Spool copies what r gives, which should be about size bytes long, so that it
// can be read anywhere: into memory when small, else into a temporary file that
// goes when the Content is closed.
func Spool(r io.Reader, size int64) (Content, error) {
	if size <= spoolInMemory {
		data, err := io.ReadAll(io.LimitReader(r, spoolInMemory+1))
		if err != nil {
			return nil, err
		}
		if len(data) <= spoolInMemory {
			return &section{bytes.NewReader(data), int64(len(data))}, nil
		}
		r = io.MultiReader(bytes.NewReader(data), r)
	}
	f, err := os.CreateTemp("", durable.TempPattern)
	if err != nil {
		return nil, err
	}
	n, err := io.Copy(f, r)
	if err != nil {
		f.Close()
		os.Remove(f.Name())
		return nil, err
	}
	return &spooled{f, n}, nil
}

// spooled is a temporary file.
type spooled struct {
	*os.File
	size int64
}

func (s *spooled) Size() int64 { return s.size }

func (s *spooled) Close() error {
	err := s.File.Close()
	os.Remove(s.Name())
	return err
}
