package mirror

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestDiskFullLeavesOldFilesWhole(t *testing.T) {
	b := newBench(t)
	if err := os.Mkdir(b.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", b.dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("a small file system cannot be mounted here: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(b.dir, syscall.MNT_DETACH) })
	b.src.write(put("/p/a", strings.Repeat("1", 64<<10)), put("/p/b", "1"))
	b.mustOnce()
	old := b.files()
	b.src.write(put("/p/a", strings.Repeat("2", 512<<10)), put("/p/b", "2"))
	if err := b.once(); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("error %v, want ENOSPC", err)
	}
	b.expect(old)
	m := b.run()
	eventually(t, "failing", func() bool { return m.Status().State == StateFailing })
	b.expect(old)
	b.src.write(put("/p/a", "3"))
	eventually(t, "repaired", func() bool { return m.Status().State == StateOK })
	b.expect(map[string]string{"a": "3", "b": "2"})

	if err := syscall.Mount("tmpfs", b.dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Skipf("it cannot be made read-only: %v", err)
	}
	b.src.write(put("/p/b", "4"))
	eventually(t, "read-only", func() bool { return strings.Contains(m.Status().LastError, "read-only") })
	b.expect(map[string]string{"a": "3", "b": "2"})
}
