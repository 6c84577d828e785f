package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// listenSocket listens on a unix socket with the given mode and group. A socket that a dead agent left is replaced, one
// that answers is not. The socket is made under another name and moved into place, so that nobody can connect before
// its mode is set.
func listenSocket(c APIConfig) (net.Listener, error) {
	dir := filepath.Dir(c.Socket)
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // the socket has its own mode; others may look it up
		return nil, fmt.Errorf("make directory of socket: %w", err)
	}
	if err := refuseLiveSocket(c.Socket); err != nil {
		return nil, err
	}
	temp := filepath.Join(dir, fmt.Sprintf(".s%d", os.Getpid()))
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temp, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", c.Socket, err)
	}
	l.SetUnlinkOnClose(false) // the name will be another one
	if err := placeSocket(temp, c); err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", c.Socket, err), l.Close(), os.Remove(temp))
	}
	info, err := os.Lstat(c.Socket)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", c.Socket, err), l.Close())
	}
	return &socketListener{UnixListener: l, file: c.Socket, info: info}, nil
}

func placeSocket(temp string, c APIConfig) error {
	if c.SocketGroup != "" {
		gid, err := lookupGroup(c.SocketGroup)
		if err != nil {
			return err
		}
		if err := os.Chown(temp, -1, gid); err != nil {
			return &Error{Code: CodeBadConfig, Err: err, Message: fmt.Sprintf("give socket to group %s: %v", c.SocketGroup, err),
				Hint: "the agent's user must be in the group of api.socket_group"}
		}
	}
	if err := os.Chmod(temp, fs.FileMode(c.SocketMode)); err != nil {
		return err
	}
	return os.Rename(temp, c.Socket)
}

// refuseLiveSocket returns an error if something answers at the path, or if it is no socket.
func refuseLiveSocket(file string) error {
	info, err := os.Lstat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return &Error{Code: CodeInUse, Message: file + " exists and is not a socket", Hint: "remove it or change api.socket"}
	}
	conn, err := net.DialTimeout("unix", file, time.Second)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil // nobody behind it
	}
	if err == nil {
		_ = conn.Close()
	}
	return &Error{Code: CodeInUse, Message: "another agent listens on " + file, Hint: "stop it, or give this one its own api.socket and data_dir"}
}

// socketListener removes its name when it closes, unless another agent has taken the name over.
type socketListener struct {
	*net.UnixListener
	file string
	info fs.FileInfo
}

func (l *socketListener) Close() error {
	if info, err := os.Lstat(l.file); err == nil && os.SameFile(info, l.info) {
		_ = os.Remove(l.file)
	}
	return l.UnixListener.Close()
}

// listenTCP listens on the address that key of the configuration names.
func listenTCP(key, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, &Error{Code: CodeInUse, Err: err, Message: "address " + address + " of " + key + " is in use",
			Hint: "stop what listens there, or change " + key + " (empty: do not listen)"}
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", key, err)
	}
	return l, nil
}
