package mirror

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// cutShort leaves a directory and a journal as a kill does that comes after so much of a change on trial.
func cutShort(t *testing.T, b *bench, staged, live bool) {
	t.Helper()
	begun := b.state + "/begun"
	b.opt.Trial = shell("touch '" + begun + "'; sleep 100")
	m := b.mirror()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.Once(ctx) }()
	eventually(t, "the trial", func() bool { _, err := os.Stat(begun); return err == nil })
	if cancel(); <-ended == nil {
		t.Fatal("the trial was not cut off")
	}
	text, err := os.ReadFile(m.journalPath)
	if err != nil {
		t.Fatal(err)
	}
	var keep []string
	for raw := range strings.Lines(string(text)) {
		n, err := parseLine([]byte(raw[9 : len(raw)-1]))
		if err != nil {
			t.Fatal(err)
		}
		if n.Live && !live || len(n.Staged) > 0 && strings.Contains(n.Staged[0].Temp, "/") && !staged {
			break
		}
		keep = append(keep, raw)
	}
	if err := os.WriteFile(m.journalPath, []byte(strings.Join(keep, "")), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A command decides about a change that is there as a whole, never about files of before: what a crash cut off before
// that goes back unjudged and is applied anew at once.
func TestTrialOfWhatIsNotLiveIsNotJudged(t *testing.T) {
	for name, c := range map[string]struct{ staged, live bool }{
		"noted": {}, "staged": {staged: true}, "live": {staged: true, live: true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.src.write(put("/p/a", "1"), put("/p/gone", "2"))
			b.mustOnce()
			b.src.write(put("/p/a", "new"), put("/p/n", "3"), del("/p/gone"))
			cutShort(t, b, c.staged, c.live)
			if !c.live { // as if the renames had not happened either
				b.write("a", "1")
				b.write("gone", "2")
				if err := os.Remove(b.path("n")); err != nil {
					t.Fatal(err)
				}
			}
			b.opt.Trial = shell(`test "$(cat "$SYNCAGENT_DIR/a")" = new && test -e "$SYNCAGENT_DIR/n" && ! test -e "$SYNCAGENT_DIR/gone"`)
			b.mustOnce()
			b.expect(map[string]string{"a": "new", "n": "3"})
		})
	}
}

// Who edits a file while its change is on trial keeps the edit, whatever the command says.
func TestRollBackKeepsEdits(t *testing.T) {
	old := map[string]string{"a": "1", "b": "2", "gone": "3", "flip": "4"}
	edits := map[string]string{"a": "mine", "new": "mine too", "gone": "mine again", "flip/mine": "a file of mine"}
	for _, c := range []struct {
		mode  Mode
		drift Drift
		want  map[string]string
	}{
		{ModeBoth, "", map[string]string{"b": "2", "a": "mine", "new": "mine too", "gone": "mine again", "flip/mine": "a file of mine"}},
		{ModePull, DriftKeep, map[string]string{"b": "2", "a": "mine", "new": "mine too", "gone": "mine again", "flip/mine": "a file of mine"}},
	} {
		t.Run(string(c.mode), func(t *testing.T) {
			b := pushBench(t, c.mode)
			b.opt.Drift, b.opt.MaxDelete = c.drift, 1
			var ops []op
			for path, text := range old {
				ops = append(ops, put("/p/"+path, text))
			}
			b.src.write(ops...)
			b.push()
			b.src.write(put("/p/a", "theirs"), put("/p/b", "bad"), put("/p/new", "theirs"), put("/p/other", "theirs"),
				del("/p/gone"), del("/p/flip"), put("/p/flip/flop", "theirs"))
			script := "! grep -q bad '" + b.dir + "/b' && exit 0\n"
			for path, text := range edits {
				script += "echo -n '" + text + "' > '" + b.path(path) + "'\n"
			}
			b.opt.Trial = shell(script + "exit 1")
			m := b.twoWay()
			if err := m.Once(context.Background()); !errors.Is(err, ErrIncomplete) {
				t.Errorf("error %v", err)
			}
			b.expect(c.want)
			b.src.write(put("/p/b", "good"))
			if err := b.twoWay().Once(context.Background()); err != nil {
				t.Error(err)
			}
			c.want["b"], c.want["other"], c.want["flip/flop"] = "good", "theirs", "theirs"
			b.expect(c.want)
			if c.mode == ModeBoth {
				b.expectSource(c.want)
				if h := b.src.history["/p/a"]; !slices.Equal(h, []string{"1", "theirs", "mine"}) {
					t.Errorf("history of a: %q", h)
				}
			}
		})
	}
}

// In a mirror that restores, the directory is the mirror's: what somebody put in the way does not keep the rest from going back.
func TestRollBackGoesAroundWhatIsInTheWay(t *testing.T) {
	b := newBench(t)
	b.src.write(put("/p/a", "1"), put("/p/flip", "2"))
	b.mustOnce()
	b.src.write(put("/p/a", "bad"), del("/p/flip"), put("/p/flip/flop", "3"))
	b.opt.Trial = shell("grep -q bad '" + b.path("a") + "' || exit 0; echo -n edit > '" + b.path("a") + "'; echo -n foreign > '" + b.path("flip/foreign") + "'; false")
	if err := b.once(); !errors.Is(err, ErrIncomplete) {
		t.Errorf("error %v", err)
	}
	if got, want := b.files(), map[string]string{"a": "1", "flip/foreign": "foreign"}; !maps.Equal(got, want) {
		t.Errorf("got %s, want %s", show(got), show(want))
	}
}
