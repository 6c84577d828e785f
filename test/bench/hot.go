package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"syncagent/crdtstore"
)

// hotKey is from the last answer to 100 writers, who all put the same path at five agents, until these are equal.
func hotKey(dir string) (float64, string, error) {
	const writers, agents = 100, 5
	f := newFleet(dir, agents)
	if err := f.start(); err != nil {
		return 0, "", err
	}
	puts := scaled(100)
	began := time.Now()
	var all errgroup.Group
	for w := range writers {
		all.Go(func() error {
			for i := range puts {
				op := crdtstore.Op{Path: "/hot", Value: fmt.Appendf(nil, "writer %d, put %d", w, i)}
				if _, err := f.nodes[w%agents].Write(context.Background(), []crdtstore.Op{op}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err := all.Wait()
	answered := time.Now()
	if err == nil {
		err = wait(f.equal)
	}
	note := fmt.Sprintf("after %d puts, which took %s", writers*puts, answered.Sub(began).Round(time.Millisecond))
	return time.Since(answered).Seconds(), note, errors.Join(err, f.stop())
}
