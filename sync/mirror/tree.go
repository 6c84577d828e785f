package mirror

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"syncagent/crdtstore/fault"
)

// tree does the file operations of one mirror below its root. Paths are relative, with slashes. Each directory is opened
// through the one above it, and every operation names one entry of an open directory: no symbolic link is followed,
// whatever somebody does to the tree meanwhile, and nothing outside the root is reached. Not safe for concurrent use.
type tree struct {
	root  folder // nil: there is none, and nothing in it; only for looking
	owner int    // -1: whoever we are
	group int
	trust map[string]print // files whose content is known to be base's, as long as they look like this

	dirs    map[string]folder   // open directories
	touched map[string]struct{} // directories with new names, not yet synced
	buf     []byte
}

// readFlags keep a FIFO that took a file's place from stopping us.
const readFlags = os.O_RDONLY | syscall.O_NONBLOCK

const (
	maxOpenDirs = 256
	dirMode     = 0o755
	// undressed is the mode of a directory that has just been made, until it has its owner and mode. A crash may leave it
	// so, whatever the umask; nobody else is likely to choose it.
	undressed = 0o500
)

func newTree(root folder, owner, group int, trust map[string]print) *tree {
	return &tree{
		root: root, owner: owner, group: group, trust: trust,
		dirs: map[string]folder{}, touched: map[string]struct{}{}, buf: make([]byte, 64<<10),
	}
}

// closeDirs closes the open directories. The next operations open them again.
func (t *tree) closeDirs() {
	for _, d := range t.dirs {
		_ = d.Close() // opened for reading
	}
	clear(t.dirs)
}

// open gives the directory, to be used before the next call. Errors: fs.ErrNotExist, the reasons above.
func (t *tree) open(dir string) (folder, error) {
	if dir == "." {
		if t.root == nil {
			return nil, fs.ErrNotExist
		}
		return t.root, nil
	}
	if d, ok := t.dirs[dir]; ok {
		return d, nil
	}
	up, err := t.open(parent(dir))
	if err != nil {
		return nil, err
	}
	d, err := openDir(up, name(dir))
	if err != nil {
		return nil, err
	}
	if len(t.dirs) >= maxOpenDirs {
		t.closeDirs()
	}
	t.dirs[dir] = d
	return d, nil
}

// openDir opens one entry of a directory, if it is a directory itself. Folder would follow a link that stays inside;
// comparing what was there before with what was opened tells, even if somebody swaps them in between.
func openDir(up folder, entry string) (folder, error) {
	before, err := up.Lstat(entry)
	switch {
	case err != nil:
		return nil, err
	case before.Mode()&fs.ModeSymlink != 0:
		return nil, errSymlink
	case !before.IsDir():
		return nil, errFileInWay
	}
	d, err := up.Folder(entry)
	if err != nil {
		return nil, err
	}
	opened, err := d.Stat()
	if err == nil && !sameFile(before, opened) {
		err = errSwapped
	}
	if err == nil {
		_, nested := d.Lstat(markerName)
		if nested == nil {
			err = errNested
		}
	}
	if err != nil {
		_ = d.Close() // opened for reading
		return nil, err
	}
	return d, nil
}

// makeDir makes one directory, whose parent exists, with our mode and owner. It is no error if it exists.
func (t *tree) makeDir(dir string) error {
	up, err := t.open(parent(dir))
	if err != nil {
		return err
	}
	err = up.Mkdir(name(dir), undressed)
	if errors.Is(err, fs.ErrExist) {
		_, err = t.open(dir)
		return err
	}
	if err != nil {
		return err
	}
	t.touched[parent(dir)], t.touched[dir] = struct{}{}, struct{}{}
	d, err := t.open(dir)
	if err != nil {
		return err
	}
	return d.Dress(t.owner, t.group, dirMode)
}

// observe says what is on disk at the path.
func (t *tree) observe(i *item) error {
	i.have = have{}
	d, err := t.open(parent(i.path))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errFileInWay) {
		return nil // absent; a file in the way is found again when the directory is to be made
	}
	if err != nil {
		return err
	}
	info, err := d.Lstat(name(i.path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	switch {
	case info.IsDir():
		i.have.kind = directory
		return nil
	case !info.Mode().IsRegular():
		i.have.kind = other
		return nil
	}
	i.have = have{
		kind: regular, size: info.Size(), attrs: t.dressed(info, i.want.mode), mode: info.Mode().Perm(),
		wrote: info.ModTime(), print: printOf(info),
	}
	if i.based && i.base.size == info.Size() {
		i.have.same, err = t.same(d, i.path, info, i.base.hash)
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil // not ours to read: what is wanted replaces it
	}
	return err
}

// dressed tells whether a file has the wanted mode and our owner.
func (t *tree) dressed(info fs.FileInfo, mode fs.FileMode) bool {
	st := info.Sys().(*syscall.Stat_t)
	return info.Mode() == mode && (t.owner < 0 || int(st.Uid) == t.owner) && (t.group < 0 || int(st.Gid) == t.group)
}

// same tells whether the file's content has this hash. It is read only if it may have changed since we last did.
func (t *tree) same(d folder, path string, info fs.FileInfo, h hash) (bool, error) {
	now := printOf(info)
	now.hash = h
	if known, ok := t.trust[path]; ok && known == now {
		return true, nil
	}
	delete(t.trust, path)
	got, err := t.hash(d, name(path), info)
	if err != nil || got != h {
		return false, err
	}
	// A change within one tick of the file system's clock would not show: such a young file is read again next time.
	if now.steady(time.Now()) {
		t.trust[path] = now
	}
	return true, nil
}

// hash reads a regular file of the directory.
func (t *tree) hash(d folder, entry string, info fs.FileInfo) (h hash, err error) {
	f, err := d.Open(entry, readFlags, 0)
	if err != nil {
		return h, err
	}
	defer f.Close() //nolint:errcheck // read only
	opened, err := f.Stat()
	if err != nil {
		return h, err
	}
	if !sameFile(info, opened) {
		return h, errSwapped
	}
	sum := sha256.New()
	// One byte more, so that a file that grows differs and one that grows for ever ends.
	if _, err := io.CopyBuffer(sum, struct{ io.Reader }{io.LimitReader(f, info.Size()+1)}, t.buf); err != nil {
		return h, err
	}
	return hash(sum.Sum(nil)), nil
}

const (
	tempPrefix = ours + "-"
	tempSuffix = ".tmp"
)

// stage writes a new file, fully dressed, under a temporary name beside path. The caller syncs and closes the file, and
// renames or removes it. After an error nothing is left. Errors of content are those of r, unchanged.
func (t *tree) stage(path string, mode fs.FileMode, r io.Reader) (f file, temp string, b base, err error) {
	d, err := t.open(parent(path))
	if err != nil {
		return nil, "", b, err
	}
	temp = tempName()
	if f, err = d.Open(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return nil, "", b, err
	}
	sum := sha256.New()
	b.size, err = io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(f, sum)}, struct{ io.Reader }{r}, t.buf)
	if err == nil && !fault.Planted("undressed") {
		err = dress(f, t.owner, t.group, mode)
	}
	if err != nil {
		_ = f.Close() // it is removed
		return nil, "", b, errors.Join(err, d.Remove(temp))
	}
	b.hash = hash(sum.Sum(nil))
	return f, temp, b, nil
}

// rename puts a staged file in its place. A temp with a slash is a path of its own, in one of our directories.
func (t *tree) rename(path, temp string) error {
	if strings.Contains(temp, "/") {
		return t.move(temp, path)
	}
	d, err := t.open(parent(path))
	if err != nil {
		return err
	}
	if err := d.Rename(temp, d, name(path)); err != nil {
		return err
	}
	t.touched[parent(path)] = struct{}{}
	delete(t.trust, path)
	return nil
}

// discard removes a staged file. It is no error if it is gone.
func (t *tree) discard(path, temp string) error {
	if strings.Contains(temp, "/") {
		path, temp = temp, name(temp)
	}
	d, err := t.open(parent(path))
	if err == nil {
		err = d.Remove(temp)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// remove removes what is at the path, unless it is a directory.
func (t *tree) remove(path string) error {
	d, err := t.open(parent(path))
	if err != nil {
		return err
	}
	info, err := d.Lstat(name(path))
	if err != nil {
		return err
	}
	if info.IsDir() {
		return errDirInWay
	}
	if err := d.Remove(name(path)); err != nil {
		return err
	}
	t.touched[parent(path)] = struct{}{}
	delete(t.trust, path)
	return nil
}

// removeDir removes a directory if it is empty, and tells whether it is gone now.
func (t *tree) removeDir(dir string) (gone bool, err error) {
	up, err := t.open(parent(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	info, err := up.Lstat(name(dir))
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if d, ok := t.dirs[dir]; ok {
		_ = d.Close() // opened for reading
		delete(t.dirs, dir)
	}
	err = up.Remove(name(dir))
	if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EEXIST) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	delete(t.touched, dir)
	t.touched[parent(dir)] = struct{}{}
	return true, nil
}

// sync makes the new names durable, those of directories before what is in them: what was moved to a place is not lost
// with it.
func (t *tree) sync() error {
	for _, dir := range slices.Sorted(maps.Keys(t.touched)) {
		d, err := t.open(dir)
		if errors.Is(err, fs.ErrNotExist) || isReason(err) {
			delete(t.touched, dir) // somebody took it away: there is nothing of ours to keep
			continue
		}
		if err != nil {
			return err
		}
		if err := d.Sync(); err != nil {
			return fmt.Errorf("sync directory %s: %w", dir, err)
		}
		delete(t.touched, dir)
	}
	return nil
}

// sweep removes temporary files that a crash has left in a directory, and finishes one that we were making.
func (t *tree) sweep(dir string, made bool) error {
	d, err := t.open(dir)
	if errors.Is(err, fs.ErrNotExist) || isReason(err) {
		return nil
	}
	if err != nil {
		return err
	}
	names, err := d.Names()
	for _, n := range names {
		if isTemp(n) {
			err = errors.Join(err, d.Remove(n))
		}
	}
	if info, failed := d.Stat(); failed == nil && made && info.Mode().Perm() == undressed {
		err = errors.Join(err, d.Dress(t.owner, t.group, dirMode))
	}
	return err
}

// tempName gives a name for something that gets another one soon. It is swept if a crash comes first.
func tempName() string {
	var random [8]byte
	rand.Read(random[:])
	return tempPrefix + hex.EncodeToString(random[:]) + tempSuffix
}

func isTemp(entry string) bool {
	middle, ok := strings.CutPrefix(entry, tempPrefix)
	if !ok {
		return false
	}
	middle, ok = strings.CutSuffix(middle, tempSuffix)
	_, err := hex.DecodeString(middle)
	return ok && err == nil && len(middle) == 16
}
