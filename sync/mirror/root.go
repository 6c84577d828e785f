package mirror

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"syncagent/crdtstore/fault"
)

// markerName is the file that guards the root of a mirror.
const markerName = ours + "-mirror"

// marker is its content.
type marker struct {
	ID     string `json:"id"`
	Prefix string `json:"prefix"`
}

// HaltError says why a mirror stands still until somebody acts: its root is not the directory that it has been mirroring
// into. Nothing in it was touched.
type HaltError struct {
	Dir     string
	Reason  string
	Journal string // removing it makes the mirror start afresh, as the owner of nothing
}

func (e *HaltError) Error() string { return fmt.Sprintf("mirror %s: halted: %s", e.Dir, e.Reason) }

// Is makes errors.Is(err, ErrHalted) true.
func (e *HaltError) Is(target error) bool { return target == ErrHalted }

// root is an open and locked root directory.
type root struct {
	dir    string
	disk   disk
	r      folder
	marker file // held open: the lock ends with it
	id     string

	journal string // its path, for messages
}

func (r *root) close() error { return errors.Join(r.marker.Close(), r.r.Close()) }

// openRoot opens the directory that the journal's header names, or, if there is no header yet, makes or adopts it. All
// errors that need somebody's hand are HaltErrors; ErrBusy: another process mirrors into it.
func openRoot(d disk, dir, prefix string, head header, journal string) (*root, error) {
	halt, fresh := halting(dir, journal), head.ID == ""
	if err := checkPlace(d, dir, prefix, head, halt); err != nil {
		return nil, err
	}
	if fresh {
		if err := d.MkdirAll(dir, dirMode); err != nil {
			return nil, fmt.Errorf("make mirror: %w", err)
		}
	}
	top, err := openTop(d, dir, halt)
	if err != nil {
		return nil, err
	}
	r := &root{dir: dir, disk: d, r: top, journal: journal}
	if err := r.openMarker(prefix, fresh); err != nil {
		_ = top.Close() // opened for reading
		return nil, markerFault(dir, err, halt)
	}
	if !fresh && r.id != head.ID {
		return nil, errors.Join(halt("its marker is of another mirror"), r.close())
	}
	return r, nil
}

// halting makes the HaltErrors of one root.
func halting(dir, journal string) func(reason string, args ...any) error {
	return func(reason string, args ...any) error {
		return &HaltError{Dir: dir, Reason: fmt.Sprintf(reason, args...), Journal: journal}
	}
}

// checkPlace refuses a root that is not this mirror's to take, by what its journal and the directories above it say.
func checkPlace(d disk, dir, prefix string, head header, halt func(string, ...any) error) error {
	if head.ID != "" && head.Prefix != prefix {
		return halt("it mirrors %s, not %s", head.Prefix, prefix)
	}
	if up := markedAbove(d, dir); up != "" {
		return halt("it lies in %s, which is a mirror itself", up)
	}
	return nil
}

// openTop opens the directory if it is one.
func openTop(d disk, dir string, halt func(string, ...any) error) (folder, error) {
	before, err := d.Lstat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, halt("the directory is gone")
	case err != nil:
		return nil, fmt.Errorf("open mirror: %w", err)
	case before.Mode()&fs.ModeSymlink != 0:
		return nil, halt("it is a symbolic link")
	case !before.IsDir():
		return nil, halt("it is no directory")
	}
	top, err := d.Folder(dir)
	if err != nil {
		return nil, fmt.Errorf("open mirror: %w", err)
	}
	return top, nil
}

// markerFault says whether somebody has to look at what is wrong with the marker.
func markerFault(dir string, err error, halt func(string, ...any) error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return halt("its marker %s is gone: it was emptied, or is another directory", markerName)
	case errors.Is(err, errForeign):
		return halt("%s", err)
	}
	return fmt.Errorf("open mirror %s: %w", dir, err)
}

var errForeign = errors.New("its marker is not one of this mirror")

// openMarker opens, locks and reads the marker; with fresh it makes one if there is none.
func (r *root) openMarker(prefix string, fresh bool) (err error) {
	info, err := r.r.Lstat(markerName)
	if fresh && errors.Is(err, fs.ErrNotExist) {
		if err = r.makeMarker(prefix); err == nil {
			info, err = r.r.Lstat(markerName)
		}
	}
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: no regular file", errForeign)
	}
	f, err := r.r.OpenLocked(markerName, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	m, err := readMarker(f, info, prefix)
	if err != nil {
		_ = f.Close() // opened for reading
		return err
	}
	r.marker, r.id = f, m.ID
	return nil
}

func readMarker(f file, before fs.FileInfo, prefix string) (m marker, err error) {
	opened, err := f.Stat()
	if err != nil {
		return m, err
	}
	if !sameFile(before, opened) {
		return m, errSwapped
	}
	b, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return m, err
	}
	if json.Unmarshal(b, &m) != nil || m.ID == "" {
		return m, fmt.Errorf("%w: unreadable", errForeign)
	}
	if m.Prefix != prefix {
		return m, fmt.Errorf("%w: it mirrors %s, not %s", errForeign, m.Prefix, prefix)
	}
	return m, nil
}

func (r *root) makeMarker(prefix string) error {
	var id [16]byte
	rand.Read(id[:])
	text, err := json.Marshal(marker{hex.EncodeToString(id[:]), prefix})
	if err != nil {
		return err
	}
	// Written aside first: a crash must not leave half a marker, which would halt the mirror for ever. Should another
	// process do the same at this moment, one of the two will find that its marker is gone.
	temp := tempPrefix + hex.EncodeToString(id[:8]) + tempSuffix
	f, err := r.r.Open(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		fault.Point("mirror.marker-written")
		err = r.r.Rename(temp, r.r, markerName)
	}
	if err != nil {
		return errors.Join(err, r.r.Remove(temp))
	}
	return errors.Join(r.r.Sync(), syncDir(r.disk, filepath.Dir(r.dir)))
}

// check tells whether the open root is still the one that its name leads to, with its marker.
func (r *root) check() error {
	if fault.Planted("trust-root") {
		return nil
	}
	halt := halting(r.dir, r.journal)
	open, err := r.r.Stat()
	if err != nil {
		return fmt.Errorf("check mirror: %w", err)
	}
	named, err := r.disk.Lstat(r.dir)
	if err != nil || !sameFile(open, named) {
		return halt("the directory was taken away or replaced")
	}
	held, err := r.marker.Stat()
	if err != nil {
		return fmt.Errorf("check mirror: %w", err)
	}
	found, err := r.r.Lstat(markerName)
	if err != nil || !sameFile(held, found) {
		return halt("its marker %s is gone", markerName)
	}
	return nil
}
