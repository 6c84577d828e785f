package mirror

import (
	"crypto/sha256"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"time"

	"syncagent/crdtstore/record"
)

// hash is the SHA-256 of a file's content.
type hash [sha256.Size]byte

// base is what the mirror last put at a path, or found there equal to what it would have put.
type base struct {
	version record.Version
	hash    hash
	size    int64
}

// kind of what is on disk at a path. Symbolic links are not followed.
type kind uint8

const (
	absent kind = iota
	regular
	directory
	other
)

// have is what is on disk at a path.
type have struct {
	kind  kind
	size  int64
	same  bool // a regular file with the content that base names
	attrs bool // mode and owner are as wanted
	mode  fs.FileMode
	wrote time.Time // modification time
	print print
}

// item is a path with all that is known about it.
type item struct {
	path    string // relative
	want    want
	wanted  bool
	have    have
	base    base
	based   bool
	ignored bool           // the mirror's patterns leave it out
	changed record.Version // what made us look, zero if unknown
}

// action is what is to be done about a path.
type action uint8

const (
	nothing action = iota
	write          // put the wanted content in place of whatever is there
	remove         // the mirror wrote it and it is no longer wanted
	forget         // as remove, but there is nothing of ours on disk any more
	keep           // the change stays, on whatever side it was made
	push           // the local file becomes the source's
	drop           // it is gone here: delete it in the source
	clash          // both sides have an edit
)

// decide is the whole policy of a mirror that pulls: what is wanted is put there, over whatever is at its name (a local
// change of ours stays if drift says so); what is not wanted goes if and only if the mirror wrote it. A directory is never
// removed for the sake of a file, or taken for one of ours.
func decide(i item, drift Drift) action {
	switch {
	case i.wanted && drift != DriftRestore && i.drifted():
		return keep
	case i.wanted:
		if i.based && i.base.version == i.want.version && i.have.kind == regular && i.have.same && i.have.attrs {
			return nothing
		}
		return write
	case !i.based:
		return nothing
	case i.ignored, i.have.kind == absent, i.have.kind == directory:
		return forget
	default:
		return remove
	}
}

// drifted tells that what we put there was changed or removed by somebody else, and that nothing newer is wanted.
func (i *item) drifted() bool {
	return i.based && i.base.version == i.want.version && !(i.have.kind == regular && i.have.same)
}

// plan is what one pass has to do.
type plan struct {
	clear  []item // to remove first: they are where directories must be, or in directories that must go
	write  []item // in the order of their versions, so that those of one write are together
	remove []item // to remove last
	forget []item
	held   []item // would be removed, but that is too many at once
	kept   []item // changed on one side, and left like that
	push   []item
	drop   []item
	clash  []item
	fine   []string
	none   []string // neither wanted nor ours: directories that were made for them may be idle
}

// minHeld is how many files may always be removed at once.
const minHeld = 20

// rules are what a plan has to keep to.
type rules struct {
	mode      Mode
	drift     Drift
	preserve  bool
	owned     int     // files that the mirror wrote
	share     float64 // of them that may be removed at once
	confirmed map[string]struct{}
}

// makePlan decides about items.
func makePlan(items iter.Seq[item], r rules) plan {
	var p plan
	var doomed []item
	for i := range items {
		switch r.decide(i) {
		case nothing:
			p.fine = append(p.fine, i.path)
		case write:
			p.write = append(p.write, i)
		case remove:
			doomed = append(doomed, i)
		case forget:
			p.forget = append(p.forget, i)
		case keep:
			p.kept = append(p.kept, i)
		case push:
			p.push = append(p.push, i)
		case drop:
			p.drop = append(p.drop, i)
		case clash:
			p.clash = append(p.clash, i)
		}
	}
	var heldDrops []item
	p.drop, heldDrops = r.brake(p.drop)
	slices.SortFunc(p.write, func(a, b item) int {
		if c := a.want.version.Compare(b.want.version); c != 0 {
			return c
		}
		return strings.Compare(a.path, b.path)
	})
	doomed, p.held = r.brake(doomed)
	p.held = append(p.held, heldDrops...)
	files, dirs := map[string]struct{}{}, map[string]struct{}{}
	for _, i := range p.write {
		files[i.path] = struct{}{}
		for d := parent(i.path); d != "."; d = parent(d) {
			dirs[d] = struct{}{}
		}
	}
	for _, i := range doomed {
		_, blocks := dirs[i.path]
		for d := parent(i.path); d != "." && !blocks; d = parent(d) {
			_, blocks = files[d]
		}
		if blocks {
			p.clear = append(p.clear, i)
		} else {
			p.remove = append(p.remove, i)
		}
	}
	return p
}

func (r *rules) decide(i item) action {
	switch r.mode {
	case ModePush:
		return decidePush(i, r.drift, r.preserve)
	case ModeBoth:
		return decideBoth(i, r.preserve)
	}
	return decide(i, r.drift)
}

// brake gives the removals that may happen and those that are held: all that nobody agreed to, if they are too many.
func (r *rules) brake(doomed []item) (free, held []item) {
	for _, i := range doomed {
		if _, ok := r.confirmed[i.path]; ok {
			free = append(free, i)
		} else {
			held = append(held, i)
		}
	}
	if len(held) > minHeld && float64(len(held)) > r.share*float64(r.owned) {
		return free, held
	}
	return doomed, nil
}

// chunks cuts the writes into pieces of at least size items (the last may have fewer), never within one write of the
// store, which has at most record.MaxSlots.
func chunks(items []item, size int) iter.Seq[[]item] {
	return func(yield func([]item) bool) {
		for len(items) > 0 {
			n := min(size, len(items))
			for n < len(items) && items[n].want.version.Write == items[n-1].want.version.Write {
				n++
			}
			if !yield(items[:n]) {
				return
			}
			items = items[n:]
		}
	}
}
