package agent

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	keyBlock    = "PRIVATE KEY" // PKCS#8, RFC 5958 in PEM, as openssl genpkey -algorithm ed25519 writes it
	maxKeyBytes = 16 << 10
)

// LoadKey reads an Ed25519 key from a PKCS#8 PEM file. It refuses files that anyone but their owner can read or write.
func LoadKey(file string) (ed25519.PrivateKey, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &Error{
			Code: CodeNoKeyFile, Err: err, Message: "no key file " + file,
			Hint: "syncagent init or syncagent join makes one; a lost identity cannot be made again, the host must join anew",
		}
	}
	if err != nil {
		e := &Error{Code: CodeBadKeyFile, Err: err, Message: fmt.Sprintf("read key file: %v", err)}
		if errors.Is(err, fs.ErrPermission) {
			e.Hint = "run this as the owner of the key: root, or the user of the service"
		}
		return nil, e
	}
	defer f.Close() //nolint:errcheck // read only
	// The mode of the open file, not of the name: nobody can swap it in between.
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("stat key file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, &Error{Code: CodeBadKeyFile, Message: "key file " + file + " is not a regular file"}
	}
	if loose := info.Mode().Perm() & 0o077; loose != 0 {
		return nil, &Error{
			Code:    CodeBadKeyFile,
			Message: fmt.Sprintf("key file %s has mode %04o: others than its owner can use it", file, info.Mode().Perm()),
			Hint:    "chmod 600 " + file + "; if someone may have read it, make a new identity",
		}
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeyBytes))
	if err != nil {
		return nil, fmt.Errorf("read key file: %w", err)
	}
	key, err := parseKey(text)
	if err != nil {
		return nil, &Error{
			Code: CodeBadKeyFile, Err: err, Message: fmt.Sprintf("key file %s: %v", file, err),
			Hint: "it must hold one Ed25519 key as PKCS#8 PEM; restore it from a copy",
		}
	}
	return key, nil
}

func parseKey(text []byte) (ed25519.PrivateKey, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != keyBlock {
		return nil, errors.New("no PEM block " + keyBlock)
	}
	if more, _ := pem.Decode(rest); more != nil {
		return nil, errors.New("more than one PEM block")
	}
	// Its error could quote what is in the file; ours does not.
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("not a PKCS#8 key")
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("not an Ed25519 key")
	}
	return key, nil
}

// CreateKey makes a new key and writes it to file with mode 0600. The file appears whole or not at all, and an existing
// one is never replaced: then the error wraps fs.ErrExist.
func CreateKey(file string) (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: der})
	if err := createFile(file, text, 0o600); err != nil {
		return nil, fmt.Errorf("create key file: %w", err)
	}
	return key, nil
}

// createFile writes a file that must not exist yet, whole or not at all and durably. The name is made by a hard link,
// which unlike a rename fails when the name is taken.
func createFile(file string, content []byte, mode fs.FileMode) (err error) {
	dir := filepath.Dir(file)
	temp, err := os.CreateTemp(dir, ".syncagent-new-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(temp.Name())) }()
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
	if err := os.Link(temp.Name(), file); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
