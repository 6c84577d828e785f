package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	apiv1 "syncagent/agent/api/v1"
)

// The store of one agent lies on a small file system that somebody else fills.
func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may mount the small file system that this test fills")
	}
	f := newFleet(t, "a", "b")
	a, b := f.hosts[0], f.hosts[1]
	if err := syscall.Mount("tmpfs", b.data(), "tmpfs", 0, "size=192m"); err != nil {
		t.Skip("no file system can be mounted here:", err)
	}
	t.Cleanup(func() {
		b.kill()
		if err := syscall.Unmount(b.data(), syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	b.env = []string{"SYNCAGENT_STORE_MIN_FREE=32MiB"}
	f.start()
	f.apply(everything)
	f.connect()
	b.mustPut("/before", "x")
	f.converge()

	ballast := filepath.Join(b.data(), "ballast")
	fill(t, ballast, b.data(), 16<<20)
	eventually(t, func() error { // free space is looked at now and then
		if out, errs, code := b.cli("put", "/full", "x"); code != 1 {
			return fmt.Errorf("put on a full disk: exit code %d, %s%s", code, out, errs)
		}
		return nil
	})
	_, errs, _ := b.cli("put", "/full", "x")
	if !strings.Contains(errs, "disk") || !strings.Contains(errs, "hint:") {
		t.Errorf("put on a full disk says %q", errs)
	}
	if s := b.status(); !hasAlarm(s.Alarms, "disk") {
		t.Errorf("alarms %v do not tell of the disk", s.Alarms)
	}
	if got := b.must("get", "/before"); got != "x" {
		t.Errorf("get on a full disk gives %q", got)
	}
	// Others go on, and what they write does not push the disk over the edge.
	for i := range 400 {
		a.mustPut(fmt.Sprintf("/others/%d", i), strings.Repeat(fmt.Sprintf("%08d", i), 16<<10)) // 50 MiB
	}
	if got := b.must("get", "/before"); got != "x" || !b.alive() {
		t.Errorf("get on a full disk gives %q, agent alive %t", got, b.alive())
	}
	// It can be started again to be read, as long as a start is safe; else it says why not.
	b.stop()
	b.start()
	if got := b.must("get", "/before"); got != "x" {
		t.Errorf("get after a start with a full disk gives %q", got)
	}
	b.stop()
	fill(t, filepath.Join(b.data(), "more"), b.data(), 4<<20)
	_, errs, code := b.cli("agent")
	if code != 1 || !strings.Contains(errs, "disk") || !strings.Contains(errs, "hint:") {
		t.Errorf("start without any space: exit code %d, %q", code, errs)
	}
	if err := os.Remove(filepath.Join(b.data(), "more")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	f.start()
	f.converge()
	eventually(t, func() error { return b.put("/after", "x") })
	f.converge()
}

func hasAlarm(alarms []*apiv1.Alarm, code string) bool {
	return slices.ContainsFunc(alarms, func(a *apiv1.Alarm) bool { return strings.Contains(a.Code, code) })
}

// fill writes a file until so many bytes are free.
func fill(t *testing.T, name, dir string, leave uint64) {
	t.Helper()
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	block := make([]byte, 1<<20)
	for {
		var st syscall.Statfs_t
		if err := syscall.Statfs(dir, &st); err != nil {
			t.Fatal(err)
		}
		if st.Bavail*uint64(st.Bsize) <= leave {
			return
		}
		if _, err := file.Write(block); err != nil {
			t.Fatal(err)
		}
	}
}
