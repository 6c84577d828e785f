package agent

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func codeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return ""
}

func TestKeyFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "identity.key")
	if _, err := LoadKey(file); codeOf(err) != CodeNoKeyFile || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	made, err := CreateKey(file)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if read, err := LoadKey(file); err != nil || !read.Equal(made) {
		t.Errorf("read back: %v", err)
	}
	if _, err := CreateKey(file); !errors.Is(err, fs.ErrExist) {
		t.Errorf("an existing key was replaced: %v", err)
	}
	if read, err := LoadKey(file); err != nil || !read.Equal(made) {
		t.Errorf("after the refused creation: %v", err)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 1 {
		t.Errorf("left behind: %v %v", names, err)
	}
}

func TestKeyFileModes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "identity.key")
	if _, err := CreateKey(file); err != nil {
		t.Fatal(err)
	}
	for mode, bad := range map[fs.FileMode]bool{0o600: false, 0o400: false, 0o640: true, 0o604: true, 0o620: true, 0o644: true, 0o601: true} {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		_, err := LoadKey(file)
		if bad != (codeOf(err) == CodeBadKeyFile) {
			t.Errorf("%v: %v", mode, err)
		}
	}
}

func TestKeyFileContent(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	if _, err := CreateKey(good); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"empty":  "",
		"text":   "secret",
		"type":   strings.ReplaceAll(string(text), "PRIVATE", "EC PRIVATE"),
		"der":    "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n",
		"double": string(text) + string(text),
	} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := LoadKey(file)
		if codeOf(err) != CodeBadKeyFile || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := LoadKey(dir); codeOf(err) != CodeBadKeyFile {
		t.Errorf("a directory: %v", err)
	}
}

// Of many who create a key at once one wins, and its key is in the file.
func TestKeyFileRace(t *testing.T) {
	file := filepath.Join(t.TempDir(), "identity.key")
	var won atomic.Int32
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			key, err := CreateKey(file)
			if err != nil {
				return
			}
			won.Add(1)
			if read, err := LoadKey(file); err != nil || !read.Equal(key) {
				t.Errorf("the winner's key is not in the file: %v", err)
			}
		})
	}
	group.Wait()
	if won.Load() != 1 {
		t.Errorf("%d winners", won.Load())
	}
}
