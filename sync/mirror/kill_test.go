package mirror

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"syncagent/crdtstore/record"
	"syncagent/sync/trigger"
)

const (
	childEnv = "SYNCAGENT_TEST_MIRROR_CHILD"
	kindEnv  = "SYNCAGENT_TEST_MIRROR_KIND" // what the child does beside writing: guarded, swapping
)

func TestMain(m *testing.M) {
	if top := os.Getenv(childEnv); top != "" {
		if err := killedChild(top); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// stateAt is what the source shows after so many steps: a pure function, so that parent and children agree on it.
// Every file says whose it is and whether it is whole.
func stateAt(step int) map[string]string {
	state := map[string]string{}
	for i := range 16 {
		if h := sum(i, step/3); h[0]%4 != 0 { // comes and goes
			state[fmt.Sprintf("d%d/f%d", i%3, i)] = content(fmt.Sprint(i), step/(1+i%4), int(h[1])*int(h[2]))
		}
	}
	if step/5%2 == 0 { // a file now, a directory then
		state["flip"] = content("flip", step, 100)
	} else {
		state["flip/x/y"] = content("flip", step, 100)
	}
	state["step"] = content("step", step, 0)
	return state
}

func sum(a, b int) [32]byte { return sha256.Sum256(fmt.Append(nil, a, " ", b)) }

func content(who string, n, size int) string {
	body := fmt.Sprintf("%s %d %s", who, n, strings.Repeat("x", size))
	return fmt.Sprintf("%s\n%x\n", body, sha256.Sum256([]byte(body)))
}

// whole tells whether a file was written by content.
func whole(text string) bool {
	body, check, ok := strings.Cut(text, "\n")
	return ok && check == fmt.Sprintf("%x\n", sha256.Sum256([]byte(body)))
}

// sourceAt gives a source in the state of a step. A version always stands for one content.
func sourceAt(step int) *fakeSource {
	s := newFakeSource()
	s.hlc = record.HLC(step)
	s.write(difference(nil, stateAt(step))...)
	return s
}

func difference(was, is map[string]string) []op {
	var ops []op
	for p, text := range is {
		if was[p] != text {
			ops = append(ops, put("/p/"+p, text))
		}
	}
	for p := range was {
		if _, still := is[p]; !still {
			ops = append(ops, del("/p/"+p))
		}
	}
	return ops
}

func killOptions(top, kind string) Options {
	dir := filepath.Join(top, "out")
	o := Options{
		Prefix: "/p", Dir: dir, StateDir: filepath.Join(top, "state"), Recheck: 30 * time.Millisecond, MaxDelete: 1,
		Triggers: trigger.New(trigger.Options{
			Specs: []trigger.Spec{{
				Name: "copy", Path: "/p", Timeout: time.Minute,
				Command: "cp '" + dir + "/step' '" + top + "/saw.'$$ && mv '" + top + "/saw.'$$ '" + top + "/saw'",
			}},
			Prefix: "/p", Dir: dir, DebounceMin: time.Millisecond, DebounceMax: 20 * time.Millisecond,
		}),
	}
	if kind == "swapping" {
		o.Swap = SwapDirectory
	}
	if kind == "guarded" { // the check insists on the whole, also of what does not change
		o.Check, o.Trial = shell(`test -e "$SYNCAGENT_STAGED/step"`), shell(`test -e "$SYNCAGENT_DIR/step"`)
	}
	return o
}

// killedChild mirrors, and moves its source on, until it is killed. The step is on disk before the source takes it.
func killedChild(top string) error {
	step, err := readStep(top)
	if err != nil {
		return err
	}
	src := sourceAt(step)
	m, err := New(src, killOptions(top, os.Getenv(kindEnv)))
	if err != nil {
		return err
	}
	go func() {
		for r := rand.New(rand.NewPCG(uint64(step), 0)); ; step++ {
			time.Sleep(time.Duration(r.IntN(8)) * time.Millisecond) // the pace of the source, not a wait
			if writeStep(top, step+1) != nil {
				return
			}
			src.write(difference(stateAt(step), stateAt(step+1))...)
		}
	}()
	fmt.Println("started")
	return m.Run(context.Background())
}

// writeStep never leaves less than there was: a source does not go back.
func writeStep(top string, step int) error {
	next := filepath.Join(top, "step.next")
	if err := os.WriteFile(next, []byte(strconv.Itoa(step)), 0o600); err != nil {
		return err
	}
	return os.Rename(next, filepath.Join(top, "step"))
}

func readStep(top string) (int, error) {
	text, err := os.ReadFile(filepath.Join(top, "step"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(text))
}

// A mirror that is killed anywhere leaves whole files, and the next one puts everything right: the tree equals the
// source, nothing is left over, and the trigger has seen the last state.
func TestG8_G9_KilledAnywhere(t *testing.T) {
	for kind, kills := range map[string]int{"plain": 12, "guarded": 8, "swapping": 8} {
		t.Run(kind, func(t *testing.T) {
			t.Setenv(kindEnv, kind)
			testKilledAnywhere(t, kills**rounds, kind)
		})
	}
}

func testKilledAnywhere(t *testing.T, kills int, kind string) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	top := t.TempDir()
	dir := filepath.Join(top, "out")
	shared := "d1/foreign"
	if kind == "swapping" { // everything in d1 is the version's
		shared = "x1/foreign"
	}
	foreign := filepath.Join(dir, shared)
	if err := errors.Join(os.MkdirAll(filepath.Dir(foreign), 0o755), os.WriteFile(foreign, []byte(content("me", 0, 0)), 0o644)); err != nil {
		t.Fatal(err)
	}
	stop := watchWhole(t, dir)
	if kind == "swapping" {
		stop = watchStates(t, dir)
	}
	interrupted := 0
	for n := range kills {
		runAndKill(t, top, time.Duration(r.IntN(60_000))*time.Microsecond, killPoint(r, kind))
		step, err := readStep(top)
		if err != nil {
			t.Fatal(err)
		}
		if n%3 == 0 {
			continue // killed again before anything is put right
		}
		o := killOptions(top, kind)
		m, err := New(sourceAt(step), o)
		if err != nil {
			t.Fatal(err)
		}
		if unsettledIn(t, m) {
			interrupted++
		}
		if err := m.Once(context.Background()); err != nil {
			t.Fatalf("seed %d, kill %d, step %d: %v", seed, n, step, err)
		}
		want := stateAt(step)
		want[shared] = content("me", 0, 0)
		b := &bench{t: t, dir: dir}
		if got := b.seen(); !maps.Equal(got, want) {
			t.Fatalf("seed %d, kill %d: tree %s\nwant %s", seed, n, show(got), show(want))
		}
		if saw, err := os.ReadFile(filepath.Join(top, "saw")); string(saw) != want["step"] {
			t.Fatalf("seed %d, kill %d: the trigger last saw %.20q, want %.20q (%v)", seed, n, saw, want["step"], err)
		}
	}
	stop()
	t.Logf("%d of %d kills were between staging and outcome", interrupted, kills)
}

// unsettledIn tells whether the mirror's journal ends between staged files and their outcome.
func unsettledIn(t *testing.T, m *Mirror) bool {
	j := openTestJournal(t, m.journalPath)
	defer func() { _ = j.close() }()
	return len(j.unsettled()) > 0
}

// runAndKill kills a child so long after its start or, if a point is given, when it comes by there.
func runAndKill(t *testing.T, top string, after time.Duration, point string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+top, "SYNCAGENT_FAILPOINT="+point)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("child did not start: %q %v", line, err)
	}
	if point != "" {
		after = 10 * time.Second
	}
	kill := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	_ = cmd.Wait() // killed
}

// watchStates opens what is shown all the time, until the returned function is called, and complains if it is anything but
// one state of the source.
func watchStates(t *testing.T, dir string) (stop func()) {
	var enough atomic.Bool
	ended := make(chan int, 1)
	go func() {
		seen := 0
		for !enough.Load() {
			at, err := filepath.EvalSymlinks(filepath.Join(dir, liveLink))
			if err != nil {
				continue // before the first
			}
			got, err := readTree(at)
			if len(got) == 0 && err == nil {
				continue // the first, which is empty
			}
			step := -1
			if _, scanErr := fmt.Sscanf(got["step"], "step %d", &step); scanErr != nil || err != nil || !maps.Equal(got, stateAt(step)) {
				t.Errorf("%s shows no state of the source: %s, want step %d (%v)", at, show(got), step, err)
				break
			}
			seen++
		}
		ended <- seen
	}()
	return func() {
		enough.Store(true)
		t.Logf("%d whole states seen meanwhile", <-ended)
	}
}

// watchWhole reads the tree all the time, until the returned function is called, and complains about parts of files.
func watchWhole(t *testing.T, dir string) (stop func()) {
	var enough atomic.Bool
	ended := make(chan int, 1)
	go func() {
		seen := 0
		for !enough.Load() {
			_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() || strings.HasPrefix(d.Name(), ours) {
					return nil //nolint:nilerr // what goes away meanwhile is of no interest
				}
				if text, err := os.ReadFile(p); err == nil {
					if seen++; !whole(string(text)) {
						t.Errorf("%s is not whole: %.40q, %d bytes", p, text, len(text))
						return fs.SkipAll
					}
				}
				return nil
			})
		}
		ended <- seen
	}()
	return func() {
		enough.Store(true)
		t.Logf("%d whole files read meanwhile", <-ended)
	}
}
