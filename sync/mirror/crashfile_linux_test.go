package mirror

import (
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"syscall"
	"time"
)

// crashFolder is a directory of a crashDisk.
type crashFolder struct {
	disk *crashDisk
	*node
}

func (f crashFolder) Stat() (fs.FileInfo, error) { return nodeInfo{".", f.node}, f.disk.power() }

func (f crashFolder) get(op, name string) (*node, error) {
	n := f.names[name]
	if n == nil {
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
	}
	return n, f.disk.power()
}

func (f crashFolder) Lstat(name string) (fs.FileInfo, error) {
	n, err := f.get("lstat", name)
	if err != nil {
		return nil, err
	}
	return nodeInfo{name, n}, nil
}

func (f crashFolder) Entries() (entries []fs.DirEntry, err error) {
	for _, name := range slices.Sorted(maps.Keys(f.names)) {
		entries = append(entries, nodeInfo{name, f.names[name]})
	}
	return entries, f.disk.power()
}

func (f crashFolder) Names() ([]string, error) {
	return slices.Sorted(maps.Keys(f.names)), f.disk.power()
}

func (f crashFolder) Open(name string, flag int, mode fs.FileMode) (file, error) {
	if flag == readFlags {
		f.disk.reads++
	}
	n, err := f.get("open", name)
	switch {
	case err == nil && flag&os.O_EXCL != 0:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrExist}
	case err == nil && flag&os.O_TRUNC != 0:
		if err := f.disk.step(); err != nil {
			return nil, err
		}
		n.data = nil
	case err != nil && flag&os.O_CREATE != 0:
		n = f.disk.make(0, mode)
		n.keep()
		if err := f.disk.change(nameEdit{f.node, name, n}); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	}
	return &crashFile{disk: f.disk, node: n}, nil
}

func (f crashFolder) OpenLocked(name string, flag int, mode fs.FileMode) (file, error) {
	return f.Open(name, flag, mode)
}

func (f crashFolder) Folder(name string) (folder, error) {
	n, err := f.get("open", name)
	if err != nil {
		return nil, err
	}
	if n.kind != fs.ModeDir {
		return nil, syscall.ENOTDIR
	}
	return crashFolder{f.disk, n}, nil
}

func (f crashFolder) Mkdir(name string, mode fs.FileMode) error {
	if f.names[name] != nil {
		return &fs.PathError{Op: "mkdir", Path: name, Err: fs.ErrExist}
	}
	return f.disk.change(nameEdit{f.node, name, f.disk.make(fs.ModeDir, mode)})
}

func (f crashFolder) Rename(name string, to folder, as string) error {
	f.disk.about(f.node, name)
	f.disk.about(to.(crashFolder).node, as)
	n, err := f.get("rename", name)
	if err != nil {
		return err
	}
	there := to.(crashFolder)
	switch old := there.names[as]; {
	case old == nil:
	case old.IsDir() && !n.IsDir():
		return &fs.PathError{Op: "rename", Path: as, Err: syscall.EISDIR}
	case n.IsDir() && (!old.IsDir() || len(old.names) > 0):
		return &fs.PathError{Op: "rename", Path: as, Err: syscall.ENOTEMPTY}
	}
	return f.disk.change(nameEdit{f.node, name, nil}, nameEdit{there.node, as, n})
}

func (f crashFolder) Exchange(name string, to folder, as string) error {
	f.disk.about(to.(crashFolder).node, as)
	n, err := f.get("exchange", name)
	if err != nil {
		return err
	}
	there := to.(crashFolder)
	old := there.names[as]
	if old == nil {
		return &fs.PathError{Op: "exchange", Path: as, Err: fs.ErrNotExist}
	}
	return f.disk.change(nameEdit{f.node, name, old}, nameEdit{there.node, as, n})
}

func (n *node) IsDir() bool { return n.kind == fs.ModeDir }

func (f crashFolder) Link(name string, to folder, as string) error {
	f.disk.about(to.(crashFolder).node, as)
	n, err := f.get("link", name)
	if err != nil {
		return err
	}
	if to.(crashFolder).names[as] != nil {
		return &fs.PathError{Op: "link", Path: as, Err: fs.ErrExist}
	}
	return f.disk.change(nameEdit{to.(crashFolder).node, as, n})
}

func (f crashFolder) Symlink(target, name string) error {
	if f.names[name] != nil {
		return &fs.PathError{Op: "symlink", Path: name, Err: fs.ErrExist}
	}
	n := f.disk.make(fs.ModeSymlink, 0o777)
	n.target = target
	return f.disk.change(nameEdit{f.node, name, n})
}

func (f crashFolder) Readlink(name string) (string, error) {
	n, err := f.get("readlink", name)
	if err != nil {
		return "", err
	}
	if n.kind != fs.ModeSymlink {
		return "", syscall.EINVAL
	}
	return n.target, nil
}

func (f crashFolder) Remove(name string) error {
	n, err := f.get("remove", name)
	if err != nil {
		return err
	}
	if len(n.names) > 0 {
		return &fs.PathError{Op: "remove", Path: name, Err: syscall.ENOTEMPTY}
	}
	return f.disk.change(nameEdit{f.node, name, nil})
}

func (f crashFolder) RemoveAll(name string) error {
	n := f.names[name]
	if n == nil {
		return f.disk.power()
	}
	for _, below := range slices.Sorted(maps.Keys(n.names)) {
		if err := (crashFolder{f.disk, n}).RemoveAll(below); err != nil {
			return err
		}
	}
	return f.Remove(name)
}

func (f crashFolder) Dress(owner, group int, mode fs.FileMode) error {
	return dress(&crashFile{disk: f.disk, node: f.node}, owner, group, mode)
}

func (f crashFolder) Touch(at time.Time) error {
	if err := f.disk.step(); err != nil {
		return err
	}
	f.wrote = at.UnixNano()
	return nil
}

func (f crashFolder) Sync() error {
	if err := f.disk.step(); err != nil {
		return err
	}
	f.disk.sync(f.node)
	return nil
}

func (crashFolder) Close() error { return nil }

// crashFile is an open file of a crashDisk.
type crashFile struct {
	disk *crashDisk
	*node
	at int64
}

func (f *crashFile) Read(p []byte) (int, error) {
	if err := f.disk.power(); err != nil {
		return 0, err
	}
	n := copy(p, f.data[min(f.at, int64(len(f.data))):])
	if f.at += int64(n); n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (f *crashFile) Write(p []byte) (int, error) {
	n, err := f.WriteAt(p, f.at)
	f.at += int64(n)
	return n, err
}

func (f *crashFile) WriteAt(p []byte, at int64) (int, error) {
	if err := f.disk.step(); err != nil {
		return 0, err
	}
	grown := max(int64(len(f.data)), at+int64(len(p)))
	f.data = append(f.data, make([]byte, grown-int64(len(f.data)))...)
	copy(f.data[at:], p)
	f.changed, f.wrote = f.disk.clock.Load(), f.disk.clock.Load()
	return len(p), nil
}

func (f *crashFile) Stat() (fs.FileInfo, error) { return nodeInfo{"", f.node}, f.disk.power() }

func (f *crashFile) Chown(uid, gid int) error {
	if err := f.disk.step(); err != nil {
		return err
	}
	f.owner, f.group, f.changed = uid, gid, f.disk.clock.Load()
	return nil
}

func (f *crashFile) Chmod(mode fs.FileMode) error {
	if err := f.disk.step(); err != nil {
		return err
	}
	f.mode, f.changed = mode, f.disk.clock.Load()
	return nil
}

func (f *crashFile) Truncate(size int64) error {
	if err := f.disk.step(); err != nil {
		return err
	}
	f.data = f.data[:size]
	return nil
}

func (f *crashFile) Sync() error {
	if err := f.disk.step(); err != nil {
		return err
	}
	f.keep()
	return nil
}

func (*crashFile) Close() error { return nil }
