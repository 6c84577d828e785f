package mirror

import (
	"crypto/sha256"
	"errors"
	"io"
)

// steady reads a regular file that must look as before, from its opening to its end: else it fails with errSwapped. So
// a value of any size is one that the file had as a whole.
type steady struct {
	f      file
	before print
	read   int64
	failed error // what it failed with, but for the end
}

func (t *tree) steady(rel string, before print) (*steady, error) {
	d, err := t.open(parent(rel))
	if err != nil {
		return nil, err
	}
	info, err := d.Lstat(name(rel))
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || printOf(info) != before {
		return nil, errSwapped
	}
	f, err := d.Open(name(rel), readFlags, 0)
	if err != nil {
		return nil, err
	}
	return &steady{f: f, before: before}, nil
}

func (s *steady) Read(p []byte) (int, error) {
	n, err := s.f.Read(p)
	s.read += int64(n)
	if s.read > s.before.size {
		err = errSwapped
	} else if errors.Is(err, io.EOF) {
		if info, statErr := s.f.Stat(); statErr != nil {
			err = statErr
		} else if printOf(info) != s.before || s.read != s.before.size {
			err = errSwapped
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		s.failed = err
		return 0, err
	}
	return n, err
}

func (s *steady) Close() error { return s.f.Close() }

// read gives a regular file's content if it still looks like before, and does afterwards.
func (t *tree) read(rel string, before print) ([]byte, error) {
	f, err := t.steady(rel, before)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	return io.ReadAll(f)
}

// sum is read for a file of any size, of which only the hash is wanted.
func (t *tree) sum(rel string, before print) (b base, err error) {
	f, err := t.steady(rel, before)
	if err != nil {
		return b, err
	}
	defer f.Close() //nolint:errcheck // read only
	sum := sha256.New()
	b.size, err = io.Copy(sum, f)
	b.hash = hash(sum.Sum(nil))
	return b, err
}
