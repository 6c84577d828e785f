package crdtstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

const (
	// patrolEvery is how often a store that runs is read as a whole, at most: what rots on the disk has to be found while
	// other agents still have it. At a start its rows are read before anything else.
	patrolEvery = 24 * time.Hour
	// patrolSoon is how often while a part of a value is lost.
	patrolSoon = time.Hour
	// patrolShare is the part of the time that goes to reading chunks.
	patrolShare = 5
)

// patrol verifies rows and chunks from time to time until ctx ends. It returns an error when a row is damaged; a chunk is
// mended meanwhile.
func (s *Store) patrol(ctx context.Context) error {
	for every := patrolEvery; ; {
		if !pause(ctx, every-rand.N(every/4)) {
			return nil
		}
		if err := s.kv.Verify(); errors.Is(err, ErrCorrupt) {
			return err
		} else if err != nil {
			s.log.Warn("not all rows were verified", "error", err)
		}
		every = patrolEvery
		lost, err := s.patrolChunks(ctx)
		if err != nil && ctx.Err() == nil {
			s.log.Warn("not all chunks were verified", "error", err)
		}
		if lost > 0 {
			every = patrolSoon
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// patrolled is a large value as a patrol finds it.
type patrolled struct {
	*slot
	refs  []chunkRef
	shown bool
}

// patrolChunks reads all chunks, and gives the number of those that are lost. What it finds damaged is set aside and
// fetched again; a value that is still torn since an earlier look raises an alarm, which a patrol without one ends.
func (s *Store) patrolChunks(ctx context.Context) (lost int, err error) {
	values, err := s.largeValues()
	if err != nil {
		return 0, err
	}
	var hopeless []string
	var buf []byte
	for _, v := range values {
		before := lost
		for _, ref := range v.refs {
			if !s.chunks.isUsed(ref) {
				continue // dropped meanwhile
			}
			began := time.Now()
			data, err := s.chunks.get(ref, buf)
			switch {
			case errors.Is(err, errChunk):
				lost++
				_ = s.lost(v.slot, ref, err) // it is told there
			case err != nil:
				return lost, err
			default:
				buf = data
			}
			if !pause(ctx, (patrolShare-1)*time.Since(began)) {
				return lost, ctx.Err()
			}
		}
		if v.torn && v.shown && lost > before {
			hopeless = append(hopeless, v.path)
		}
	}
	s.tellHopeless(hopeless)
	return lost, nil
}

func (s *Store) tellHopeless(paths []string) {
	told := s.hopeless.Swap(len(paths) > 0)
	switch {
	case len(paths) > 0:
		s.alarm("value-lost", fmt.Sprintf("%d large values cannot be read, since no agent gave back what is damaged or missing here; the first is %s",
			len(paths), paths[0]))
	case told:
		s.alarm("value-lost", "")
	}
}

// largeValues gives the values whose chunks all came.
func (s *Store) largeValues() (values []patrolled, err error) {
	v := s.kv.View()
	defer v.Close()
	err = v.Scan([]byte{'k'}, nil, false, func(k, _ []byte) (bool, error) {
		key, version, ok := parseSlotKey(k)
		if !ok {
			return false, fmt.Errorf("%w: row of a chunked value", ErrCorrupt)
		}
		sl, err := loadSlot(v, key, version)
		if err != nil || sl.lacking {
			return err == nil, err
		}
		shown, err := shows(v, sl)
		values = append(values, patrolled{sl, refsOf(key, sl.chunks), shown})
		return err == nil, err
	})
	return values, err
}

// shows tells whether a slot is what its path shows.
func shows(v view, sl *slot) (bool, error) {
	row, ok, err := v.Get(shownKey(sl.path))
	if err != nil || !ok {
		return false, err
	}
	shown, err := decodeShown(row)
	return shown.version == sl.version, err
}
