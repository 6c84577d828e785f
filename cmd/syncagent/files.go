package main

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"syncagent/agent"
)

// writeFile replaces a file as a whole and durably: a crash leaves the old content or the new one.
func writeFile(name string, content []byte, mode fs.FileMode) error {
	f, err := createFile(name, mode)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, plain(err))
	}
	_, err = f.Write(content)
	if err := f.finish(err); err != nil {
		return fmt.Errorf("write %s: %w", name, plain(err))
	}
	return nil
}

// newFile is a file that gets its name when it is whole.
type newFile struct {
	*os.File
	name string
}

func createFile(name string, mode fs.FileMode) (*newFile, error) {
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		return nil, syscall.EISDIR
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".syncagent-new-*")
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(mode); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return &newFile{f, name}, nil
}

// finish makes the file durable and names it, or, after an error, removes it.
func (f *newFile) finish(err error) error {
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.File.Name(), f.name)
	}
	if err != nil {
		_ = os.Remove(f.File.Name()) // it is not whole
		return err
	}
	d, err := os.Open(filepath.Dir(f.name))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// loadOrCreateKey gives the key in file and makes one if there is no such file.
func loadOrCreateKey(file string) (ed25519.PrivateKey, error) {
	key, err := agent.LoadKey(file)
	if errors.Is(err, fs.ErrNotExist) {
		return agent.CreateKey(file)
	}
	return key, err
}
