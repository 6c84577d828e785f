package main

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"syncagent/agent"
)

// writeFile replaces a file as a whole and durably: a crash leaves the old content or the new one.
func writeFile(name string, content []byte, mode fs.FileMode) (err error) {
	dir := filepath.Dir(name)
	temp, err := os.CreateTemp(dir, ".syncagent-new-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, plain(err))
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temp.Name())
			err = fmt.Errorf("write %s: %w", name, plain(err))
		}
	}()
	_, err = temp.Write(content)
	if err == nil {
		err = temp.Chmod(mode)
	}
	if err == nil {
		err = temp.Sync()
	}
	if err = errors.Join(err, temp.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp.Name(), name); err != nil {
		return err
	}
	d, err := os.Open(dir)
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
