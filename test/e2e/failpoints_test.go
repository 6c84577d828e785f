//go:build faults

package e2e

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"syncagent/crdtstore/fault"
)

var (
	pointCount = flag.Int("points", 0, "how many failpoints to draw; 0: all")
	pointSeed  = flag.Uint64("seed", 0, "of the draw; 0: another one each time")
)

// stories says, by the first part of a failpoint's name, what brings an agent there.
var stories = map[string]func(*victim){
	"create": replicates, "start": replicates, "turn": replicates, "spill": replicates, "policy": replicates,
	"sync": replicates, "fetch": replicates, "peers": replicates,
	"mirror": mirrors, "journal": mirrors, "trigger": mirrors, "watch": mirrors,
	"rebuild": rebuilds, "scrub": scrubs, "restore": restores, "commit": writesMuch,
}

// after names the death that has to come first, for steps of a recovery.
var after = map[string]string{"start.drop-spilled": "spill.after", "mirror.recovered": "mirror.renamed", "commit.take-back": "commit.between"}

// TestFailpointsOfAnAgent lets a real agent die at every named step of the product while it replicates, mirrors, rebuilds
// or rewrites its store, or is restored from a backup. The next start must bring everything right: what was acknowledged, files, triggers.
func TestFailpointsOfAnAgent(t *testing.T) {
	points, _, err := fault.Find("../..")
	if err != nil {
		t.Fatal(err)
	}
	if len(points) < 25 {
		t.Errorf("%d failpoints only", len(points))
	}
	if *pointCount > 0 {
		seed := *pointSeed
		if seed == 0 {
			seed = rand.Uint64() >> 16
		}
		t.Logf("-points=%d -seed=%d", *pointCount, seed)
		r := rand.New(rand.NewPCG(seed, 0))
		r.Shuffle(len(points), func(i, j int) { points[i], points[j] = points[j], points[i] })
		points = points[:min(*pointCount, len(points))]
	}
	for _, point := range points {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			kind, _, _ := strings.Cut(point, ".")
			story := stories[kind]
			if story == nil {
				t.Fatal("no story brings an agent there")
			}
			v := newVictim(t, point)
			story(v)
			if v.deaths < v.due {
				t.Errorf("it does not come by there: %d deaths, %d are due", v.deaths, v.due)
			}
		})
	}
}

// victim is host b of two, which dies when it comes to a point.
type victim struct {
	*host
	t      *testing.T
	fleet  *fleet
	a      *host
	points []string // still to die at
	deaths int
	due    int
	acked  map[string]string
}

func newVictim(t *testing.T, point string) *victim {
	f := newFleet(t, "a", "b")
	v := &victim{host: f.hosts[1], t: t, fleet: f, a: f.hosts[0], points: []string{point}, acked: map[string]string{}}
	if first := after[point]; first != "" {
		v.points = []string{first, point}
	}
	v.due = len(v.points)
	v.a.start()
	return v
}

// revive starts the victim if it does not run, until it does. The next start after a death has the next point.
func (v *victim) revive() {
	v.t.Helper()
	for v.process == nil || !v.alive() {
		if v.process != nil {
			v.died()
		}
		v.env = nil
		if len(v.points) > 0 {
			v.env = []string{"SYNCAGENT_FAILPOINT=" + v.points[0]}
		}
		err := v.tryStart()
		switch {
		case err != nil && len(v.points) == 0:
			v.t.Fatal(err)
		case err != nil:
			v.deaths, v.points = v.deaths+1, v.points[1:]
		}
	}
}

// died takes note of how the agent ended.
func (v *victim) died() {
	v.t.Helper()
	s, ok := v.process.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || s.Signal() != syscall.SIGKILL || len(v.points) == 0 {
		v.t.Fatalf("it ended by itself: %s", v.process.ProcessState)
	}
	v.deaths, v.points = v.deaths+1, v.points[1:]
	v.process = nil
}

// until waits for a condition, and revives the victim meanwhile.
func (v *victim) until(condition func() error) {
	v.t.Helper()
	eventually(v.t, func() error {
		v.revive()
		return condition()
	})
}

// acknowledged has the victim write until it says that it has written.
func (v *victim) acknowledged(values map[string]string) {
	v.t.Helper()
	v.until(func() error { return v.batch(values) })
	maps.Copy(v.acked, values)
}

// whole waits until both agents are equal and show all that was acknowledged.
func (v *victim) whole() {
	v.t.Helper()
	v.until(func() error { return equal(v.fleet.hosts...) })
	for _, h := range v.fleet.hosts {
		shown := h.mustList("/")
		for path, value := range v.acked {
			if shown[path] != value {
				v.t.Errorf("%s lost %s", h.name, path)
			}
		}
	}
}

// rules signs a policy on the other host and waits until the victim has it.
func (v *victim) rules(rules ...string) {
	v.t.Helper()
	running := v.process
	v.process = nil // it may die of it: waiting for it is not the fleet's
	v.fleet.apply(rules...)
	v.process = running
	v.until(func() error {
		s, err := v.tryStatus()
		if err == nil && int(s.PolicySerial) != v.fleet.serial {
			err = fmt.Errorf("%s has policy %d", v.name, s.PolicySerial)
		}
		return err
	})
}

// large is a batch that a turn stores ahead, in more than one commit.
func large(dir string) map[string]string {
	values := map[string]string{}
	for i := range 8 {
		values[fmt.Sprintf("%s/%d", dir, i)] = strings.Repeat("large", 50_000)
	}
	return values
}

// replicates is the life of a new host: it gets a policy and what is there, writes, and is granted more.
func replicates(v *victim) {
	v.fleet.apply("@hosts /app rw", "a /late rw")
	v.a.mustBatch(generation("/app/old", 1))
	v.a.mustBatch(large("/app/large"))
	v.a.mustPut("/late/value", "granted later")
	v.revive()
	v.until(func() error { return v.shows("/app/old/000", "generation 1") })
	v.acknowledged(map[string]string{"/app/b": "one"})
	v.acknowledged(generation("/app/new", 2))
	v.acknowledged(large("/app/mine"))
	v.rules("@hosts /app rw", "@hosts /late rw")
	v.until(func() error { return v.shows("/late/value", "granted later") })
	v.acknowledged(map[string]string{"/app/b": "two"})
	v.whole()
}

// writesMuch makes the largest blocks: more rows than a transaction of the store holds.
func writesMuch(v *victim) {
	v.fleet.apply(everything)
	v.revive()
	values := map[string]string{}
	for i := range 865 {
		values[fmt.Sprintf("%s/%031d", strings.Repeat("/"+strings.Repeat("d", 31), 31), i)] = "v"
	}
	v.acknowledged(values)
	v.acknowledged(map[string]string{"/after": "it"})
	v.whole()
}

// mirrors keeps one directory with a trigger and one whose changes are tried and taken back.
func mirrors(v *victim) {
	files, guarded := filepath.Join(v.dir, "files"), filepath.Join(v.dir, "guarded")
	v.configure(fmt.Sprintf(`mirrors:
  - {prefix: /app, dir: %s, max_delete: 100%%, triggers_dir: %s}
  - {prefix: /guarded, dir: %s, rollback: true, on_change: [sh, -c, '! grep -q bad "$SYNCAGENT_DIR/conf"']}
`, files, v.trigger("/app", `cat "$SYNCAGENT_DIR/state"`), guarded))
	v.fleet.apply(everything)
	v.revive()
	v.a.mustBatch(map[string]string{"/app/state": "1\n", "/app/sub/dir/file": "1", "/guarded/conf": "good 1"})
	v.until(func() error { return fileIs(filepath.Join(guarded, "conf"), "good 1") })
	v.lastLine("1")
	v.a.mustPut("/guarded/conf", "bad")
	v.until(func() error {
		s, err := v.tryStatus()
		if err == nil && !strings.Contains(fmt.Sprint(s.Mirrors), "rolled back") {
			err = fmt.Errorf("mirrors %v", s.Mirrors)
		}
		return err
	})
	v.a.mustBatch(map[string]string{"/app/state": "2\n", "/app/sub/dir/file": "", "/guarded/conf": "good 2"})
	v.lastLine("2")
	if slices.Contains(v.points, "journal.rewritten") {
		v.fillJournal(files)
	}
	v.a.mustBatch(map[string]string{"/app/state": "3\n", "/app/sub/other": "3"})
	v.lastLine("3")
	v.until(func() error { return fileIs(filepath.Join(guarded, "conf"), "good 2") })
	v.whole()
	for path, value := range v.mustList("/app") {
		if err := fileIs(filepath.Join(files, strings.TrimPrefix(path, "/app")), value); err != nil {
			v.t.Error(err)
		}
	}
	if _, err := os.Stat(filepath.Join(files, "sub", "dir")); !os.IsNotExist(err) {
		v.t.Errorf("a directory without files stays: %v", err)
	}
	for _, dir := range []string{files, guarded} {
		if left, err := filepath.Glob(filepath.Join(dir, ".syncagent*tmp*")); err != nil || len(left) > 0 {
			v.t.Errorf("left behind: %v, %v", left, err)
		}
	}
}

// fillJournal changes files with long names until the mirror's journal is rewritten. Each state is waited for: of those
// that come faster than the mirror follows it notes the last one only.
func (v *victim) fillJournal(dir string) {
	long := strings.Repeat("name", 50)
	for n := 0; len(v.points) > 0; n++ {
		values := map[string]string{}
		for i := range 800 {
			values[fmt.Sprintf("/app/long/%s%d", long, i)] = fmt.Sprint(n)
		}
		v.a.mustBatch(values)
		v.until(func() error { return fileIs(filepath.Join(dir, "long", long+"799"), fmt.Sprint(n)) })
		if n == 20 {
			v.t.Fatal("the journal grows and grows")
		}
	}
}

// lastLine waits until the trigger has seen this state.
func (v *victim) lastLine(want string) {
	v.t.Helper()
	v.until(func() error {
		lines := v.lines()
		if got := lines[len(lines)-1]; got != want {
			return fmt.Errorf("the trigger saw %q, want %q", got, want)
		}
		return nil
	})
}

func fileIs(name, want string) error {
	if got, err := os.ReadFile(name); err != nil || string(got) != want {
		return fmt.Errorf("%s is %.20q, want %.20q: %w", name, got, want, err)
	}
	return nil
}

// rebuilds lets the victim start with a store that is damaged, and which alone has what it wrote last.
func rebuilds(v *victim) {
	v.start()
	v.fleet.apply(everything)
	v.until(func() error { return equal(v.fleet.hosts...) })
	v.a.stop()
	for n := range 5 {
		v.mustPut(fmt.Sprintf("/only/b/%d", n), "mine")
		v.acked[fmt.Sprintf("/only/b/%d", n)] = "mine"
	}
	v.stop()
	if err := os.WriteFile(filepath.Join(v.data(), "store", "MANIFEST"), []byte("damage"), 0o600); err != nil {
		v.t.Fatal(err)
	}
	v.revive()
	v.until(func() error {
		s, err := v.tryStatus()
		if err == nil && !strings.Contains(fmt.Sprint(s.Alarms), "store-damaged") {
			err = fmt.Errorf("no alarm: %v", s.Alarms)
		}
		return err
	})
	v.a.start()
	v.whole()
}

// scrubs withdraws a right, and the next start leaves no byte of what may no longer be read.
func scrubs(v *victim) {
	s := &secrets{known: map[[window]byte]string{}}
	secret := s.of(200)
	v.start()
	v.fleet.apply(everything)
	v.mustPut("/kept", "v")
	v.a.mustPut("/secret/value", secret)
	v.until(func() error { return v.shows("/secret/value", secret) })
	v.fleet.apply("@hosts /kept rw", "a / rw")
	v.until(func() error {
		s, err := v.tryStatus()
		if err == nil && s.Entries != 1 {
			err = fmt.Errorf("it holds %d entries", s.Entries)
		}
		return err
	})
	v.stop()
	v.revive()
	v.until(func() error { return v.shows("/kept", "v") })
	v.acknowledged(map[string]string{"/kept": "w"})
	v.stop()
	s.mustNotBeIn(v.t, v.data(), "after the rewrite")
}

// restores lets the command die that makes the victim's store of a backup. What it leaves is nothing, or all: then a
// second restore refuses to go over it.
func restores(v *victim) {
	v.fleet.apply(everything)
	v.acked = generation("/app", 1)
	v.a.mustBatch(v.acked)
	large := filepath.Join(v.a.dir, "large")
	if err := os.WriteFile(large, bytes.Repeat([]byte("large"), 100_000), 0o600); err != nil {
		v.t.Fatal(err)
	}
	v.a.must("put", "/app/large", "@"+large)
	backup := filepath.Join(v.a.dir, "backup")
	v.a.must("backup", backup)
	v.a.stop()

	dies := v.command("restore-backup", backup)
	dies.Env = append(dies.Env, "SYNCAGENT_FAILPOINT="+v.points[0])
	out, _ := dies.CombinedOutput()
	if s, ok := dies.ProcessState.Sys().(syscall.WaitStatus); !ok || s.Signal() != syscall.SIGKILL {
		v.t.Fatalf("it ended by itself: %s\n%s", dies.ProcessState, out)
	}
	v.deaths++
	whole := v.points[0] == "restore.in-place"
	v.points = nil
	if _, errs, code := v.cli("restore-backup", backup); whole && code == 0 || !whole && code != 0 {
		v.t.Fatalf("the second restore ends with exit code %d: %s", code, errs)
	}
	v.start()
	if v.must("get", "/app/large") != strings.Repeat("large", 100_000) {
		v.t.Error("the large value is not whole")
	}
	v.a.start()
	v.whole()
}
