package crdtstore

import "syncagent/crdtstore/record"

// Holds tells whether the write that the version names is here and ready: its block is stored, and with it all its
// entries that this agent may read. The path key is that of the version's slot.
func (s *Store) Holds(k record.Tag, v record.Version) (bool, error) {
	view := s.kv.View()
	defer view.Close()
	if _, there, err := view.Get(slotKey(k, v)); err != nil || !there {
		return false, err
	}
	_, waits, err := view.Get(unreadyKey(v.Write))
	return err == nil && !waits, err
}
