package mirror

import (
	"errors"
	"fmt"
	"io/fs"

	"syncagent/crdtstore/fault"
)

// recover finishes what was staged when the process ended: everything was written and synced, so the renames that had
// not happened happen now, except in ModeBoth, where they are planned again. What became of the files since is seen by
// the first pass, as always.
func (s *session) recover() error {
	defer s.closeDirs()
	if now := s.j.swapping(); now != nil {
		if err := s.recoverSwap(now); err != nil {
			return fmt.Errorf("recover: %w", err)
		}
		return nil
	}
	left := s.j.unsettled()
	if len(left) == 0 {
		return nil
	}
	var o outcome
	var files []staged
	for _, f := range left {
		b, err := f.base()
		if err != nil {
			return fmt.Errorf("recover: %w", err)
		}
		if f.Temp != "" && s.m.o.Mode != ModeBoth { // there, somebody may have edited the file since
			err = s.tree.rename(f.Path, f.Temp)
		}
		gone := errors.Is(err, fs.ErrNotExist) || s.m.o.Mode == ModeBoth
		if gone {
			gone, err = s.lost(f.Path, b)
		}
		switch {
		case gone:
			if f.Temp != "" {
				_ = s.tree.discard(f.Path, f.Temp) // the sweep will find it
			}
			o.Failed = append(o.Failed, f.Path)
			continue
		case err == nil: // renamed now, or before
		case isGeneral(err):
			return fmt.Errorf("recover: %w", err)
		default:
			s.m.o.Log.Warn("a file could not be put in place after a crash", "dir", s.m.o.Dir, "path", f.Path, "error", err)
			_ = s.tree.discard(f.Path, f.Temp) // the sweep will find it
			o.Failed = append(o.Failed, f.Path)
			continue
		}
		files = append(files, staged{item: item{path: f.Path, want: want{version: b.version}}, base: b})
	}
	if err := s.tree.sync(); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	fault.Point("mirror.recovered")
	return s.settle(line{}, o, files)
}

// lost tells that a staged file is not in its place. If it is not beside it either, a power cut took its name there.
func (s *session) lost(path string, b base) (bool, error) {
	i := item{path: path, base: b, based: true}
	err := s.tree.observe(&i)
	return !i.have.same, err
}
