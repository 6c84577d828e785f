//go:build faults

package crdtstore

import "syncagent/crdtstore/fault"

// plantedCommit commits a part of the turn ahead of the rest.
func (t *turn) plantedCommit() error {
	part := newRows()
	for k, v := range t.rows.m {
		if fault.Planted("heads-apart") && k[0] == 'h' || fault.Planted("half-commit") && k[0] == 's' && len(part.m) == 0 {
			part.m[k] = v
		}
	}
	if part.empty() {
		return nil
	}
	return t.s.kv.Commit(part)
}
