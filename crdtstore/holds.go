package crdtstore

import "syncagent/crdtstore/record"

// Holds tells whether the write that the version names is here, ready and on disk: its block is stored, and with it all
// its entries that this agent may read. The path key is that of the version's slot.
func (n *Snapshot) Holds(k record.Tag, v record.Version) (bool, error) {
	if _, there, err := n.view.Get(slotKey(k, v)); err != nil || !there {
		return false, err
	}
	if _, waits, err := n.view.Get(unreadyKey(v.Write)); err != nil || waits {
		return false, err
	}
	if !n.synced { // somebody counts on what is told
		if err := n.s.kv.Sync(); err != nil {
			return false, err
		}
		n.synced = true
	}
	return true, nil
}

// Shown gives the version that decides what a path shows, which may be that of a delete; zero if there is none. Visible
// is false if the path shows nothing.
func (n *Snapshot) Shown(path string) (v record.Version, visible bool, err error) {
	raw, ok, err := n.view.Get(shownKey(path))
	if err != nil || !ok {
		return v, false, err
	}
	shown, err := decodeShown(raw)
	if err != nil || !n.judge {
		return shown.version, shown.visible, err
	}
	item, err := n.item(path, shown, false)
	return item.Version, !item.Deleted, err
}
