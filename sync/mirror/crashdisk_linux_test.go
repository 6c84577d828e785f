package mirror

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// crashDisk is a disk in memory that can lose power at any operation, and then forgets as much as it may: contents that
// were not synced and names of directories that were not synced, in any combination that keeps the order of the changes
// within a directory.
type crashDisk struct {
	top   *node
	clock atomic.Int64 // of the times of files: every operation is one tick, an hour ago
	nodes uint64
	log   []*names                   // all changes of names since it was made
	base  map[*node]map[string]*node // the names in each directory then

	reads  int                 // files opened for reading
	ops    atomic.Int64        // files are synced by several goroutines
	meddle func(*node, string) // called before a name in a directory is given to another file
	stopAt int64               // the operation at which the power fails; 0: never
}

var errPower = errors.New("the power failed")

// node is a file, a directory or a symbolic link.
type node struct {
	number         uint64
	kind           fs.FileMode // type bits
	mode           fs.FileMode // permission bits
	owner, group   int
	names          map[string]*node
	target         string
	data           []byte
	changed, wrote int64
	synced         *node // a file as it was when it was last synced
}

// names is one change of names, which happens as a whole or not.
type names struct {
	edits   []nameEdit
	durable bool
}

type nameEdit struct {
	dir  *node
	name string
	to   *node // nil: the name goes
}

func newCrashDisk() *crashDisk {
	d := &crashDisk{base: map[*node]map[string]*node{}}
	d.clock.Store(time.Now().Add(-time.Hour).UnixNano())
	d.top = d.make(fs.ModeDir, 0o755)
	return d
}

func (d *crashDisk) make(kind, mode fs.FileMode) *node {
	d.nodes++
	n := &node{number: d.nodes, kind: kind, mode: mode, changed: d.clock.Load(), wrote: d.clock.Load()}
	if kind == fs.ModeDir {
		n.names = map[string]*node{}
	}
	return n
}

// step counts an operation that changes something.
func (d *crashDisk) step() error {
	d.ops.Add(1)
	d.clock.Add(1)
	return d.power()
}

func (d *crashDisk) power() error {
	if d.stopAt > 0 && d.ops.Load() >= d.stopAt {
		return errPower
	}
	return nil
}

// about calls meddle.
func (d *crashDisk) about(dir *node, name string) {
	if d.meddle != nil {
		d.meddle(dir, name)
	}
}

// change makes a change of names.
func (d *crashDisk) change(edits ...nameEdit) error {
	if err := d.step(); err != nil {
		return err
	}
	d.log = append(d.log, &names{edits: edits})
	for _, e := range edits {
		if e.to == nil {
			delete(e.dir.names, e.name)
		} else {
			e.dir.names[e.name] = e.to
			e.to.changed = d.clock.Load()
		}
		e.dir.wrote = d.clock.Load()
	}
	return nil
}

// sync makes the names in a directory durable, and so what came before in directories that a rename ties to it.
func (d *crashDisk) sync(dir *node) {
	tied := map[*node]bool{dir: true}
	for i := len(d.log) - 1; i >= 0; i-- {
		n := d.log[i]
		for _, e := range n.edits {
			n.durable = n.durable || tied[e.dir]
		}
		if n.durable {
			for _, e := range n.edits {
				tied[e.dir] = true
			}
		}
	}
}

// loss says how much is forgotten when the power fails.
type loss func() bool

func nothingIsLost() bool { return false }
func allIsLost() bool     { return true }

// after gives the disk as it may be found after a power cut.
func (d *crashDisk) after(lost loss) *crashDisk {
	out := newCrashDisk()
	out.clock.Store(d.clock.Load())
	copies := map[*node]*node{d.top: out.top}
	copyOf := func(n *node) *node {
		if n == nil {
			return nil
		}
		if c, ok := copies[n]; ok {
			return c
		}
		c := out.make(n.kind, n.mode)
		from := n
		if n.kind == 0 && lost() {
			from = n.synced
		}
		c.mode, c.owner, c.group, c.target = from.mode, from.owner, from.group, n.target
		c.data, c.changed, c.wrote = bytes.Clone(from.data), n.changed, n.wrote
		if n.kind == 0 {
			if from == n && lost() { // torn: of what was synced stays what nobody wrote over
				kept := 0
				for kept < min(len(n.data), len(n.synced.data)) && n.data[kept] == n.synced.data[kept] {
					kept++
				}
				c.data = c.data[:kept+(len(c.data)-kept)/2]
			}
			c.keep()
		}
		copies[n] = c
		return c
	}
	for dir, names := range d.base {
		for name, n := range names {
			copyOf(dir).names[name] = copyOf(n)
		}
	}
	behind := map[*node]bool{} // directories of which a change is forgotten: so are all later ones
	for _, n := range d.log {
		forget := !n.durable && lost()
		for _, e := range n.edits {
			forget = forget || behind[e.dir]
		}
		for _, e := range n.edits {
			switch {
			case forget:
				behind[e.dir] = true
			case e.to == nil:
				delete(copyOf(e.dir).names, e.name)
			default:
				copyOf(e.dir).names[e.name] = copyOf(e.to)
			}
		}
	}
	for _, c := range copies {
		if c.names != nil {
			out.base[c] = maps.Clone(c.names)
		}
	}
	return out
}

func (n *node) keep() {
	c := *n
	c.data, c.synced = bytes.Clone(n.data), nil
	n.synced = &c
}

// find follows a path from the top.
func (d *crashDisk) find(p string) (*node, error) {
	n := d.top
	for name := range strings.SplitSeq(strings.Trim(path.Clean(p), "/"), "/") {
		if name == "" {
			continue
		}
		if n = n.names[name]; n == nil {
			return nil, &fs.PathError{Op: "open", Path: p, Err: fs.ErrNotExist}
		}
	}
	return n, nil
}

func (d *crashDisk) Lstat(p string) (fs.FileInfo, error) {
	n, err := d.find(p)
	if err = errors.Join(d.power(), err); err != nil {
		return nil, err
	}
	return nodeInfo{path.Base(p), n}, nil
}

func (d *crashDisk) MkdirAll(p string, mode fs.FileMode) error {
	if _, err := d.find(p); err == nil {
		return d.power()
	}
	if err := d.MkdirAll(path.Dir(p), mode); err != nil {
		return err
	}
	up, err := d.Folder(path.Dir(p))
	if err != nil {
		return err
	}
	return up.Mkdir(path.Base(p), mode)
}

func (d *crashDisk) Folder(p string) (folder, error) {
	n, err := d.find(p)
	if err = errors.Join(d.power(), err); err != nil {
		return nil, err
	}
	if n.kind != fs.ModeDir {
		return nil, syscall.ENOTDIR
	}
	return crashFolder{d, n}, nil
}

// random gives a loss that forgets one of two things.
func random(r *rand.Rand) loss { return func() bool { return r.IntN(2) == 0 } }

// nodeInfo describes a node.
type nodeInfo struct {
	name string
	*node
}

func (i nodeInfo) Name() string               { return i.name }
func (i nodeInfo) Size() int64                { return int64(len(i.data)) }
func (i nodeInfo) Mode() fs.FileMode          { return i.kind | i.mode }
func (i nodeInfo) Type() fs.FileMode          { return i.kind }
func (i nodeInfo) Info() (fs.FileInfo, error) { return i, nil }
func (i nodeInfo) ModTime() time.Time         { return time.Unix(0, i.wrote) }
func (i nodeInfo) IsDir() bool                { return i.kind == fs.ModeDir }

func (i nodeInfo) Sys() any {
	return &syscall.Stat_t{
		Dev: 1, Ino: i.number, Uid: uint32(i.owner), Gid: uint32(i.group), Size: i.Size(),
		Ctim: syscall.NsecToTimespec(i.changed), Mtim: syscall.NsecToTimespec(i.wrote),
	}
}
