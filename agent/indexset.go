package agent

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
)

const (
	indexPatience = 5 * time.Second // a list waits so long for an index that is being built
	indexRetry    = 5 * time.Second // after an index could not read the store
)

// indexSet keeps the indexes of the configuration in step with the store. They are this host's own: nothing of them is
// stored or replicated, and each is built anew at the start, beside everything else.
type indexSet struct {
	store store
	log   *slog.Logger
	bell  chan struct{} // the configuration changed

	mu    sync.Mutex
	lists []IndexConfig
	now   map[string]*index
}

func newIndexSet(lists []IndexConfig, s store, log *slog.Logger) *indexSet {
	set := &indexSet{store: s, log: log, bell: make(chan struct{}, 1), now: map[string]*index{}}
	set.replace(lists)
	return set
}

// replace puts another configuration in force. Indexes that it leaves as they are go on.
func (s *indexSet) replace(lists []IndexConfig) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lists = lists
	old := s.now
	s.now = map[string]*index{}
	for _, c := range lists {
		if x := old[c.Name]; x != nil && x.config == c {
			s.now[c.Name] = x
		} else {
			s.now[c.Name] = newIndex(c)
		}
	}
	select {
	case s.bell <- struct{}{}:
	default:
	}
}

func (s *indexSet) current() map[string]*index {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// run fills and follows until ctx ends.
func (s *indexSet) run(ctx context.Context) error {
	running := map[*index]context.CancelFunc{}
	var done sync.WaitGroup
	defer done.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil // those that run have contexts of ctx
		case <-s.bell:
		}
		now := s.current()
		for x, cancel := range running {
			if now[x.config.Name] != x {
				cancel()
				delete(running, x)
			}
		}
		for _, x := range now {
			if running[x] == nil {
				own, cancel := context.WithCancel(ctx)
				running[x] = cancel
				done.Go(func() { defer cancel(); s.follow(own, x) })
			}
		}
	}
}

func (s *indexSet) follow(ctx context.Context, x *index) {
	for ctx.Err() == nil {
		o := watchOptions{prefixes: []string{x.config.Prefix}, values: x.config.JSON != "", reached: x.reach}
		err := s.store.Watch(ctx, o, x.event)
		if ctx.Err() != nil {
			return
		}
		s.log.Error("index cannot be built, trying again", "index", x.config.Name, "error", err)
		x.mu.Lock()
		x.clear()
		x.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(indexRetry):
		}
	}
}

// wait gives an index when it has a snapshot with this number. Who waits for any before opening a snapshot gets one that
// the index can answer for, however long it was being built.
func (s *indexSet) wait(ctx context.Context, name string, number uint64) (*index, error) {
	x := s.current()[name]
	if x == nil {
		return nil, s.unknown(name)
	}
	there := x.await(number)
	defer x.forget(there)
	select {
	case <-there:
		return x, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(indexPatience):
		return nil, &Error{Code: CodeBusy, Message: "index " + name + " is still being built", Hint: "try again in a moment; syncagent status shows it"}
	}
}

// list calls fn for what an index has under a key in this reading, ascending by path.
func (s *indexSet) list(ctx context.Context, name, key string, b *reading, values bool, fn func(crdtstore.Item) error) error {
	x, err := s.wait(ctx, name, b.Number())
	if err != nil {
		return err
	}
	paths, ok := x.find(key, b.Number())
	if !ok {
		return &Error{Code: CodeBusy, Message: "index " + name + " changes too fast to read it", Hint: "try again"}
	}
	for _, path := range paths {
		if !record.Covers(b.prefix, path) || record.Reserved(path) || !b.all && !b.sees(path) {
			continue
		}
		item, err := b.Get(path, values || x.config.JSON != "")
		if code := ErrorOf(err); code != nil && code.Code == CodeNotFound {
			continue // it came after this reading
		} else if err != nil {
			return err
		}
		if keys, _ := x.config.keys(&item); !slices.Contains(keys, key) {
			continue
		}
		if !values {
			item.Value = nil
		}
		if err := fn(item); err != nil {
			return err
		}
	}
	return nil
}

func (s *indexSet) unknown(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for _, c := range s.lists {
		names = append(names, c.Name)
	}
	hint := "its configuration names them under indexes"
	if len(names) > 0 {
		hint = "it has " + strings.Join(names, ", ")
	}
	return &Error{Code: CodeBadRequest, Message: fmt.Sprintf("this agent has no index %q", name), Hint: hint}
}

// Status tells of each, in the order of the configuration.
func (s *indexSet) Status() (list []*apiv1.Index) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.lists {
		list = append(list, s.now[c.Name].status())
	}
	return list
}

const maxIndexes = 64

func (c *Config) checkIndexes(k *check) {
	if len(c.Indexes) > maxIndexes {
		k.add("indexes", "%d indexes, the limit is %d", len(c.Indexes), maxIndexes)
	}
	names := map[string]int{}
	for i, x := range c.Indexes {
		key := fmt.Sprintf("indexes[%d]", i)
		if !namePattern.MatchString(x.Name) {
			k.add(key+".name", "want 1 to 63 letters, digits, dots, dashes and underscores, not %q", x.Name)
		}
		if j, twice := names[x.Name]; twice {
			k.add(key+".name", "%q is also the name of indexes[%d]", x.Name, j)
		}
		names[x.Name] = i
		if clean, err := record.CleanPrefix(x.Prefix); x.Prefix == "" {
			k.add(key+".prefix", "missing")
		} else if err != nil {
			k.add(key+".prefix", "%v", err)
		} else if record.Reserved(clean) {
			k.add(key+".prefix", "/.sys is reserved")
		}
		switch {
		case (x.JSON == "") == (x.Segment == 0):
			k.add(key, "want either json or segment")
		case x.JSON != "" && slices.Contains(strings.Split(x.JSON, "."), ""):
			k.add(key+".json", "want names joined by dots such as meta.owner, not %q", x.JSON)
		case x.JSON == "":
			checkRange(k, key+".segment", x.Segment, 1, record.MaxSegments)
		}
	}
}
