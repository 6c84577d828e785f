package mirror

import "time"

// localChange tells what somebody did to a file on this host since the mirror last agreed about it with the source.
func (i *item) localChange(preserve bool) bool {
	if !i.based {
		return i.have.kind == regular
	}
	if i.have.kind != regular || !i.have.same {
		return true
	}
	return preserve && i.wanted && i.base.version == i.want.version && i.have.mode != i.want.mode
}

// remoteChange tells that the source shows something else than the mirror last agreed about.
func (i *item) remoteChange() bool {
	if !i.wanted {
		return i.based
	}
	return !i.based || i.base.version != i.want.version
}

// decidePush is the policy of a mirror that pushes: a local change is put. What others changed in the source stays,
// unless drift says that it is undone; it is never taken over.
func decidePush(i item, drift Drift, preserve bool) action {
	switch {
	case i.have.kind == other:
		return keep // a link or a device is no content
	case i.have.kind == regular && i.localChange(preserve):
		return push
	case i.have.kind == regular: // unchanged here
		switch {
		case !i.remoteChange():
			return nothing
		case drift == DriftRestore:
			return push
		}
		return keep
	case !i.based:
		return nothing
	case i.remoteChange(): // somebody else's by now
		return forget
	}
	return drop
}

// decideBoth is the policy of a mirror that goes both ways.
func decideBoth(i item, preserve bool) action {
	local, remote := i.localChange(preserve), i.remoteChange()
	switch {
	case !local && !remote: // a mode that somebody set here stays
		return nothing
	case !local && i.wanted:
		return write
	case !local:
		return remove
	case i.have.kind == other && i.based && !remote:
		return write // a link or a device is no content: the file comes back
	case !remote && i.have.kind == regular:
		return push
	case !remote:
		return drop
	case i.have.kind == regular && i.wanted:
		return clash
	case i.have.kind == regular:
		return push // an edit beats a removal
	case i.wanted:
		return write // here too
	}
	return forget
}

// localWins tells which of two edits of a path is the later one.
func (i *item) localWins() bool {
	return i.have.wrote.After(time.UnixMilli(i.want.version.HLC.Milli()))
}
