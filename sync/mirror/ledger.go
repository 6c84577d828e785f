package mirror

import (
	"encoding/base64"
	"fmt"

	"syncagent/crdtstore/record"
)

// ledger is what the mirror knows of its own doing: the files it wrote, the directories it made, and the changes that
// triggers have not seen. It is the sum of the journal's lines.
type ledger struct {
	header header
	base   map[string]base
	dirs   map[string]struct{}
	due    map[string]map[string]mark // trigger -> path -> what it has to see
	seq    uint64                     // of the last line that brought changes
	staged []stagedFile               // written beside their targets; which of them were renamed is not known yet
	trial  []triedFile                // what changed and may have to go back
	live   bool                       // all of that is in place, and may be judged
	shown  string                     // the version that is shown, if the mirror swaps
	before string                     // the one that was shown before it
	swap   *swap                      // as far as the journal knows, on its way
}

// mark is a change that a trigger has not seen.
type mark struct {
	seq   uint64
	write string
}

func newLedger() *ledger {
	return &ledger{base: map[string]base{}, dirs: map[string]struct{}{}, due: map[string]map[string]mark{}}
}

// line is one line of the journal. Staged without Done in the same line is settled by the Done that comes next; what a
// crash left unsettled is named again, as far as it is in place, in the line that recovery writes.
type line struct {
	Mirror *header      `json:"mirror,omitempty"` // first line
	Made   []string     `json:"made,omitempty"`   // directories, before they are made
	Staged []stagedFile `json:"staged,omitempty"` // before the renames
	Done   *outcome     `json:"done,omitempty"`   // after renames and removals
	Ran    *ran         `json:"ran,omitempty"`    // a trigger has seen all up to here
	Swap   *swap        `json:"swap,omitempty"`   // before another version is shown, with what is staged in it
	Trial  []triedFile  `json:"trial,omitempty"`  // before anything of a change that may have to go back
	Live   bool         `json:"live,omitempty"`   // all of it is in place
	Back   bool         `json:"back,omitempty"`   // it has to go back
	Tried  bool         `json:"tried,omitempty"`  // it stays, or everything has gone back
	Base   []stagedFile `json:"base,omitempty"`   // rewritten journal: files
	Due    []dueMark    `json:"due,omitempty"`    // rewritten journal: changes that triggers have not seen
}

type header struct {
	Format int    `json:"format"`
	ID     string `json:"id"`
	Prefix string `json:"prefix"`
	Dir    string `json:"dir"`
}

// stagedFile is a file that is about to be put at a path. Temp is empty if the file was found in place.
type stagedFile struct {
	Path    string `json:"path"`
	Temp    string `json:"temp,omitempty"`
	Version string `json:"version"`
	Hash    string `json:"hash"`
	Size    int64  `json:"size"`
}

// triedFile is a path that a change on trial touches.
type triedFile struct {
	Path string      `json:"path"`
	Kept bool        `json:"kept,omitempty"` // there was something at the path, and it lies in prevDir
	Old  *stagedFile `json:"old,omitempty"`  // what the mirror knew of it
}

// swap says which version is shown from now on; an empty name: none, the files lie in the root.
type swap struct {
	Dir  string     `json:"dir,omitempty"`
	Was  string     `json:"was,omitempty"`
	Gone []goneFile `json:"gone,omitempty"` // what is not in it any more
}

// outcome settles the staged line before it, if there is one.
type outcome struct {
	Seq    uint64     `json:"seq"`
	Failed []string   `json:"failed,omitempty"` // staged, but not in place
	Gone   []goneFile `json:"gone,omitempty"`   // removed, or found missing
	Unmade []string   `json:"unmade,omitempty"` // directories that are no longer ours
	Due    []string   `json:"due,omitempty"`    // triggers that have to see all this
}

type goneFile struct {
	Path  string `json:"path"`
	Write string `json:"write,omitempty"`
}

type ran struct {
	Trigger string `json:"trigger"`
	Seq     uint64 `json:"seq"`
}

type dueMark struct {
	Trigger string `json:"trigger"`
	Path    string `json:"path"`
	Seq     uint64 `json:"seq"`
	Write   string `json:"write,omitempty"`
}

func stage(path, temp string, b base) stagedFile {
	return stagedFile{path, temp, b.version.String(), base64.RawURLEncoding.EncodeToString(b.hash[:]), b.size}
}

func (f stagedFile) base() (b base, err error) {
	if b.version, _, err = record.ParseVersion(f.Version); err != nil {
		return b, err
	}
	h, err := base64.RawURLEncoding.DecodeString(f.Hash)
	if err != nil || len(h) != len(b.hash) {
		return b, fmt.Errorf("bad hash of %s", f.Path)
	}
	copy(b.hash[:], h)
	b.size = f.Size
	return b, nil
}

// apply adds a line. It changes nothing if the line is bad.
func (l *ledger) apply(n line) error {
	bases := make(map[string]base, len(n.Staged)+len(n.Base))
	var old []stagedFile
	for _, f := range n.Trial {
		if f.Old != nil {
			old = append(old, *f.Old)
		}
	}
	for _, files := range [3][]stagedFile{n.Staged, n.Base, old} {
		for _, f := range files {
			b, err := f.base()
			if err != nil {
				return err
			}
			bases[f.Path] = b
		}
	}
	if n.Mirror != nil {
		l.header = *n.Mirror
	}
	for _, d := range n.Made {
		l.dirs[d] = struct{}{}
	}
	for _, f := range n.Base {
		l.base[f.Path] = bases[f.Path]
	}
	for _, d := range n.Due {
		l.mark(d.Trigger, d.Path, mark{d.Seq, d.Write})
		l.seq = max(l.seq, d.Seq)
	}
	if n.Staged != nil {
		l.staged = n.Staged
	}
	if n.Swap != nil {
		l.shown, l.before, l.swap = n.Swap.Dir, n.Swap.Was, n.Swap
	}
	if n.Done != nil {
		l.settle(*n.Done)
	}
	if n.Trial != nil {
		l.trial, l.live = n.Trial, false
	}
	if n.Live || n.Back {
		l.live = n.Live
	}
	if n.Tried {
		l.trial, l.live = nil, false
	}
	if n.Ran != nil {
		l.seen(n.Ran.Trigger, n.Ran.Seq)
	}
	return nil
}

// settle takes what was staged into the base, except what failed.
func (l *ledger) settle(o outcome) {
	l.seq = max(l.seq, o.Seq)
	failed := make(map[string]struct{}, len(o.Failed))
	for _, p := range o.Failed {
		failed[p] = struct{}{}
	}
	changed := make(map[string]mark)
	for _, f := range l.staged {
		if _, no := failed[f.Path]; no {
			continue
		}
		b, _ := f.base() // apply has looked at it
		l.base[f.Path] = b
		changed[f.Path] = mark{o.Seq, b.version.WriteString()}
	}
	l.staged, l.swap = nil, nil
	for _, g := range o.Gone {
		delete(l.base, g.Path)
		changed[g.Path] = mark{o.Seq, g.Write}
	}
	for _, d := range o.Unmade {
		delete(l.dirs, d)
	}
	for _, t := range o.Due {
		for p, m := range changed {
			l.mark(t, p, m)
		}
	}
}

func (l *ledger) mark(trigger, path string, m mark) {
	if l.due[trigger] == nil {
		l.due[trigger] = map[string]mark{}
	}
	l.due[trigger][path] = m
}

func (l *ledger) seen(trigger string, seq uint64) {
	for p, m := range l.due[trigger] {
		if m.seq <= seq {
			delete(l.due[trigger], p)
		}
	}
	if len(l.due[trigger]) == 0 {
		delete(l.due, trigger)
	}
}

// lines gives the shortest journal that sums up to the ledger.
func (l *ledger) lines(yield func(line) bool) {
	const most = 500 // of anything in one line
	if l.header.ID == "" || !yield(line{Mirror: &l.header}) {
		return
	}
	var n line
	flush := func(full bool) bool {
		if size := len(n.Made) + len(n.Base) + len(n.Due); size == 0 || full && size < most {
			return true
		}
		ok := yield(n)
		n = line{}
		return ok
	}
	for d := range l.dirs {
		if n.Made = append(n.Made, d); !flush(true) {
			return
		}
	}
	for p, b := range l.base {
		if n.Base = append(n.Base, stage(p, "", b)); !flush(true) {
			return
		}
	}
	for t, paths := range l.due {
		for p, m := range paths {
			if n.Due = append(n.Due, dueMark{t, p, m.seq, m.write}); !flush(true) {
				return
			}
		}
	}
	if !flush(false) {
		return
	}
	if l.swap == nil && l.shown != "" && !yield(line{Swap: &swap{Dir: l.shown, Was: l.before}, Done: &outcome{Seq: l.seq}}) {
		return
	}
	if l.swap != nil && !yield(line{Swap: l.swap}) {
		return
	}
	if len(l.staged) > 0 && !yield(line{Staged: l.staged}) {
		return
	}
	if len(l.trial) > 0 {
		yield(line{Trial: l.trial, Live: l.live})
	}
}
