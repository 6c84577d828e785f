package crdtstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// logs syncs the logs of badger's memtables, which hold every row that is in no table yet. badger's own Sync leaves out
// a memtable that is full and on its way into a table: after a power cut the rows of the last second could be missing
// below later ones that were synced. And it syncs its value log, in which we have next to nothing, at the price of the
// rest.
type logs struct {
	dir      string
	datasync func(*os.File) error
	arrivals *arrivals // in dir

	mu     sync.Mutex
	file   *os.File // the log that is written to
	number int      // of file; those below are full and synced
	failed error    // of a sync
}

// sync makes durable what was written before it was called. After it failed once it fails for good: the kernel tells of a
// page that it could not write only once, so a later success would say nothing of what was written before.
func (l *logs) sync() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed == nil {
		l.failed = l.syncAll()
	}
	return l.failed
}

func (l *logs) syncAll() error {
	if l.file != nil && l.arrivals.none() {
		return l.syncFile()
	}
	numbers, err := l.list()
	if err != nil {
		return err
	}
	for _, n := range numbers {
		if n < l.number || n == l.number && l.file != nil {
			continue
		}
		if err := l.syncFile(); err != nil { // it is full now
			return err
		}
		f, err := os.OpenFile(filepath.Join(l.dir, logName(n)), os.O_RDWR, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has become a table, and tables are synced
		}
		if err != nil {
			return err
		}
		l.closeFile()
		l.file, l.number = f, n
		if err := syncDir(l.dir); err != nil { // badger does not: the name of the new log
			return err
		}
	}
	return l.syncFile()
}

func (l *logs) syncFile() error {
	if l.file == nil {
		return nil
	}
	return l.datasync(l.file)
}

// list gives the numbers of the logs that there are, ascending.
func (l *logs) list() (numbers []int, err error) {
	d, err := os.Open(l.dir)
	if err != nil {
		return nil, err
	}
	defer d.Close() //nolint:errcheck // it is only read
	names, err := d.Readdirnames(-1)
	for _, name := range names {
		if digits, ok := strings.CutSuffix(name, ".mem"); ok {
			if n, err := strconv.Atoi(digits); err == nil && logName(n) == name {
				numbers = append(numbers, n)
			}
		}
	}
	slices.Sort(numbers)
	return numbers, err
}

// logName is how badger names the log of a memtable.
func logName(n int) string { return fmt.Sprintf("%05d.mem", n) }

func (l *logs) close() {
	l.closeFile()
	l.arrivals.close()
}

func (l *logs) closeFile() {
	if l.file != nil {
		_ = l.file.Close() // synced, and badger has its own
		l.file = nil
	}
}
