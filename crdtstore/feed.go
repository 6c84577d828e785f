package crdtstore

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"syncagent/crdtstore/fault"
	"syncagent/crdtstore/record"
)

// The change feed: one row a turn, numbered, that lists what the turn showed anew. Watches read it from the store, so
// a slow one costs nobody else anything. A row holds the run that wrote it: after a power cut a number can be given
// out twice, and a cursor of the lost one must be told apart.

const (
	feedKept      = 100_000  // rows
	feedBytesKept = 32 << 20 // bytes: half a million changes
	feedPruned    = 64       // rows dropped in a turn
)

type feedKind byte

const (
	feedShown  feedKind = 1 // the path shows this slot now
	feedGone   feedKind = 2 // the path shows nothing any more
	feedPolicy feedKind = 3 // a policy came into force
)

type feedItem struct {
	kind    feedKind
	key     record.Tag     // shown
	version record.Version // shown
	path    string         // gone; for shown only in memory
}

// writeFeed adds the turn's row, grouped by write, and drops the oldest ones beyond what is kept.
func (t *turn) writeFeed() error {
	if len(t.feed) == 0 {
		return nil
	}
	if fault.Planted("feed-overflow") {
		t.feed = t.feed[:min(len(t.feed), 2)]
	}
	slices.SortFunc(t.feed, func(a, b feedItem) int { return cmp.Or(a.version.Compare(b.version), cmp.Compare(a.path, b.path)) })
	c := &t.s.counters
	c.addFeed(t.rows, t.s.run, t.feed)
	for n := 0; n < feedPruned && c.feed > c.feedFirst && (c.feed-c.feedFirst >= feedKept || c.feedBytes > t.s.feedMax); n++ {
		old, _, err := t.view.Get(feedKey(c.feedFirst))
		if err != nil {
			return err
		}
		t.rows.delete(feedKey(c.feedFirst))
		c.feedBytes -= min(uint64(len(old)), c.feedBytes)
		c.feedFirst++
	}
	return nil
}

// addFeed adds one row.
func (c *counters) addFeed(r *rows, run uint64, items []feedItem) {
	row := encodeFeed(run, items)
	c.feed++
	c.feedBytes += uint64(len(row))
	r.set(feedKey(c.feed), row)
}

func encodeFeed(run uint64, items []feedItem) []byte {
	b := be.AppendUint64(make([]byte, 0, 8+len(items)*(1+16+record.VersionSize)), run)
	for _, i := range items {
		b = append(b, byte(i.kind))
		switch i.kind {
		case feedShown:
			b = append(b, i.key[:]...)
			b = i.version.Append(b)
		case feedGone:
			b = binary.AppendUvarint(b, uint64(len(i.path)))
			b = append(b, i.path...)
		}
	}
	return b
}

func decodeFeed(b []byte) (run uint64, items []feedItem, err error) {
	bad := fmt.Errorf("%w: feed row", ErrCorrupt)
	if len(b) < 8 {
		return 0, nil, bad
	}
	run, b = be.Uint64(b), b[8:]
	for len(b) > 0 {
		i := feedItem{kind: feedKind(b[0])}
		b = b[1:]
		switch i.kind {
		case feedShown:
			if len(b) < 16+record.VersionSize {
				return 0, nil, bad
			}
			copy(i.key[:], b)
			if i.version, err = record.VersionFrom(b[16 : 16+record.VersionSize]); err != nil {
				return 0, nil, bad
			}
			b = b[16+record.VersionSize:]
		case feedGone:
			n, used := binary.Uvarint(b)
			if used <= 0 || n > uint64(len(b)-used) {
				return 0, nil, bad
			}
			i.path = string(b[used : used+int(n)])
			b = b[used+int(n):]
		case feedPolicy:
		default:
			return 0, nil, bad
		}
		items = append(items, i)
	}
	return run, items, nil
}
