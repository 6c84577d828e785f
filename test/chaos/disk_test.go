package chaos

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// disk is where a host keeps its data. The zero kind is a plain directory.
type disk struct {
	kind  string // "tmpfs", "ext4" or ""
	dir   string
	image string
}

// makeDisk gives a host's data directory a file system of its own, or says why that is not possible here.
func makeDisk(t testing.TB, kind, dir string) (*disk, error) {
	t.Helper()
	d := &disk{kind: kind, dir: dir, image: dir + ".img"}
	if kind == "" {
		return d, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if kind == "ext4" {
		for _, tool := range []string{"mkfs.ext4", "e2fsck", "xfs_io"} {
			if _, err := exec.LookPath(tool); err != nil {
				return nil, fmt.Errorf("%s is not installed", tool)
			}
		}
		if err := os.WriteFile(d.image, nil, 0o600); err != nil {
			return nil, err
		}
		if err := os.Truncate(d.image, 1<<30); err != nil {
			return nil, err
		}
		if err := command("", "mkfs.ext4", "-q", "-F", d.image); err != nil {
			return nil, err
		}
	}
	if err := d.mount(); err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return d, nil
}

func (d *disk) mount() error {
	if d.kind == "tmpfs" {
		return command("", "mount", "-t", "tmpfs", "-o", "size=320m", "chaos", d.dir)
	}
	return command("", "mount", "-o", "loop", d.image, d.dir)
}

// again mounts an ext4 as a reboot does. Nobody may use it.
func (d *disk) again() error {
	if err := command("", "umount", d.dir); err != nil {
		return err
	}
	// 1: errors were mended, as after a file system that went read-only
	if err := command("", "e2fsck", "-p", d.image); err != nil && exitCode(err) > 1 {
		return err
	}
	return d.mount()
}

// fill leaves so many bytes free.
func (d *disk) fill(leave uint64) error {
	f, err := os.Create(d.ballast())
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // nobody reads it
	block := make([]byte, 1<<20)
	for {
		var st syscall.Statfs_t
		if err := syscall.Statfs(d.dir, &st); err != nil {
			return err
		}
		if st.Bavail*uint64(st.Bsize) <= leave {
			return nil
		}
		if _, err := f.Write(block); err != nil {
			return err
		}
	}
}

func (d *disk) ballast() string { return filepath.Join(d.dir, "ballast") }
