package crdtstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"syncagent/crdtstore/fault"
)

// rebuildList is a file beside the store: the names of the damaged stores whose content is being carried over, one a
// line. It is there from before the first is renamed until all of it is durable in the new store, so a start after a
// crash in between goes on where it must: carrying over twice does no harm.
const rebuildList = "store.rebuilding"

// openDir opens the rows in dir, or, if they are damaged, sets them aside and makes new ones of what verifies.
func (s *Store) openDir(dir string) error {
	list := filepath.Join(filepath.Dir(dir), rebuildList)
	asides, err := readRebuildList(list)
	if err != nil {
		return err
	}
	cause := s.tryOpen(dir)
	if damaged(cause) {
		aside := asideName + s.AgentTime().Format("20060102T150405.000")
		asides = append(asides, aside)
		if err := s.setAside(dir, aside, list, asides); err != nil {
			return errors.Join(cause, err)
		}
		s.log.Error("store is damaged", "error", cause, "moved_to", aside)
		fault.Point("rebuild.set-aside")
		if err := s.tryOpen(dir); err != nil {
			return err
		}
		fault.Point("rebuild.opened")
	} else if cause != nil {
		return cause
	}
	if len(asides) > 0 {
		if err := s.carryOver(list, asides); err != nil {
			return errors.Join(err, s.closeAll())
		}
	}
	s.alarmAside(filepath.Dir(dir), cause)
	return nil
}

// carryOver takes what verifies out of all stores in the list, and then removes the list.
func (s *Store) carryOver(list string, asides []string) (err error) {
	if s.carried, err = s.chunks.list(); err != nil {
		return err
	}
	for _, aside := range asides {
		if err := s.takeOver(s.salvage(filepath.Join(filepath.Dir(list), aside))); err != nil {
			return err
		}
		fault.Point("rebuild.taken-over")
	}
	s.carried = nil
	if err := os.Remove(list); err != nil {
		return fmt.Errorf("rebuild store: %w", err)
	}
	fault.Point("rebuild.list-removed")
	return nil
}

// alarmAside alarms for as long as a damaged store lies there: neither a restart nor a crash may hide it.
func (s *Store) alarmAside(dir string, cause error) {
	asides, err := filepath.Glob(filepath.Join(dir, asideName+"*"))
	if err != nil || len(asides) == 0 {
		return
	}
	reason := ""
	if cause != nil {
		reason = " (" + cause.Error() + ")"
	}
	s.alarm("store-damaged", fmt.Sprintf("the store was damaged%s; it was moved to %s, what still verified was carried over, the "+
		"rest comes from the other agents; delete it when they are equal again", reason, strings.Join(asides, ", ")))
}

// setAside notes a damaged store in the list and renames it.
func (s *Store) setAside(dir, aside, list string, asides []string) error {
	if err := writeRebuildList(list, asides); err != nil {
		return fmt.Errorf("set damaged store aside: %w", err)
	}
	fault.Point("rebuild.noted")
	if err := os.Rename(dir, filepath.Join(filepath.Dir(dir), aside)); err != nil {
		return fmt.Errorf("set damaged store aside: %w", err)
	}
	return syncDir(filepath.Dir(dir))
}

// readRebuildList gives the damaged stores that are not carried over yet. One that is listed, but was not renamed before
// the crash, is met again as damaged.
func readRebuildList(list string) (asides []string, err error) {
	text, err := os.ReadFile(list)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, name := range strings.Fields(string(text)) {
		if _, err := os.Stat(filepath.Join(filepath.Dir(list), filepath.Base(name))); err == nil {
			asides = append(asides, filepath.Base(name))
		}
	}
	return asides, err
}

// writeRebuildList replaces the list, durably.
func writeRebuildList(list string, asides []string) error {
	f, err := os.Create(list + ".new")
	if err != nil {
		return err
	}
	_, err = f.WriteString(strings.Join(asides, "\n") + "\n")
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	fault.Point("rebuild.list-written")
	if err := os.Rename(list+".new", list); err != nil {
		return err
	}
	return syncDir(filepath.Dir(list))
}
