package crdtstore

import (
	"context"
	"math/rand/v2"
	"time"
)

// patrolEvery is how often a store that runs is read as a whole, at most: what rots on the disk has to be found while
// other agents still have it. At a start it is read before anything else.
const patrolEvery = 24 * time.Hour

// patrol verifies the rows from time to time until ctx ends. It returns an error when something is damaged.
func (s *Store) patrol(ctx context.Context) error {
	for {
		t := time.NewTimer(patrolEvery - rand.N(patrolEvery/4))
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
		if err := s.kv.Verify(); err != nil {
			return err
		}
	}
}
