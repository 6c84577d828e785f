package crdtstore

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dgraph-io/ristretto/v2/z"
)

// badger reads its logs, those of its memtables and those of large values, up to the first entry that does not have its
// checksum, and cuts off the rest without a word. After a crash that is right: an entry is cut off where the agent was killed,
// and a power cut leaves zeros where a page was not written yet. Any other flaw means that rows are lost which were
// synced.

const (
	logHead     = 20 // before the first entry
	logEntryMax = 22 // of an entry's head, and so many zeros are behind the last one
	logKeyMax   = 1 << 16
	sector      = 512 // the least that a disk writes
)

// logEntry is an entry of a log: meta, a byte that is 0 here, the lengths of key and value, an expiry that is 0 here, key,
// value, checksum.
type logEntry struct {
	key, value []byte // of the row; the key has 8 bytes of version behind it
	size       int    // of the whole entry, also if the checksum is wrong; 0: the head makes no sense
	good       bool
}

const inValueLog = 1 << 1 // bit of meta: the value is a place in another log

func readLogEntry(log []byte) (e logEntry) {
	if len(log) < 2 {
		return e
	}
	at := 2
	length := func() uint64 {
		n, size := binary.Uvarint(log[at:])
		if size <= 0 {
			return 1 << 62
		}
		at += size
		return n
	}
	key, value, expires := length(), length(), length()
	if log[1] != 0 || key > logKeyMax || expires != 0 || value > uint64(len(log)) || at+int(key+value)+crc32.Size > len(log) {
		return e
	}
	end := at + int(key+value)
	e.size = end + crc32.Size
	e.good = key > 8 && crc32.Checksum(log[:end], crc32.MakeTable(crc32.Castagnoli)) == be.Uint32(log[end:])
	if e.good {
		e.key, e.value = log[at:at+int(key)-8], log[at+int(key):end]
	}
	return e
}

// checkLogs fails with ErrCorrupt if a log has a flaw that no crash leaves.
func checkLogs(dir string) error {
	return eachLog(dir, func(name string, log []byte) error {
		at := min(logHead, len(log))
		for e := readLogEntry(log[at:]); e.good; e = readLogEntry(log[at:]) {
			at += e.size
		}
		if !cutOff(log, at) {
			return fmt.Errorf("%w: entry at byte %d of log %s does not have its checksum", ErrCorrupt, at, name)
		}
		return nil
	})
}

// cutOff tells whether a crash can have left a log that is good up to a place.
func cutOff(log []byte, at int) bool {
	zeros := func(from, to int) bool {
		return len(bytes.Trim(log[min(from, len(log)):min(to, len(log))], "\x00")) == 0
	}
	end := at + readLogEntry(log[at:]).size
	if end == at {
		end = at + logEntryMax
	} else if log[end-1] == 0 && zeros(end, end+logEntryMax) { // killed while it was written
		return true
	}
	for from := at; from < min(end, len(log)); from = (from/sector + 1) * sector {
		if zeros(from, min(end, (from/sector+1)*sector)) { // not written yet, or the end
			return true
		}
	}
	return at == len(log)
}

// salvageLogs reads what was not in tables yet. Where an entry is bad it looks for the next good one.
func (s *Store) salvageLogs(dir string, out *salvaged) error {
	return eachLog(dir, func(name string, log []byte) error {
		bad := 0
		for at, end := logHead, len(bytes.TrimRight(log, "\x00")); at < end; {
			e := readLogEntry(log[at:])
			if !e.good {
				at++
				bad++
				continue
			}
			if log[at]&inValueLog == 0 {
				s.salvageRow(e.key, e.value, out)
			}
			at += e.size
		}
		if bad > 0 {
			s.log.Warn("log of the damaged store is unreadable", "log", name, "bytes", bad)
		}
		return nil
	})
}

// eachLog calls fn for each of badger's logs in dir.
func eachLog(dir string, fn func(name string, log []byte) error) error {
	for _, pattern := range []string{"*.mem", "*.vlog"} {
		files, err := fs.Glob(os.DirFS(dir), pattern)
		if err != nil {
			return err
		}
		for _, name := range files {
			if err := withFile(filepath.Join(dir, name), func(log []byte) error { return fn(name, log) }); err != nil {
				return err
			}
		}
	}
	return nil
}

// withFile calls fn with the content of a file, which need not fit the memory: most of a log is a hole.
func withFile(name string, fn func(data []byte) error) error {
	fi, err := os.Stat(name)
	if err != nil || fi.Size() == 0 { // which cannot be mapped
		return err
	}
	f, err := z.OpenMmapFile(name, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close(-1) //nolint:errcheck // only read
	return fn(f.Data)
}
