package mirror

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"syncagent/sync/trigger"
)

func TestDriftIsRestored(t *testing.T) {
	b := filled(t)
	b.opt.Recheck = 20 * time.Millisecond
	m := b.run()
	eventually(t, "ok", func() bool { return m.Status().State == StateOK })
	want := map[string]string{"a": "1", "d/b": "2", "foreign": "F"}
	// Each harm is one step: the mirror may be at it before a second one.
	for name, harm := range map[string]func() error{
		"edited":            func() error { return os.WriteFile(b.path("a"), []byte("x"), 0o644) },
		"longer":            func() error { return os.WriteFile(b.path("a"), []byte("longer"), 0o644) },
		"removed":           func() error { return os.Remove(b.path("a")) },
		"directory removed": func() error { return os.Rename(b.path("d"), b.dir+".gone") },
		"replaced by a link": func() error {
			return errors.Join(os.Symlink("foreign", b.dir+".x"), os.Rename(b.dir+".x", b.path("a")))
		},
		"replaced by a fifo": func() error {
			return errors.Join(syscall.Mkfifo(b.dir+".x", 0o644), os.Rename(b.dir+".x", b.path("a")))
		},
		"exchanged, old date": func() error { return backdated(b.path("a")) },
	} {
		if err := harm(); err != nil {
			t.Fatal(err)
		}
		eventually(t, name, func() bool {
			got, err := readTree(b.dir)
			return err == nil && show(got) == show(want)
		})
	}
}

// backdated changes a file and hides it: same size, same modification time, same inode.
func backdated(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(path, []byte("7"), 0o644), os.Chtimes(path, info.ModTime(), info.ModTime()))
}

func TestUnreachablePathsAreReportedAndOthersGoOn(t *testing.T) {
	b := newBench(t)
	outside := t.TempDir()
	if err := errors.Join(os.MkdirAll(b.path("dir-in-way/x"), 0o755), os.Symlink(outside, b.path("link"))); err != nil {
		t.Fatal(err)
	}
	b.write("file-in-way", "F")
	b.src.write(put("/p/ok", "1"), put("/p/.syncagent-x", "no"), put("/p/link/a", "no"), put("/p/file-in-way/a", "no"),
		put("/p/dir-in-way", "no"), put("/p/both", "no"), put("/p/both/x", "2"), put("/p", "no"))
	m := b.mirror()
	if err := m.Once(context.Background()); !errors.Is(err, ErrIncomplete) {
		t.Fatalf("error %v, want ErrIncomplete", err)
	}
	want := map[string]string{
		"/p": "prefix itself", "/p/.syncagent-x": "the mirror's own", "/p/link/a": "symbolic link",
		"/p/file-in-way/a": "a file is in the way", "/p/dir-in-way": "a directory is in the way", "/p/both": "paths below it",
	}
	for _, p := range m.Status().Problems {
		if want[p.Path] == "" || !strings.Contains(p.Reason, want[p.Path]) {
			t.Errorf("problem %s: %q, want %q", p.Path, p.Reason, want[p.Path])
		}
		delete(want, p.Path)
	}
	if len(want) > 0 {
		t.Errorf("not reported: %v", want)
	}
	if got := b.files(); got["ok"] != "1" || got["both/x"] != "2" || got["file-in-way"] != "F" {
		t.Errorf("tree %s", show(got))
	}
	if left, _ := os.ReadDir(outside); len(left) != 0 {
		t.Errorf("outside of the root: %v", left)
	}
	if s := m.Status(); s.State != StateIncomplete || s.Pending == 0 {
		t.Errorf("status %+v", s)
	}
}

func TestFilesAndDirectoriesTakeEachOthersPlace(t *testing.T) {
	b := newBench(t)
	b.src.write(put("/p/a", "1"), put("/p/b/x", "2"), put("/p/b/y/z", "3"))
	b.mustOnce()
	b.src.write(del("/p/a"), put("/p/a/x/y", "4"), del("/p/b/x"), del("/p/b/y/z"), put("/p/b", "5"))
	b.mustOnce()
	b.expect(map[string]string{"a/x/y": "4", "b": "5"})
	b.src.write(put("/p/b/x", "6")) // the directory wins
	if err := b.once(); !errors.Is(err, ErrIncomplete) {
		t.Errorf("error %v, want ErrIncomplete", err)
	}
	b.expect(map[string]string{"a/x/y": "4", "b/x": "6"})
	b.src.write(del("/p/b/x"))
	b.mustOnce()
	b.expect(map[string]string{"a/x/y": "4", "b": "5"})
}

func TestOnlyOurDirectoriesAreRemoved(t *testing.T) {
	b := newBench(t)
	if err := os.MkdirAll(b.path("theirs"), 0o755); err != nil {
		t.Fatal(err)
	}
	b.src.write(put("/p/theirs/a", "1"), put("/p/ours/x/b", "2"), put("/p/shared/c", "3"))
	b.mustOnce()
	b.write("shared/foreign", "F")
	b.src.write(del("/p/theirs/a"), del("/p/ours/x/b"), del("/p/shared/c"))
	b.mustOnce()
	b.expect(map[string]string{"theirs/": "", "shared/foreign": "F"})
	if err := os.Remove(b.path("shared/foreign")); err != nil {
		t.Fatal(err)
	}
	b.mustOnce()
	b.expect(map[string]string{"theirs/": ""})
}

func TestMassRemovalIsHeld(t *testing.T) {
	b := newBench(t)
	var puts, dels []op
	for i := range 30 {
		puts = append(puts, put(fmt.Sprintf("/p/f%d", i), "x"))
		dels = append(dels, del(fmt.Sprintf("/p/f%d", i)))
	}
	b.src.write(puts...)
	b.mustOnce()
	b.src.write(append(dels, put("/p/new", "n"))...)
	m := b.mirror()
	if err := m.Once(context.Background()); !errors.Is(err, ErrHeld) {
		t.Fatalf("error %v, want ErrHeld", err)
	}
	if s := m.Status(); s.State != StateHeld || s.Pending != 30 {
		t.Errorf("status %+v", s)
	}
	if got := b.files(); len(got) != 31 {
		t.Errorf("%d files, want 31", len(got))
	}
	b.src.write(puts[:10]...) // some come back: 20 removals are few enough
	b.mustOnce()
	if got := b.files(); len(got) != 11 {
		t.Errorf("%d files, want 11", len(got))
	}
}

func TestBadContentConcernsOnePathOnly(t *testing.T) {
	b := newBench(t)
	b.src.write(put("/p/bad", "old"), put("/p/good", "old"))
	b.mustOnce()
	b.src.write(put("/p/bad", "new"))
	b.src.write(put("/p/good", "new"))
	b.src.broken["/p/bad"] = errors.New("value is damaged")
	if err := b.once(); !errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), "value is damaged") {
		t.Errorf("error %v", err)
	}
	b.expect(map[string]string{"bad": "old", "good": "new"})
}

// A source may answer with something newer than it listed; what belongs together still appears together.
func TestG8_FilesOfOneWriteStayTogetherWhileTheSourceMovesOn(t *testing.T) {
	b := newBench(t)
	b.src.write(put("/p/cert", "1"), put("/p/key", "1"))
	b.mustOnce()
	b.src.write(put("/p/cert", "2"), put("/p/key", "2"))
	var calls int
	b.src.onFetch = func(s *fakeSource, _ []string) {
		if calls++; calls == 1 {
			s.write(put("/p/cert", "3"))
			return
		}
		if got := b.files(); got["key"] != "1" {
			t.Errorf("the key was replaced without its certificate: %s", show(got))
		}
	}
	b.mustOnce()
	b.expect(map[string]string{"cert": "3", "key": "2"})
}

func TestSourceThatIsAlwaysNewerStillArrives(t *testing.T) {
	b := newBench(t)
	b.src.write(put("/p/hot", "0"), put("/p/gone", "0"))
	n := 0
	b.src.onFetch = func(s *fakeSource, _ []string) {
		n++
		s.write(put("/p/hot", fmt.Sprint(n)), del("/p/gone"))
	}
	b.mustOnce()
	b.expect(map[string]string{"hot": fmt.Sprint(n)})
}

func TestOwnerIsSetBeforeTheFileAppears(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	b := newBench(t)
	b.opt.Owner, b.opt.Group = "12345", "23456"
	b.src.write(putMode("/p/d/a", "1", 0o600))
	b.mustOnce()
	for _, p := range []string{"d", "d/a"} {
		info, err := os.Stat(b.path(p))
		if err != nil {
			t.Fatal(err)
		}
		if st := info.Sys().(*syscall.Stat_t); st.Uid != 12345 || st.Gid != 23456 {
			t.Errorf("%s belongs to %d:%d", p, st.Uid, st.Gid)
		}
	}
	if err := os.Chown(b.path("d/a"), 0, 0); err != nil {
		t.Fatal(err)
	}
	b.mustOnce()
	if info, err := os.Stat(b.path("d/a")); err != nil || info.Sys().(*syscall.Stat_t).Uid != 12345 {
		t.Errorf("the owner was not restored (%v)", err)
	}
}

// A reader that looks all the time sees only whole versions, with the mode they have.
func TestG8_ReaderSeesWholeVersionsOnly(t *testing.T) {
	b := newBench(t)
	text := func(n int) string { return strings.Repeat(string(rune('a'+n%26)), 100_000) }
	b.src.write(putMode("/p/f", text(0), 0o600))
	m := b.run()
	eventually(t, "ok", func() bool { return m.Status().State == StateOK })
	var stop atomic.Bool
	faults := make(chan error, 1)
	go func() {
		defer close(faults)
		for !stop.Load() {
			got, err := os.ReadFile(b.path("f"))
			info, err2 := os.Stat(b.path("f"))
			if err = errors.Join(err, err2); err != nil || len(got) != 100_000 || strings.Trim(string(got), string(got[:1])) != "" ||
				info.Mode() != 0o600 {
				faults <- fmt.Errorf("%d bytes, %w", len(got), err)
				return
			}
		}
	}()
	for n := range 150 {
		b.src.write(putMode("/p/f", text(n), 0o600))
		if n%10 == 0 {
			eventually(t, "version in place", func() bool {
				got, _ := os.ReadFile(b.path("f"))
				return string(got) == text(n)
			})
		}
	}
	stop.Store(true)
	if err := <-faults; err != nil {
		t.Error(err)
	}
}

// An attacker who may write in the mirror swaps directories for links to the outside, as fast as possible.
func TestG8_SymlinkAttackTouchesNothingOutside(t *testing.T) {
	b := newBench(t)
	outside := t.TempDir()
	precious := filepath.Join(outside, "f0")
	err := errors.Join(os.WriteFile(precious, []byte("precious"), 0o600), os.Mkdir(filepath.Join(outside, "e"), 0o700),
		os.MkdirAll(b.path("theirs/e"), 0o755))
	if err != nil {
		t.Fatal(err)
	}
	b.opt.Recheck = 5 * time.Millisecond
	b.opt.MaxDelete = 1
	b.src.write(put("/p/d/f0", "0"), put("/p/d/e/f1", "0"))
	m := b.run()
	eventually(t, "ok", func() bool { return m.Status().State == StateOK })

	end := time.Now().Add(*long)
	swaps := 0
	for n := 0; time.Now().Before(end); n++ {
		if os.Rename(b.path("d"), b.path("d.aside")) == nil {
			_ = os.Symlink([]string{outside, "theirs"}[n%2], b.path("d"))
			swaps++
			_ = os.Remove(b.path("d"))
			_ = os.Rename(b.path("d.aside"), b.path("d"))
			_ = os.RemoveAll(b.path("d.aside")) // if the mirror has made a new d meanwhile
		}
		if n%5 == 0 {
			b.src.write(put("/p/d/f0", fmt.Sprint(n)), put("/p/d/e/f1", fmt.Sprint(n)), put(fmt.Sprintf("/p/d/n%d", n%20), "x"))
		}
		if n%7 == 0 {
			b.src.write(del(fmt.Sprintf("/p/d/n%d", n%20)), del("/p/d/f0"), del("/p/d/e/f1"))
		}
	}
	b.src.write(put("/p/d/f0", "end"), put("/p/d/e/f1", "end"))
	eventually(t, "in place after the attack", func() bool {
		got, err := readTree(b.dir)
		return err == nil && got["d/f0"] == "end" && got["d/e/f1"] == "end"
	})
	got, err := readTree(outside)
	if err != nil || show(got) != show(map[string]string{"f0": "precious", "e/": ""}) {
		t.Errorf("outside is now %s (%v)", show(got), err)
	}
	if got, err := readTree(b.path("theirs")); err != nil || show(got) != "e/=\"\"" {
		t.Errorf("a directory of others is now %s (%v)", show(got), err)
	}
	t.Logf("%d swaps", swaps)
}

func TestG9_TriggerMarkSurvivesAStopBetweenFileAndRun(t *testing.T) {
	b := newBench(t)
	out := filepath.Join(t.TempDir(), "out")
	runner := func(command string) *trigger.Runner {
		return trigger.New(trigger.Options{
			Specs:  []trigger.Spec{{Name: "t", Path: "/p", Command: command, Timeout: time.Minute}},
			Prefix: "/p", Dir: b.dir,
		})
	}
	v := b.src.write(put("/p/a", "1"), put("/p/b", "1"))
	b.opt.Triggers = runner("exit 7")
	if err := b.once(); err == nil || !strings.Contains(err.Error(), "exit status 7") {
		t.Fatalf("error %v, want that of the trigger", err)
	}
	b.opt.Triggers = nil // a run without triggers keeps the mark
	b.mustOnce()
	b.opt.Triggers = runner("(cat; echo $SYNCAGENT_CHANGED $SYNCAGENT_WRITE) >> '" + out + "'")
	b.mustOnce()
	b.mustOnce() // and now it has been seen
	want := fmt.Sprintf("/p/a\n/p/b\n2 %s\n", v.WriteString())
	if got, err := os.ReadFile(out); string(got) != want {
		t.Errorf("the trigger saw %q, want %q (%v)", got, want, err)
	}
}

func TestLeftTemporaryFilesAreSweptAndOthersAreNot(t *testing.T) {
	b := filled(t)
	temp := tempPrefix + "0123456789abcdef" + tempSuffix
	b.write(temp, "half")
	b.write("d/"+temp, "half")
	b.write(ours+"-notes", "mine")
	b.mustOnce()
	b.expect(map[string]string{"a": "1", "d/b": "2", "foreign": "F", ours + "-notes": "mine"})
}

func TestUnreadableFileIsReplaced(t *testing.T) {
	b := filled(t)
	if err := os.Chmod(b.path("a"), 0); err != nil {
		t.Fatal(err)
	}
	b.mustOnce()
	if info, err := os.Stat(b.path("a")); err != nil || info.Mode() != fs.FileMode(0o644) {
		t.Errorf("mode %v (%v)", info.Mode(), err)
	}
}

func TestInboxHandsOnWholeWritesOnly(t *testing.T) {
	b := newInbox()
	give := func(path string, more, deleted bool) {
		if err := b.put(Change{File: File{Path: path}, More: more, Deleted: deleted}); err != nil {
			t.Fatal(err)
		}
	}
	rung := func() bool {
		select {
		case <-b.bell:
			return true
		default:
			return false
		}
	}
	give("/a", true, false)
	give("/b", true, false)
	if rung() || len(b.take()) != 0 {
		t.Error("part of a write was handed on")
	}
	give("/c", false, false)
	give("/a", false, true)
	got := b.take()
	if !rung() || rung() || len(got) != 3 || !got["/a"].Deleted || len(b.take()) != 0 {
		t.Errorf("took %v", got)
	}
}

func TestDirectoryMadeForAFileThatNeverCameIsRemoved(t *testing.T) {
	b := filled(t)
	b.src.onFetch = func(s *fakeSource, paths []string) {
		if paths[0] == "/p/new/dir/x" {
			s.write(del("/p/new/dir/x"))
		}
	}
	m := b.run()
	eventually(t, "ok", func() bool { return m.Status().State == StateOK })
	b.src.write(put("/p/new/dir/x", "1"))
	eventually(t, "fetched", func() bool { b.src.mu.Lock(); defer b.src.mu.Unlock(); return b.src.fetches == 2 })
	eventually(t, "removed", func() bool {
		_, err := os.Lstat(b.path("new"))
		return errors.Is(err, fs.ErrNotExist) && m.Status().State == StateOK
	})
}

// What was staged before a crash is put in place at the start, without the source's help.
func TestG8_CrashBetweenStagingAndRenamesIsFinished(t *testing.T) {
	b := filled(t)
	v := b.src.write(put("/p/a", "11"), put("/p/d/b", "22"))
	m := b.mirror()
	j := openTestJournal(t, m.journalPath)
	var n line
	for i, f := range []struct{ path, text string }{{"a", "11"}, {"d/b", "22"}} {
		temp := fmt.Sprintf("%s%016x%s", tempPrefix, i, tempSuffix)
		b.write(filepath.Join(filepath.Dir(f.path), temp), f.text)
		v.Index = uint16(i)
		n.Staged = append(n.Staged, stage(f.path, temp, base{v, sha256.Sum256([]byte(f.text)), 2}))
	}
	if err := os.Rename(b.path(n.Staged[0].Temp), b.path("a")); err != nil { // the crash came after the first
		t.Fatal(err)
	}
	if err := errors.Join(j.append(n), j.close()); err != nil {
		t.Fatal(err)
	}
	fetches := b.src.fetches
	b.mustOnce()
	b.expect(map[string]string{"a": "11", "d/b": "22", "foreign": "F"})
	if b.src.fetches != fetches {
		t.Error("it was fetched again")
	}
}
