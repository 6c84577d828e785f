package agent

import (
	"bytes"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"sync"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore"
)

// IndexConfig is an index of the entries below a prefix: by a field of values that are JSON, or by a segment of paths.
type IndexConfig struct {
	Name    string `yaml:"name"`
	Prefix  string `yaml:"prefix"`
	JSON    string `yaml:"json"`    // field.field
	Segment int    `yaml:"segment"` // from 1 on
}

// keys gives the values under which an entry is found. Ok is false if its value cannot be looked into.
func (c IndexConfig) keys(i *crdtstore.Item) (keys []string, ok bool) {
	if c.JSON == "" {
		if segments := strings.Split(i.Path, "/"); c.Segment < len(segments) { // the first is empty
			keys = append(keys, segments[c.Segment])
		}
		return keys, true
	}
	d := json.NewDecoder(bytes.NewReader(i.Value))
	d.UseNumber()
	var doc any
	if err := d.Decode(&doc); err != nil {
		return nil, false
	}
	if _, err := d.Token(); err != io.EOF { //nolint:errorlint // the decoder gives it as it is
		return nil, false
	}
	for _, name := range strings.Split(c.JSON, ".") {
		object, _ := doc.(map[string]any)
		doc = object[name]
	}
	list, isList := doc.([]any)
	if !isList {
		list = []any{doc}
	}
	for _, v := range list {
		if text, ok := keyText(v); ok && !slices.Contains(keys, text) {
			keys = append(keys, text)
		}
	}
	return keys, true
}

// keyText is how a JSON value is written to look it up. Objects, null and lists in lists have no such form.
func keyText(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case json.Number:
		return v.String(), true
	case bool:
		if v {
			return "true", true
		}
		return "false", true
	}
	return "", false
}

// recentMoves is how many removals an index remembers, for readers whose snapshot is a little older than it.
const recentMoves = 4096

// index finds paths by what IndexConfig says. It follows the view a moment behind; what it costs in memory is in
// proportion to what it has.
type index struct {
	config IndexConfig

	mu      sync.Mutex
	keys    map[string][]string            // of each path
	paths   map[string]map[string]struct{} // of each key
	left    map[string]struct{}            // paths whose value cannot be looked into
	moves   []move                         // the last removals, in order
	dropped uint64                         // readers of a lower number may miss removals that it does not remember
	whole   bool                           // the state that was there at the beginning is in it
	reached uint64                         // snapshots up to this number are in it
	waits   map[chan struct{}]uint64
}

// move is a removal of a path from under a key, which snapshots before number still have there.
type move struct {
	number    uint64 // 0: not known yet
	key, path string
}

func newIndex(c IndexConfig) *index {
	x := &index{config: c, waits: map[chan struct{}]uint64{}}
	x.clear()
	return x
}

// clear begins anew. The caller has mu, or the only reference.
func (x *index) clear() {
	x.keys, x.paths, x.left = map[string][]string{}, map[string]map[string]struct{}{}, map[string]struct{}{}
	x.moves, x.whole = nil, false
}

// event takes what a watch tells.
func (x *index) event(e crdtstore.Event) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch e.Type {
	case crdtstore.EventReset:
		x.clear()
	case crdtstore.EventPut:
		keys, ok := x.config.keys(&e.Item)
		x.set(strings.Clone(e.Item.Path), keys)
		if !ok {
			x.left[e.Item.Path] = struct{}{}
		}
	case crdtstore.EventDelete:
		x.set(e.Item.Path, nil)
	}
	return nil
}

// set puts a path under keys and takes it from under its old ones.
func (x *index) set(path string, keys []string) {
	for _, k := range x.keys[path] {
		if slices.Contains(keys, k) {
			continue
		}
		delete(x.paths[k], path)
		if len(x.paths[k]) == 0 {
			delete(x.paths, k)
		}
		if x.whole {
			x.moves = append(x.moves, move{0, k, path})
		}
	}
	delete(x.left, path)
	delete(x.keys, path)
	if len(keys) == 0 {
		return
	}
	x.keys[path] = keys
	for _, k := range keys {
		if x.paths[k] == nil {
			x.paths[k] = map[string]struct{}{}
		}
		x.paths[k][path] = struct{}{}
	}
}

// reach notes that all up to a snapshot with this number was taken, and wakes who waits for it.
func (x *index) reach(number uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.reached = number
	if !x.whole {
		x.whole, x.dropped = true, number
	}
	for i := len(x.moves) - 1; i >= 0 && x.moves[i].number == 0; i-- {
		x.moves[i].number = number
	}
	if n := len(x.moves) - recentMoves; n > 0 {
		x.dropped = x.moves[n-1].number
		x.moves = append([]move(nil), x.moves[n:]...)
	}
	for c, n := range x.waits {
		if x.has(n) {
			delete(x.waits, c)
			close(c)
		}
	}
}

func (x *index) has(number uint64) bool { return x.whole && x.reached >= number }

// await gives a channel that is closed when the index has a snapshot.
func (x *index) await(number uint64) chan struct{} {
	c := make(chan struct{})
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.has(number) {
		close(c)
	} else {
		x.waits[c] = number
	}
	return c
}

func (x *index) forget(c chan struct{}) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.waits, c)
}

// find gives, ascending, all paths that a snapshot with this number may have under a key, and perhaps some others: what
// came after it. Ok is false if the snapshot is too old.
func (x *index) find(key string, number uint64) (paths []string, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for p := range x.paths[key] {
		paths = append(paths, p)
	}
	for _, m := range x.moves {
		if m.key == key && (m.number == 0 || m.number > number) {
			paths = append(paths, m.path)
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths), number >= x.dropped
}

func (x *index) status() *apiv1.Index {
	x.mu.Lock()
	defer x.mu.Unlock()
	return &apiv1.Index{Name: x.config.Name, Entries: int64(len(x.keys)), Values: int64(len(x.paths)), LeftOut: int64(len(x.left)), Ready: x.whole}
}
