package crdtstore

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// lockDir keeps other processes out of the data directory before anything in it is looked at. badger's own lock comes too
// late: by then a second agent would have removed what it takes for remains of a crash, or have taken a table that the
// first one is writing for a damaged one and moved the store away. The lock ends with the process.
func (s *Store) lockDir() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	f, err := os.Open(s.dir)
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close() // nothing was written
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrLocked
		}
		return fmt.Errorf("open store %s: %w", s.dir, err)
	}
	s.lock = f
	return nil
}

func (s *Store) unlock() error {
	if s.lock == nil {
		return nil
	}
	return s.lock.Close()
}
