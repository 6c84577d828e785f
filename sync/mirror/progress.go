package mirror

import "syncagent/crdtstore/record"

// Progress tells how far a mirror is with one path.
type Progress struct {
	// Version is what the file has; zero: the mirror keeps no file there.
	Version record.Version
	// Trial: the change that brought it may still be rolled back.
	Trial bool
	// Due names the triggers of which no run has seen the path's last change.
	Due []string
	// Fault says why the file cannot be as wanted; empty: nothing is known against it.
	Fault string
	// FaultOf is the version that has the fault; zero: whatever the version.
	FaultOf record.Version
}

// flaw is why a path is not as wanted, and in which version.
type flaw struct {
	reason  string
	version record.Version
}

// Progress tells how far the mirror is with a path of the source; false if it leaves the path alone. The fault names no
// other path and repeats no output, because who asks may not know them.
func (m *Mirror) Progress(path string) (p Progress, mirrored bool) {
	w := wanted{prefix: m.o.Prefix}
	rel := w.relative(path)
	if !record.Covers(m.o.Prefix, path) || record.Reserved(path) || rel == "" || !m.filter.takes(rel) {
		return p, false
	}
	m.mu.Lock()
	j, known, state := m.journal, m.faults[rel], m.status.State
	m.mu.Unlock()
	p.Fault, p.FaultOf = known.reason, known.version
	switch {
	case p.Fault != "":
	case refuse(rel) != "":
		p.Fault = refuse(rel)
	case state == StateHalted, state == StateFailing:
		p.Fault = "the mirror is " + string(state)
	}
	if j != nil {
		p.Version, p.Trial, p.Due = j.progress(rel)
	}
	return p, true
}

// progress gives what the ledger knows of a path, at one moment.
func (j *journal) progress(path string) (v record.Version, trial bool, due []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for name, paths := range j.ledger.due {
		if _, ok := paths[path]; ok {
			due = append(due, name)
		}
	}
	for _, t := range j.ledger.trial {
		trial = trial || t.Path == path
	}
	return j.ledger.base[path].version, trial, due
}
