package crdtstore

import "golang.org/x/sys/unix"

// diskFree gives the bytes that an unprivileged process may still write below dir.
func diskFree(dir string) (uint64, bool) {
	var st unix.Statfs_t
	if dir == "" || unix.Statfs(dir, &st) != nil {
		return 0, false
	}
	return st.Bavail * uint64(st.Bsize), true //nolint:gosec // a block size is positive
}
