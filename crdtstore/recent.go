package crdtstore

import "slices"

// recentRows bounds how many rows of the feed Recent looks at: what was superseded meanwhile is no change any more.
const recentRows = 1000

// Recent gives the last changes, newest first, without values: what Watch told last, as far as the feed still has it.
func (n *Snapshot) Recent(limit int) (changes []Event, err error) {
	w := watch{s: n.s, o: WatchOptions{Prefixes: []string{"/"}}}
	for number := n.counters.feed; number > 0 && n.counters.feed-number < recentRows && len(changes) < limit; number-- {
		raw, ok, err := n.view.Get(feedKey(number))
		if err != nil || !ok {
			return changes, err // what comes before was dropped
		}
		_, items, err := decodeFeed(raw)
		if err != nil {
			return changes, err
		}
		events, err := w.events(n, items[max(0, len(items)-limit+len(changes)):])
		if err != nil {
			return changes, err
		}
		slices.Reverse(events)
		changes = append(changes, events...)
	}
	return changes, nil
}
