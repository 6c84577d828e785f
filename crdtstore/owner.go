package crdtstore

import (
	"cmp"
	"context"
	"errors"
	"time"
)

// Run owns the store until ctx ends: it takes what callers bring, in turns. It returns nil when ctx ended, and an error
// if a turn could not be committed; the store must then be closed and opened again.
func (s *Store) Run(ctx context.Context) error {
	defer close(s.stopped)
	ctx, rotten := context.WithCancelCause(ctx)
	patrolled := make(chan struct{})
	go func() { rotten(s.patrol(ctx)); close(patrolled) }()
	defer func() { rotten(nil); <-patrolled }()
	stop, filled := make(chan struct{}), make(chan error, 1)
	go func() { filled <- s.index.fill(s.kv.View(), stop) }()
	kept := make(chan struct{})
	go func() { s.keepChunks(stop); close(kept) }()
	defer func() {
		close(stop)
		<-kept
		if err := <-filled; err != nil {
			s.log.Error("path index not filled", "error", err)
		}
	}()
	end, concluded := make(chan struct{}), make(chan error, 1)
	go func() {
		err := s.concludeAll(end)
		rotten(err)
		concluded <- err
	}()
	err := s.turns(ctx)
	close(end)
	err = cmp.Or(<-concluded, err)
	if rot := context.Cause(ctx); err == nil && errors.Is(rot, ErrCorrupt) {
		err = rot
	}
	if err != nil {
		s.markDamaged(err)
	}
	s.queue.fail(cmp.Or(err, ErrClosed))
	s.failInbox()
	return err
}

// turns makes turns until ctx ends or one fails.
func (s *Store) turns(ctx context.Context) error {
	for s.wait(ctx) == nil {
		if err := s.step(); err != nil {
			return err
		}
	}
	return nil
}

// wait collects requests. It returns at once when there is work left over, else when some comes or falls due.
func (s *Store) wait(ctx context.Context) error {
	if s.busy() {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.drain()
		return nil
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for !s.busy() {
		timer.Reset(s.idle())
		select {
		case <-ctx.Done():
			return ctx.Err()
		case r := <-s.inbox:
			s.queue.add(r)
			s.drain()
		case <-s.told: // writes that came meanwhile are ripe now
		case <-timer.C:
			if len(s.queue.writes) == 0 || s.ripe() {
				return nil
			}
		}
	}
	return nil
}

// busy tells whether there is work left over from the last turn.
func (s *Store) busy() bool {
	return s.queue.others() || s.ripe() || s.counters.judged != s.counters.generation || len(s.postponed) > 0
}

// idle is how long the owner may sleep if nobody wants anything.
func (s *Store) idle() time.Duration {
	ms := time.Minute.Milliseconds()
	if s.unsynced {
		ms = time.Second.Milliseconds()
	}
	if s.wake != 0 {
		ms = min(ms, max(s.wake-s.tick(), 0)) // what expires in 300 years is no time.Duration
	}
	d := time.Duration(ms) * time.Millisecond
	if len(s.queue.writes) > 0 && s.syncing.Load() == 0 {
		d = min(d, max(s.spacing(), 0))
	}
	return d
}

func (s *Store) wakeAt(ms int64) {
	if s.wake == 0 || ms < s.wake {
		s.wake = ms
	}
}

func (s *Store) drain() {
	for {
		select {
		case r := <-s.inbox:
			s.queue.add(r)
		default:
			return
		}
	}
}

func (s *Store) failInbox() {
	for {
		select {
		case r := <-s.inbox:
			s.queue.add(r)
			s.queue.fail(ErrClosed)
		default:
			return
		}
	}
}

// send brings a request to the owner.
func (s *Store) send(ctx context.Context, r any) error {
	select {
	case s.inbox <- r:
		return nil
	case <-s.stopped:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// await waits for the owner's answer. Once the owner has a request it always answers it, so after ctx ended the
// outcome is unknown to the caller, not lost.
func await[T any](ctx context.Context, s *Store, done <-chan T) (v T, err error) {
	select {
	case v = <-done:
		return v, nil
	case <-ctx.Done():
		return v, ctx.Err()
	case <-s.stopped:
		select {
		case v = <-done:
			return v, nil
		default:
			return v, ErrClosed
		}
	}
}
