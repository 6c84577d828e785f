package mirror

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// maxProblems is how many paths Status names.
const maxProblems = 20

// verdict is nil if the directory equals the prefix.
func (s *session) verdict() error {
	var err error
	if len(s.held) > 0 {
		err = fmt.Errorf("mirror %s: %w: %d of %d", s.m.o.Dir, ErrHeld, len(s.held), s.j.files())
	}
	if n, first := s.problems(1); n > 0 {
		err = errors.Join(err, fmt.Errorf("mirror %s: %w: %d, first %s: %s", s.m.o.Dir, ErrIncomplete, n, first[0].Path,
			first[0].Reason))
	}
	return err
}

// problems counts the paths that cannot be mirrored and gives the first of them.
func (s *session) problems(most int) (n int, first []Problem) {
	reasons := make(map[string]string, len(s.failing)+len(s.want.refused)+len(s.want.shadowed))
	maps.Copy(reasons, s.failing)
	maps.Copy(reasons, s.want.refused)
	for p := range s.want.shadowed {
		reasons[p] = "there are paths below it: the directory has the name"
	}
	maps.Copy(reasons, s.drifted)
	for _, p := range slices.Sorted(maps.Keys(reasons)) {
		if len(first) < most {
			path := s.want.absolute(p)
			if p == "" {
				path = s.want.prefix
			}
			first = append(first, Problem{path, reasons[p]})
		}
	}
	return len(reasons), first
}

// report brings the status up to date after a pass.
func (s *session) report() {
	verdict := s.verdict()
	state, why := StateOK, ""
	if verdict != nil {
		state, why = StateIncomplete, verdict.Error()
	}
	if len(s.held) > 0 {
		state = StateHeld
	}
	if s.moved > 0 || len(s.young) > 0 {
		state = StateSyncing
	}
	_, problems := s.problems(maxProblems)
	changed := len(s.changes) > 0
	files := s.j.files()
	s.m.setHeld(s.held)
	s.m.setStatus(func(st *Status) {
		if why != "" && why != st.LastError {
			s.m.o.Log.Warn("mirror is not equal to its prefix", "dir", s.m.o.Dir, "state", string(state), "error", why)
		}
		st.State, st.LastError, st.Problems = state, why, problems
		st.Files, st.Pending = files, len(s.dirty)+len(s.failing)+len(s.held)
		st.LastCheck = time.Now()
		if changed {
			st.LastChange = st.LastCheck
		}
	})
}
