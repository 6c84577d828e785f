package mirror

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

// shell gives the arguments that run a script.
func shell(script string) []string { return []string{"/bin/sh", "-c", script} }

func TestCheckSeesTheWholeAndKeepsTheOldFiles(t *testing.T) {
	b := newBench(t)
	seen := b.dir + ".seen"
	b.opt.Check = shell(`(cd "$SYNCAGENT_STAGED" && find . -type f | sort | xargs grep -H .; cat) > '` + seen + `'; echo some reason >&2; ! grep -rq bad "$SYNCAGENT_STAGED"`)
	b.src.write(put("/p/a", "1"), put("/p/d/b", "2"))
	b.mustOnce()
	b.src.write(put("/p/a", "bad"), put("/p/d/c", "3"), del("/p/d/b"))
	err := b.once()
	if !errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), "some reason") {
		t.Errorf("error %v", err)
	}
	b.expect(map[string]string{"a": "1", "d/b": "2"})
	b.src.write(put("/p/a", "good"))
	b.mustOnce()
	b.expect(map[string]string{"a": "good", "d/c": "3"})
	if got, _ := os.ReadFile(seen); string(got) != "./a:good\n./d/c:3\n/p/a\n/p/d/b\n/p/d/c\n" {
		t.Errorf("the check saw %q", got)
	}
	b.src.write(put("/p/only", "x"))
	b.mustOnce()
	if got, _ := os.ReadFile(seen); string(got) != "./a:good\n./d/c:3\n./only:x\n/p/only\n" {
		t.Errorf("the check saw %q", got)
	}
	if left, _ := os.ReadDir(b.dir); len(left) != 4 { // a, d, only, the marker
		t.Errorf("left over: %v", left)
	}
}

// What a check refused comes before it again together with the next change, which may be what it lacked.
func TestRefusedChangeGoesWithTheNext(t *testing.T) {
	b := newBench(t)
	log := b.dir + ".log"
	b.opt.Check = shell(`cd "$SYNCAGENT_STAGED" && echo $(ls) >> '` + log + `'; test -e a && test -e b`)
	m := b.run()
	b.src.write(put("/p/a", "1"))
	eventually(t, "refused", func() bool { return m.Status().State == StateIncomplete })
	b.src.write(put("/p/b", "2"))
	eventually(t, "both are there", func() bool { return m.Status().State == StateOK && m.Status().Files == 2 })
	if seen, err := os.ReadFile(log); err != nil || strings.Contains("\n"+string(seen), "\nb\n") {
		t.Errorf("the check saw %q, %v", seen, err)
	}
}

func TestFailedTrialBringsEverythingBack(t *testing.T) {
	b := newBench(t)
	log := b.dir + ".log"
	b.opt.Trial = shell(`cat "$SYNCAGENT_DIR/a" >> '` + log + `'; echo broken config >&2; ! grep -rq wrong "$SYNCAGENT_DIR"`) // no hex: the marker has an ID
	b.src.write(put("/p/a", "1"), put("/p/d/b", "2"), put("/p/e", "4"))
	b.mustOnce()
	b.write("foreign", "F")
	m := b.run()
	eventually(t, "start", func() bool { return m.Status().State == StateOK })
	old := map[string]string{"a": "1", "d/b": "2", "e": "4", "foreign": "F"}
	b.src.write(put("/p/a", "wrong"), del("/p/d/b"), put("/p/new/dir/x", "5"), put("/p/foreign", "ours"), del("/p/e"), put("/p/e/below", "6"))
	eventually(t, "rolled back", func() bool {
		s := m.Status()
		return s.State == StateIncomplete && strings.Contains(s.LastError, "rolled back") && s.LastOutput == "broken config"
	})
	b.expect(old)
	if got, _ := os.ReadFile(log); string(got) != "1wrong1" {
		t.Errorf("the command ran for %q, want it once for each state", got)
	}
	b.src.write(put("/p/a", "good"))
	eventually(t, "all of it, with the next change", func() bool { return m.Status().State == StateOK })
	b.expect(map[string]string{"a": "good", "new/dir/x": "5", "foreign": "ours", "e/below": "6"})
}

func TestTrialThatACrashCutOffIsFinished(t *testing.T) {
	for script, want := range map[string]map[string]string{
		"true":                                 {"a": "2", "n": "3"},
		`test "$(cat "$SYNCAGENT_DIR/a")" = 1`: {"a": "1"},
	} {
		b := newBench(t)
		b.src.write(put("/p/a", "1"))
		b.mustOnce()
		b.src.write(put("/p/a", "2"), put("/p/n", "3"))
		b.opt.Trial = shell("sleep 100")
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		if err := b.mirror().Once(ctx); err == nil {
			t.Fatal("the trial was not cut off")
		}
		cancel()
		b.opt.Trial = shell(script)
		err := b.once()
		if (err != nil) != (script != "true") {
			t.Errorf("%s: %v", script, err)
		}
		b.expect(want)
		b.opt.Trial = shell("true")
		b.mustOnce()
		b.expect(map[string]string{"a": "2", "n": "3"})
	}
}

func TestGuardedMirrorPassesTheModel(t *testing.T) {
	b := newBench(t)
	b.opt.Check, b.opt.Trial = shell("true"), shell("true")
	b.src.write(put("/p/a", "1"), put("/p/b/c", "2"))
	b.mustOnce()
	b.src.write(del("/p/a"), put("/p/a/x/y", "3"), del("/p/b/c"), put("/p/b", "4"))
	b.mustOnce()
	b.expect(map[string]string{"a/x/y": "3", "b": "4"})
}
