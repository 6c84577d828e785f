package mirror

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"syncagent/crdtstore/record"
)

// fakeSource is a store in memory. Its cursors are numbers of writes.
type fakeSource struct {
	mu      sync.Mutex
	files   map[string]fakeFile
	log     []Change // all changes, in order
	bell    chan struct{}
	hlc     record.HLC
	fetches int
	down    error                       // what all calls return, if set
	broken  map[string]error            // paths whose content cannot be read
	onFetch func(*fakeSource, []string) // called, unlocked, before a fetch
	// onContent is called before the content of an edit is read.
	onContent func()
	clock     bool                // versions tell the time
	history   map[string][]string // all values that a path ever had
}

type fakeFile struct {
	File
	value []byte
}

func newFakeSource() *fakeSource {
	return &fakeSource{files: map[string]fakeFile{}, bell: make(chan struct{}), broken: map[string]error{}, history: map[string][]string{}}
}

// op is one put, or a delete if value is nil.
type op struct {
	path  string
	value []byte
	mode  uint16
}

func put(path, value string) op                  { return op{path: path, value: []byte(value)} }
func putMode(path, value string, mode uint16) op { return op{path, []byte(value), mode} }
func del(path string) op                         { return op{path: path} }

// write makes one atomic write.
func (s *fakeSource) write(ops ...op) record.Version {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writeLocked(ops...)
}

func (s *fakeSource) writeLocked(ops ...op) record.Version {
	s.hlc = max(s.hlc+1, s.now())
	v := record.Version{HLC: s.hlc, Write: sha256.Sum256(fmt.Append(nil, s.hlc))}
	for i, o := range ops {
		v.Index = uint16(i)
		f := fakeFile{File{Path: o.path, Version: v, Mode: o.mode, Size: int64(len(o.value))}, o.value}
		if o.value == nil {
			delete(s.files, o.path)
		} else {
			s.files[o.path] = f
			s.history[o.path] = append(s.history[o.path], string(o.value))
		}
		s.log = append(s.log, Change{File: f.File, Deleted: o.value == nil, More: i < len(ops)-1})
	}
	close(s.bell)
	s.bell = make(chan struct{})
	return v
}

func (s *fakeSource) now() record.HLC {
	if !s.clock {
		return 0
	}
	return record.HLCFromMilli(time.Now().UnixMilli())
}

// Write implements Sink.
func (s *fakeSource) Write(_ context.Context, edits []Edit) (record.Version, error) {
	if c := edits[0].Content; c != nil {
		if s.onContent != nil {
			s.onContent()
		}
		value, err := io.ReadAll(c)
		if err != nil {
			return record.Version{}, err
		}
		if len(edits) > 1 || len(value) <= record.MaxInlineValue {
			panic("a large edit comes alone")
		}
		edits[0].Value = value
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down != nil {
		return record.Version{}, s.down
	}
	var ops []op
	for _, e := range edits {
		if strings.Contains(e.Path, "/denied") {
			return record.Version{}, fmt.Errorf("%s: %w", e.Path, ErrRefused)
		}
		if s.files[e.Path].Version != e.Shown {
			return record.Version{}, fmt.Errorf("%s: %w", e.Path, ErrConflict)
		}
		if len(e.Value) > record.MaxInlineValue && e.Content == nil {
			return record.Version{}, fmt.Errorf("%s: %w", e.Path, ErrRefused)
		}
		o := op{path: e.Path, value: e.Value, mode: e.Mode}
		if e.Delete {
			o.value = nil
		} else if o.value == nil {
			o.value = []byte{}
		}
		ops = append(ops, o)
	}
	v := s.writeLocked(ops...)
	v.Index = 0
	return v, nil
}

func (s *fakeSource) List(_ context.Context, prefix string, fn func(File) error) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down != nil {
		return "", s.down
	}
	for p, f := range s.files {
		if record.Covers(prefix, p) {
			if err := fn(f.File); err != nil {
				return "", err
			}
		}
	}
	return strconv.Itoa(len(s.log)), nil
}

func (s *fakeSource) Fetch(ctx context.Context, paths []string, fn func(File, io.Reader) error) error {
	if s.onFetch != nil {
		s.onFetch(s, paths)
	}
	s.mu.Lock()
	s.fetches++
	var found []fakeFile
	for _, p := range paths {
		if f, ok := s.files[p]; ok {
			found = append(found, f)
		}
	}
	down := s.down
	broken := s.broken
	s.mu.Unlock()
	if down != nil {
		return down
	}
	for _, f := range found {
		var r io.Reader = bytes.NewReader(f.value)
		if err := broken[f.Path]; err != nil {
			r = io.MultiReader(bytes.NewReader(f.value[:len(f.value)/2]), failingReader{err})
		}
		if err := fn(f.File, r); err != nil {
			return err
		}
	}
	return ctx.Err()
}

type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }

func (s *fakeSource) Watch(ctx context.Context, prefix, cursor string, fn func(Change) error) error {
	n, err := strconv.Atoi(cursor)
	if err != nil {
		return errors.Join(err, ErrReset)
	}
	for {
		s.mu.Lock()
		news, bell, down := s.log[n:], s.bell, s.down
		s.mu.Unlock()
		if down != nil {
			return down
		}
		n += len(news)
		for _, c := range news {
			if record.Covers(prefix, c.Path) {
				if err := fn(c); err != nil {
					return err
				}
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-bell:
		}
	}
}

// Unknown implements Source: it has all that was written up to its clock.
func (s *fakeSource) Unknown(_ context.Context, versions map[string]record.Version) (map[string]struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	unknown := map[string]struct{}{}
	for path, v := range versions {
		if v.HLC > s.hlc {
			unknown[path] = struct{}{}
		}
	}
	return unknown, s.down
}

// fail makes every call fail, until it is given nil.
func (s *fakeSource) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = err
	close(s.bell)
	s.bell = make(chan struct{})
}

// tree gives the expected files below prefix /p by relative path.
func (s *fakeSource) tree() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	want := map[string]string{}
	for p, f := range s.files {
		want[p[len("/p/"):]] = string(f.value)
	}
	return want
}
