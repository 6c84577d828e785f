package mirror

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"
)

// retiree is a version that was shown until then.
type retiree struct {
	dir   string
	since time.Time
}

// retire notes since when a version is not shown any more; its own time says it after a restart.
func (s *session) retire(dir string) {
	if dir == "" {
		return
	}
	now := time.Now()
	d, err := openDir(s.root.r, dir)
	if err == nil {
		err = errors.Join(d.Touch(now), d.Close())
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.m.o.Log.Warn("the time of a version cannot be set", "dir", s.m.o.Dir, "version", dir, "error", err)
	}
	s.retired = append(s.retired, retiree{dir, now})
}

// findRetired looks for versions that are not shown.
func (s *session) findRetired() error {
	entries, err := s.root.r.Entries()
	if err != nil {
		return fmt.Errorf("look for old versions: %w", err)
	}
	for _, e := range entries {
		if !isVersion(e.Name()) || e.Name() == s.j.shown() {
			continue
		}
		if info, err := e.Info(); err == nil {
			s.retired = append(s.retired, retiree{e.Name(), info.ModTime()})
		}
	}
	slices.SortFunc(s.retired, func(a, b retiree) int { return a.since.Compare(b.since) })
	return nil
}

// dropRetired removes the versions whose time is over.
func (s *session) dropRetired() {
	for len(s.retired) > 0 && time.Since(s.retired[0].since) > s.m.grace {
		dir := s.retired[0].dir
		s.retired = s.retired[1:]
		if dir == s.j.shown() {
			continue // it came back
		}
		if err := s.top.clearDir(dir); err != nil {
			s.m.o.Log.Warn("an old version cannot be removed", "dir", s.m.o.Dir, "version", dir, "error", err)
		}
	}
}

func isVersion(entry string) bool {
	digits, ok := strings.CutPrefix(entry, versionStart)
	_, err := hex.DecodeString(digits)
	return ok && err == nil && len(digits) == 16
}
