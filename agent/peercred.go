package agent

import (
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// credentials say which process opened a connection to the socket, as the kernel noted it then (unix(7), SO_PEERCRED).
type credentials struct {
	uid    uint32
	groups []uint32 // the primary one among them
}

func credentialsOf(c *net.UnixConn) (credentials, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return credentials{}, fmt.Errorf("ask who opened the socket: %w", err)
	}
	var of credentials
	var failed error
	err = raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); failed != nil {
			return
		}
		of.uid = cred.Uid
		if of.groups, failed = peerGroups(fd); failed == nil && !slices.Contains(of.groups, cred.Gid) {
			of.groups = append(of.groups, cred.Gid)
		}
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return credentials{}, fmt.Errorf("ask who opened the socket: %w", err)
	}
	return of, nil
}

// peerGroups gives the supplementary groups of who opened a socket. The databases of the host do not say: a service may
// have been given more or fewer.
func peerGroups(fd uintptr) ([]uint32, error) {
	const room = 65536 // NGROUPS_MAX
	for n := uint32(64); ; n = room {
		b := make([]byte, 4*n)
		size := uint32(len(b))
		// x/sys has the number and no function for it.
		_, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&size)), 0) //nolint:gosec // the kernel keeps within size
		switch {
		case errno == unix.ERANGE && n < room:
			continue
		case errno != 0:
			return nil, errno
		}
		groups := make([]uint32, size/4)
		for i := range groups {
			groups[i] = binary.NativeEndian.Uint32(b[4*i:])
		}
		return groups, nil
	}
}
