package agent

import (
	"context"
	"slices"
	"strings"
	"sync"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore/record"
	"syncagent/p2p"
)

// mirrorSet keeps the mirrors of the configuration in force: a reload replaces them.
type mirrorSet struct {
	build  func(*Config) (*mirrors, error)
	alarms *Alarms
	bell   chan struct{} // next is set

	mu        sync.Mutex
	now, next *mirrors
}

func newMirrorSet(c *Config, alarms *Alarms, build func(*Config) (*mirrors, error)) (*mirrorSet, error) {
	first, err := build(c)
	if err != nil {
		return nil, err
	}
	return &mirrorSet{build: build, alarms: alarms, bell: make(chan struct{}, 1), now: first}, nil
}

// replace makes the mirrors of another configuration. They take over as soon as those that run have stopped; a command
// that is cut off by that runs again. On an error those that run stay.
func (s *mirrorSet) replace(c *Config) error {
	next, err := s.build(c)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.next = next
	s.mu.Unlock()
	select {
	case s.bell <- struct{}{}:
	default:
	}
	return nil
}

func (s *mirrorSet) current() *mirrors {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// run keeps the mirrors until ctx ends or one of them fails.
func (s *mirrorSet) run(ctx context.Context) error {
	for ctx.Err() == nil {
		now, done := s.current(), make(chan error, 1)
		own, cancel := context.WithCancel(ctx)
		go func() {
			err := now.run(own)
			if err == nil {
				<-own.Done() // none are configured
			}
			done <- err
		}()
		select {
		case err := <-done:
			cancel()
			return err
		case <-s.bell:
			cancel()
			if err := <-done; err != nil {
				return err
			}
			s.advance()
		}
	}
	return nil
}

// advance puts the next mirrors in place and drops alarms of those that are no more.
func (s *mirrorSet) advance() {
	s.mu.Lock()
	if s.next != nil { // two bells for one
		s.now, s.next = s.next, nil
	}
	s.mu.Unlock()
	list, _ := s.Status()
	for _, a := range s.alarms.List() {
		known := slices.ContainsFunc(list, func(m *apiv1.Mirror) bool { return m.GetName() == a.Subject })
		ofMirror := a.Code == "trigger-files" || strings.HasPrefix(a.Code, "mirror-")
		// A trigger that still fails raises its alarm again at once.
		if ofMirror && !known || a.Code == "trigger-failed" {
			s.alarms.Clear(a.Code, a.Subject)
		}
	}
}

// Status implements mirrorState.
func (s *mirrorSet) Status() ([]*apiv1.Mirror, []*apiv1.Trigger) { return s.current().Status() }

// Progress implements mirrorState.
func (s *mirrorSet) Progress(placed p2p.Placed, shown record.Version, visible bool) mirrorProgress {
	return s.current().Progress(placed, shown, visible)
}

// Confirm implements mirrorState.
func (s *mirrorSet) Confirm(name string) (int, error) { return s.current().Confirm(name) }
