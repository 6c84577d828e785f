package mirror

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"syncagent/sync/trigger"
)

// A session that ends before its first pass has told the triggers what it finished: the next one does not know of it.
func TestG9_TriggersHearOfWhatAFailedStartFinished(t *testing.T) {
	b := newBench(t)
	b.src.write(put("/p/a", "1"))
	b.mustOnce()
	m := b.mirror()
	j, err := openJournal(m.disk, m.journalPath, m.o.Log)
	if err != nil {
		t.Fatal(err)
	}
	was, _ := j.at("a")
	// As a kill leaves it between the renames and the line that settles them.
	if err := errors.Join(j.append(line{Staged: []stagedFile{stage("a", "", was)}}), j.close()); err != nil {
		t.Fatal(err)
	}
	// The start gets as far as this.
	b.opt.Swap = SwapDirectory
	if err := os.Mkdir(b.path(liveLink), 0o755); err != nil {
		t.Fatal(err)
	}
	b.opt.Triggers = trigger.New(trigger.Options{
		Specs:       []trigger.Spec{{Name: "t", Path: "/p", Args: []string{"true"}, Timeout: time.Minute}},
		DebounceMin: time.Millisecond, DebounceMax: time.Millisecond,
	})
	m = b.run()
	eventually(t, "failing", func() bool { return m.Status().State == StateFailing })
	if err := os.Remove(b.path(liveLink)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "ok", func() bool { return m.Status().State == StateOK })
	eventually(t, "a run", func() bool { return b.opt.Triggers.Status()[0].Runs == 1 })
}

// A change that was rolled back is tried again when the source has moved on, also if no watch told so.
func TestRejectedChangeIsTriedAgainAfterAGapInTheWatch(t *testing.T) {
	b := newBench(t)
	b.opt.Trial = shell("! grep -q bad '" + b.path("a") + "'")
	b.src.write(put("/p/a", "1"))
	m := b.run()
	eventually(t, "ok", func() bool { return m.Status().State == StateOK })
	b.src.write(put("/p/a", "bad"))
	eventually(t, "rolled back", func() bool { return m.Status().State == StateIncomplete })
	down := errors.New("the agent restarts")
	b.src.fail(down)
	eventually(t, "failing", func() bool { return strings.Contains(m.Status().LastError, down.Error()) })
	b.src.fail(nil)
	eventually(t, "still rolled back", func() bool { return m.Status().State == StateIncomplete })
	b.expect(map[string]string{"a": "1"})

	b.src.fail(down)
	eventually(t, "failing again", func() bool { return strings.Contains(m.Status().LastError, down.Error()) })
	b.src.write(put("/p/a", "good"))
	b.src.fail(nil)
	eventually(t, "tried again", func() bool { return m.Status().State == StateOK })
	b.expect(map[string]string{"a": "good"})
}

// Who takes away the version to which a change goes back costs the mirror its files, and nothing else.
func TestSwapGoesOnWhenTheVersionBeforeIsGone(t *testing.T) {
	b := swapBench(t)
	b.src.write(put("/p/a", "1"), put("/p/b", "2"))
	b.mustOnce()
	old, err := os.Readlink(b.path(liveLink))
	if err != nil {
		t.Fatal(err)
	}
	b.opt.Trial = shell("grep -q bad '" + b.path("a") + "' || exit 0; rm -r '" + b.path(old) + "'; exit 1")
	b.src.write(put("/p/a", "bad"))
	m := b.run()
	eventually(t, "b is back", func() bool { return b.seen()["b"] == "2" && m.Status().State == StateIncomplete })
	b.src.write(put("/p/a", "good"))
	eventually(t, "ok", func() bool { return m.Status().State == StateOK })
	b.expectSeen(map[string]string{"a": "good", "b": "2"})
}
