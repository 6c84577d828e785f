package agent

import (
	"cmp"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"syncagent/agent/page"
	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
)

const (
	pageChanges = 50
	countEvery  = 30 * time.Second // counting goes over all entries
	maxPrefixes = 100
)

// changes puts the last changes into words, newest first. Without full they name no path.
func (p *statusPage) changes(full bool) []page.Change {
	s := p.service.store
	snap, err := s.Snapshot()
	if err != nil {
		return nil // the agent stops
	}
	defer snap.Close()
	events, err := snap.Recent(pageChanges)
	if err != nil {
		return nil // there is an alarm
	}
	l := labels{policy: s.Policy()}
	var list []page.Change
	for _, e := range events {
		if record.Reserved(e.Item.Path) {
			continue
		}
		c := page.Change{What: "put"}
		switch e.Type {
		case crdtstore.EventDelete:
			c.What = "delete"
		case crdtstore.EventPolicy:
			c.What = "policy"
		default:
			c.Size = byteCount(uint64(e.Item.Size))
		}
		if full {
			c.Path = e.Item.Path
		}
		if !e.Item.Version.IsZero() { // what went with a right has none
			c.Time, c.By = clockTime(e.Item.Version.HLC.Time()), cmp.Or(l.of(e.Item.Author).alias, l.of(e.Item.Author).id)
		}
		list = append(list, c)
	}
	return list
}

// pruned keeps the end of what a command printed.
func pruned(output string) string {
	const most = 2000
	if len(output) <= most {
		return output
	}
	return "[...] " + strings.ToValidUTF8(output[len(output)-most:], "?")
}

// counted is what goes over everything to be known.
type counted struct {
	at       time.Time
	prefixes []page.Prefix
	bytes    uint64 // of data_dir on its disk
}

// count counts at most every countEvery.
func (p *statusPage) count() counted {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.counted.at.IsZero() || time.Since(p.counted.at) >= countEvery {
		if list, ok := p.countPrefixes(); ok {
			p.counted = counted{time.Now(), list, diskUsed(p.dataDir)}
		}
	}
	return p.counted
}

// countPrefixes counts the entries below each first segment; not ok: the agent stops, or there is an alarm.
func (p *statusPage) countPrefixes() (list []page.Prefix, ok bool) {
	snap, err := p.service.store.Snapshot()
	if err != nil {
		return nil, false
	}
	defer snap.Close()
	rest := int64(0)
	err = snap.List("/", false, func(i crdtstore.Item) error {
		first := firstSegment(i.Path)
		switch n := len(list); {
		case record.Reserved(i.Path):
		case n > 0 && list[n-1].Prefix == first:
			list[n-1].Count++
		case n == maxPrefixes:
			rest++
		default:
			list = append(list, page.Prefix{Prefix: first, Count: 1})
		}
		return nil
	})
	if rest > 0 {
		list = append(list, page.Prefix{Prefix: "others", Count: rest})
	}
	return list, err == nil
}

func firstSegment(path string) string {
	if i := strings.IndexByte(path[1:], '/'); i >= 0 {
		return path[:i+1]
	}
	return path
}

// diskUsed is what a directory takes on its disk: the store's files are made larger than what is in them. What cannot
// be looked at does not count.
func diskUsed(dir string) (bytes uint64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // it has gone, or is somebody else's
		}
		if info, err := d.Info(); err == nil {
			if s, ok := info.Sys().(*syscall.Stat_t); ok {
				bytes += uint64(s.Blocks) * 512
			}
		}
		return nil
	})
	return bytes
}
