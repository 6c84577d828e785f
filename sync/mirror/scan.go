package mirror

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// scan marks the files on disk, if all have to be looked at.
func (s *session) scan() error {
	if !s.scanAll {
		return nil
	}
	if err := s.markBelow("."); err != nil {
		return err
	}
	s.scanAll = false
	return nil
}

// markBelow marks every file in the directory and below it. What the patterns leave out and what is ours is passed by,
// links are not followed.
func (s *session) markBelow(dir string) error {
	if dir != "." && s.m.filter.skipsDir(dir) {
		return nil
	}
	d, err := s.tree.open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if errors.Is(err, errFileInWay) {
		return nil // no directory
	}
	if err != nil {
		return s.fault(dir, err)
	}
	entries, err := d.Entries()
	if err != nil {
		return s.fault(dir, err)
	}
	for _, e := range entries {
		rel := strings.TrimPrefix(dir+"/"+e.Name(), "./")
		switch {
		case strings.HasPrefix(e.Name(), ours):
		case e.IsDir():
			if err := s.markBelow(rel); err != nil {
				return err
			}
		case e.Type().IsRegular():
			s.mark(rel)
		}
	}
	return nil
}

// localWatch tells which paths changed on disk. It may miss some: the periodic check finds them.
type localWatch struct {
	dir   string
	watch *fsnotify.Watcher // nil: there is none
	ring  chan struct{}
	done  chan struct{}

	mu    sync.Mutex
	paths map[string]struct{} // relative
	lost  bool                // and more than that
}

// watchLocal watches the directory of a mirror that pushes.
func (s *session) watchLocal() *localWatch {
	w := &localWatch{dir: s.m.o.Dir, ring: make(chan struct{}, 1), done: make(chan struct{}), paths: map[string]struct{}{}}
	if s.m.sink == nil {
		close(w.done)
		return w
	}
	var err error
	if w.watch, err = fsnotify.NewWatcher(); err != nil {
		s.m.o.Log.Warn("local changes are only found by the periodic check", "dir", w.dir, "error", err)
		close(w.done)
		return w
	}
	if err := w.add(w.dir); err != nil {
		s.m.o.Log.Warn("some local changes are only found by the periodic check", "dir", w.dir, "error", err)
	}
	go w.run()
	return w
}

func (w *localWatch) bell() <-chan struct{} { return w.ring }

func (w *localWatch) close() {
	if w.watch != nil {
		_ = w.watch.Close() // it was only read
	}
	<-w.done
}

// add watches a directory and those below it.
func (w *localWatch) add(dir string) error {
	return filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist), err == nil && !e.IsDir():
			return nil
		case err != nil:
			return err
		case p != w.dir && strings.HasPrefix(e.Name(), ours):
			return fs.SkipDir
		}
		return w.watch.Add(p)
	})
}

func (w *localWatch) run() {
	defer close(w.done)
	for {
		select {
		case e, ok := <-w.watch.Events:
			if !ok {
				return
			}
			w.note(e)
		case _, ok := <-w.watch.Errors:
			if !ok {
				return
			}
			w.mu.Lock()
			w.lost = true // overflow: look at everything
			w.mu.Unlock()
		}
		select {
		case w.ring <- struct{}{}:
		default:
		}
	}
}

func (w *localWatch) note(e fsnotify.Event) {
	rel, err := filepath.Rel(w.dir, e.Name)
	if err != nil || rel == "." || refuse(rel) != "" {
		return
	}
	if e.Has(fsnotify.Create) {
		if info, err := os.Lstat(e.Name); err == nil && info.IsDir() {
			if w.add(e.Name) != nil {
				w.mu.Lock()
				w.lost = true
				w.mu.Unlock()
			}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.paths[rel] = struct{}{}
}

// takeLocal marks what changed on disk.
func (s *session) takeLocal(w *localWatch) {
	w.mu.Lock()
	paths, lost := w.paths, w.lost
	w.paths, w.lost = map[string]struct{}{}, false
	w.mu.Unlock()
	if lost {
		s.markAll()
		return
	}
	for p := range paths {
		s.mark(p)
		if err := s.markBelow(p); err != nil {
			s.markAll() // the pass meets the error again
			return
		}
	}
	s.j.eachFile(func(p string) { // a directory that went took its files along
		for d := parent(p); d != "."; d = parent(d) {
			if _, ok := paths[d]; ok {
				s.mark(p)
				return
			}
		}
	})
}

// wait returns false if ctx ends before the time is over.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
