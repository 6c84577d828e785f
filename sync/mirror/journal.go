package mirror

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"syncagent/crdtstore/fault"
)

const (
	journalFormat = 1
	// A journal is rewritten when it has grown by minGrowth bytes and to three times what it was after the last time.
	minGrowth = 1 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// journal keeps a ledger on disk: an append-only file of lines "CRC32C JSON", each fsynced before the next is written.
// So only the last line can be torn, by a crash while it was written; it is cut off. A file that is damaged elsewhere is
// set aside: the mirror then knows nothing of its own doing and so removes nothing. Safe for concurrent use.
type journal struct {
	path string
	name string // of the file in dir
	dir  folder
	log  *slog.Logger
	lock file

	mu      sync.Mutex
	file    file
	size    int64 // bytes of the valid lines
	compact int64 // size after the last rewriting
	broken  bool  // the end of the file is not what size says: rewrite before the next line
	ledger  *ledger
}

// openJournal reads the journal at path, or begins an empty one. ErrBusy: another process has it.
func openJournal(d disk, path string, log *slog.Logger) (*journal, error) {
	if err := d.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	dir, err := d.Folder(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	j := &journal{path: path, name: filepath.Base(path), dir: dir, log: log}
	if j.lock, err = dir.OpenLocked(j.name+".lock", os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("open journal %s: %w", path, err), dir.Close())
	}
	if err := j.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("open journal %s: %w", path, err), j.close())
	}
	return j, nil
}

func (j *journal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	var err error
	if j.file != nil {
		err = j.file.Close()
	}
	return errors.Join(err, j.lock.Close(), j.dir.Close())
}

var errDamaged = errors.New("journal is damaged")

func (j *journal) load() error {
	f, err := j.dir.Open(j.name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	j.file = f
	j.ledger = newLedger()
	good, err := readLines(f, j.ledger)
	if errors.Is(err, errDamaged) {
		aside := fmt.Sprintf("%s.damaged-%d", j.name, time.Now().Unix())
		j.log.Error("mirror journal is damaged and set aside, nothing will be removed", "journal", j.path, "aside", filepath.Join(filepath.Dir(j.path), aside),
			"offset", good)
		if err := errors.Join(f.Close(), j.dir.Rename(j.name, j.dir, aside)); err != nil {
			return err
		}
		return j.load()
	}
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if end := info.Size(); end > good {
		j.log.Warn("cut off a torn line at the end of the mirror journal", "journal", j.path, "bytes", end-good)
		if err := errors.Join(f.Truncate(good), f.Sync()); err != nil {
			return err
		}
	}
	j.size, j.compact = good, good
	return j.dir.Sync()
}

// readLines adds up the lines and gives the length of the valid ones. A bad line at the very end is left out, one that
// others follow is errDamaged.
func readLines(r io.Reader, l *ledger) (good int64, err error) {
	in := bufio.NewReaderSize(r, 1<<16)
	for {
		raw, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return good, nil // a line without its end, or none
		}
		if err != nil {
			return good, err
		}
		text, ok := checkLine(raw)
		if !ok {
			if _, err := in.Peek(1); errors.Is(err, io.EOF) {
				return good, nil
			}
			return good, errDamaged
		}
		n, err := parseLine(text)
		if err != nil {
			return good, err
		}
		if err := l.apply(n); err != nil {
			return good, fmt.Errorf("%w: %w", errDamaged, err)
		}
		good += int64(len(raw))
	}
}

func checksum(text []byte) uint32 { return crc32.Checksum(text, castagnoli) }

func encodeLine(n line) ([]byte, error) {
	text, err := json.Marshal(n)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "%08x %s\n", checksum(text), text), nil
}

func checkLine(raw []byte) (text []byte, ok bool) {
	if len(raw) < 10 || raw[8] != ' ' {
		return nil, false
	}
	text = raw[9 : len(raw)-1]
	return text, string(raw[:8]) == fmt.Sprintf("%08x", checksum(text))
}

// parseLine reads what encodeLine wrote. Its checksum was right, so what we do not know comes from a newer version.
func parseLine(text []byte) (n line, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&n); err != nil {
		return n, fmt.Errorf("a newer version wrote it: %w", err)
	}
	if n.Mirror != nil && n.Mirror.Format != journalFormat {
		return n, fmt.Errorf("a newer version wrote it: format %d", n.Mirror.Format)
	}
	return n, nil
}

// append writes a line, fsyncs it, and takes it into the ledger; after an error it has done nothing.
func (j *journal) append(n line) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.appendLocked(n); err != nil {
		return fmt.Errorf("write journal %s: %w", j.path, err)
	}
	return nil
}

func (j *journal) appendLocked(n line) error {
	if j.broken || j.size > 3*j.compact && j.size > j.compact+minGrowth {
		if err := j.rewrite(); err != nil {
			return err
		}
	}
	b, err := encodeLine(n)
	if err != nil {
		return err
	}
	if _, err = j.file.WriteAt(b, j.size); err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		// What is behind the last good line now is unknown, and a failed fsync cannot be repeated.
		j.broken = true
		return err
	}
	fault.Point("journal.appended")
	j.size += int64(len(b))
	return j.ledger.apply(n)
}

// rewrite replaces the file by the shortest one with the same sum.
func (j *journal) rewrite() error {
	temp := j.name + ".new"
	f, err := j.dir.Open(temp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	size, err := writeLines(f, j.ledger)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		fault.Point("journal.rewritten")
		err = j.dir.Rename(temp, j.dir, j.name)
	}
	if err != nil {
		return errors.Join(err, f.Close(), j.dir.Remove(temp))
	}
	old := j.file
	j.file, j.size, j.compact = f, size, size
	err = errors.Join(old.Close(), j.dir.Sync())
	j.broken = err != nil // a power cut may bring back the old file: nothing may be appended to the new one
	return err
}

func writeLines(w io.Writer, l *ledger) (size int64, err error) {
	out := bufio.NewWriterSize(w, 1<<16)
	for n := range l.lines {
		b, err := encodeLine(n)
		if err != nil {
			return size, err
		}
		if _, err := out.Write(b); err != nil {
			return size, err
		}
		size += int64(len(b))
	}
	return size, out.Flush()
}

// The readers below give the ledger's state; the maps they hand out are copies.

func (j *journal) head() header {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.ledger.header
}

func (j *journal) at(path string) (base, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	b, ok := j.ledger.base[path]
	return b, ok
}

func (j *journal) files() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.ledger.base)
}

// eachFile calls fn for every file that the mirror wrote. Fn must not use the journal.
func (j *journal) eachFile(fn func(path string)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for p := range j.ledger.base {
		fn(p)
	}
}

// filesBelow gives the files that the mirror wrote at and below a path.
func (j *journal) filesBelow(path string) (paths []string) {
	j.eachFile(func(p string) {
		if contains(path, p) {
			paths = append(paths, p)
		}
	})
	return paths
}

func (j *journal) dirs() map[string]struct{} {
	j.mu.Lock()
	defer j.mu.Unlock()
	return maps.Clone(j.ledger.dirs)
}

func (j *journal) madeDir(path string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	_, ok := j.ledger.dirs[path]
	return ok
}

func (j *journal) due() map[string]map[string]mark {
	j.mu.Lock()
	defer j.mu.Unlock()
	due := make(map[string]map[string]mark, len(j.ledger.due))
	for t, paths := range j.ledger.due {
		due[t] = maps.Clone(paths)
	}
	return due
}

// unsettled gives what was staged without a known outcome.
func (j *journal) unsettled() []stagedFile {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.ledger.staged
}

// onTrial gives the change that may have to go back, and whether all of it is live.
func (j *journal) onTrial() (trial []triedFile, live bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.ledger.trial, j.ledger.live
}

// shown gives the version that is shown, if the mirror swaps.
func (j *journal) shown() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.ledger.shown
}

// shownBefore gives the version that was shown before.
func (j *journal) shownBefore() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.ledger.before
}

// swapping gives the swap whose outcome is not known, or nil.
func (j *journal) swapping() *swap {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.ledger.swap
}

// nextSeq numbers the next outcome.
func (j *journal) nextSeq() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.ledger.seq + 1
}
