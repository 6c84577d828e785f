package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
)

// mirrorNames is how everything begins that a mirror puts beside its files. It is never imported.
const mirrorNames = ".syncagent"

// walkFiles calls file for every regular file below root, depth first, names ascending. What is neither file nor
// directory, and what cannot be read, goes to skip. Symbolic links are never followed; the kernel-assisted checks of
// os.Root hold even if somebody swaps a directory for a link during the walk.
func walkFiles(root *os.Root, skip func(name string, err error), file func(name string) error) error {
	dirs := []string{"."}
	for len(dirs) > 0 {
		dir := dirs[len(dirs)-1]
		dirs = dirs[:len(dirs)-1]
		entries, err := readDir(root, dir)
		if err != nil {
			if dir == "." {
				return fmt.Errorf("read directory: %w", err)
			}
			skip(dir, plain(err))
			continue
		}
		var below []string
		for _, e := range entries {
			name := path.Join(dir, e.Name())
			switch kind := e.Type(); {
			case strings.HasPrefix(e.Name(), mirrorNames):
			case kind.IsDir():
				below = append(below, name)
			case kind.IsRegular():
				if err := file(name); err != nil {
					return err
				}
			default:
				skip(name, errors.New(kindName(kind)))
			}
		}
		slices.Reverse(below)
		dirs = append(dirs, below...)
	}
	return nil
}

func readDir(root *os.Root, name string) ([]fs.DirEntry, error) {
	d, err := root.OpenFile(name, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer d.Close() //nolint:errcheck // read only
	entries, err := d.ReadDir(-1)
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, err
}

// openRegular opens a file that must be regular still. O_NONBLOCK keeps a pipe that took its place from stopping us.
func openRegular(root *os.Root, name string) (*os.File, fs.FileInfo, error) {
	before, err := root.Lstat(name)
	if err != nil {
		return nil, nil, plain(err)
	}
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, plain(err)
	}
	info, err := f.Stat()
	if err == nil && (!os.SameFile(before, info) || !info.Mode().IsRegular()) {
		err = errors.New("it changed while it was read")
	}
	if err != nil {
		return nil, nil, errors.Join(plain(err), f.Close())
	}
	return f, info, nil
}

// plain drops what Go writes around the reason: the caller names the file.
func plain(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err
	}
	return err
}

func kindName(kind fs.FileMode) string {
	switch {
	case kind&fs.ModeSymlink != 0:
		return "symbolic links are not followed"
	case kind&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case kind&fs.ModeSocket != 0:
		return "a socket"
	case kind&fs.ModeDevice != 0:
		return "a device"
	}
	return "not a regular file"
}
