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
	reasons := s.reasons()
	if first := s.problems(reasons, 1); len(first) > 0 {
		err = errors.Join(err, fmt.Errorf("mirror %s: %w: %d, first %s: %s", s.m.o.Dir, ErrIncomplete, len(reasons), first[0].Path,
			first[0].Reason))
	}
	return err
}

// reasons gives the paths that cannot be mirrored, each with the reason.
func (s *session) reasons() map[string]string {
	reasons := make(map[string]string, len(s.failing)+len(s.want.refused)+len(s.want.shadowed))
	maps.Copy(reasons, s.failing)
	maps.Copy(reasons, s.want.refused)
	for p := range s.want.shadowed {
		reasons[p] = "there are paths below it: the directory has the name"
	}
	maps.Copy(reasons, s.drifted)
	maps.Copy(reasons, s.unlinked)
	return reasons
}

// problems names the first of the paths that cannot be mirrored.
func (s *session) problems(reasons map[string]string, most int) (first []Problem) {
	for _, p := range slices.Sorted(maps.Keys(reasons)) {
		if len(first) < most {
			path := s.want.absolute(p)
			if p == "" {
				path = s.want.prefix
			}
			first = append(first, Problem{path, reasons[p]})
		}
	}
	return first
}

// faults are the reasons as Progress tells them. What is only reported, because somebody changed a file that had been put
// in place, is none.
func (s *session) faults(reasons map[string]string) map[string]flaw {
	faults := make(map[string]flaw, len(reasons)+len(s.held))
	for p, why := range reasons {
		if _, drifted := s.drifted[p]; !drifted {
			faults[p] = flaw{why, s.want.files[p].version}
		}
	}
	for p := range s.held {
		faults[p] = flaw{reason: "its removal is held, with too many others"}
	}
	return faults
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
	reasons := s.reasons()
	problems, faults := s.problems(reasons, maxProblems), s.faults(reasons)
	changed := len(s.changes) > 0
	files := s.j.files()
	s.m.setHeld(s.held)
	s.m.setStatus(func(st *Status) {
		if why != "" && why != st.LastError {
			s.m.o.Log.Warn("mirror is not equal to its prefix", "dir", s.m.o.Dir, "state", string(state), "error", why)
		}
		st.State, st.LastError, st.LastOutput, st.Problems = state, why, s.output(), problems
		s.m.faults = faults
		st.Files, st.Pending = files, len(s.dirty)+len(s.failing)+len(s.held)
		st.LastCheck = time.Now()
		if changed {
			st.LastChange = st.LastCheck
		}
	})
}
