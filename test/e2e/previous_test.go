package e2e

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var previous = flag.String("previous", "", "the program of an earlier version, for TestUpgradeOneHostAtATime")

// TestUpgradeOneHostAtATime goes through an upgrade as docs/install.md describes it: a network made and run by an earlier
// version, whose hosts change to this one by one. After each step everything that both versions know works between
// all hosts, and what one of them does not know ends with words.
func TestUpgradeOneHostAtATime(t *testing.T) {
	if *previous == "" {
		t.Skip("needs the program of an earlier version: -previous FILE")
	}
	older, err := filepath.Abs(*previous)
	if err != nil {
		t.Fatal(err)
	}
	f := newFleetOf(t, older, "a", "b", "c")
	dirs := map[*host]string{}
	for _, h := range f.hosts {
		dirs[h] = h.mirror("/files", h.trigger("/files", "cat $SYNCAGENT_DIR/round"))
	}
	f.start()
	f.apply(everything)
	f.connect()
	large := knowsLargeValues(f.hosts[0])
	for round, upgraded := range []string{"nobody", "b", "a", "c"} {
		for _, h := range f.hosts {
			if h.name == upgraded {
				h.stop()
				h.program = program
				h.start()
			}
		}
		last := round == len(f.hosts)
		t.Run(fmt.Sprintf("%d_%s", round, upgraded), func(t *testing.T) {
			f.connect()
			writesArrive(t, f, round)
			filesFollow(t, f, dirs, round)
			cutHeals(t, f, round)
			rightsFollow(t, f, round)
			questionsEnd(t, f, round, last)
			if large || last {
				largeValuesArrive(t, f, round)
			}
		})
		if t.Failed() {
			return
		}
	}
}

// writesArrive has every host put, batch, overwrite and remove, and every host see it in a watch and in a list.
func writesArrive(t *testing.T, f *fleet, round int) {
	prefix := fmt.Sprintf("/round%d", round)
	watches := map[*host]*json.Decoder{}
	for _, h := range f.hosts {
		_, out := h.background("watch", prefix, "-o", "json")
		watches[h] = json.NewDecoder(out)
	}
	for _, h := range f.hosts {
		h.must("put", prefix+"/"+h.name, "first")
		h.mustPut(prefix+"/"+h.name, "by the API")
		h.mustBatch(map[string]string{prefix + "/batch/" + h.name: "1", prefix + "/batch/2" + h.name: "2"})
		h.must("rm", prefix+"/batch/2"+h.name)
		h.must("put", prefix+"/last/"+h.name, "last")
	}
	f.converge()
	for _, h := range f.hosts {
		values := h.mustList(prefix)
		for _, other := range f.hosts {
			if values[prefix+"/"+other.name] != "by the API" || values[prefix+"/batch/"+other.name] != "1" {
				t.Errorf("%s shows %v", h.name, values)
			}
		}
		if got := h.must("get", prefix+"/"+f.hosts[0].name); got != "by the API" {
			t.Errorf("%s gets %q", h.name, got)
		}
		for left := len(f.hosts); left > 0; {
			var e struct{ Type, Path string }
			if err := watches[h].Decode(&e); err != nil {
				t.Fatalf("%s: watch: %v", h.name, err)
			}
			if e.Type == "put" && strings.HasPrefix(e.Path, prefix+"/last/") {
				left--
			}
		}
	}
}

// filesFollow changes a mirrored value on each host, and waits for the files and the trigger of all.
func filesFollow(t *testing.T, f *fleet, dirs map[*host]string, round int) {
	for _, writer := range f.hosts {
		want := fmt.Sprintf("%d by %s", round, writer.name)
		writer.mustPut("/files/round", want+"\n")
		for _, h := range f.hosts {
			eventually(t, func() error {
				got, err := os.ReadFile(filepath.Join(dirs[h], "round"))
				if lines := h.lines(); err != nil || string(got) != want+"\n" || lines[len(lines)-1] != want {
					return fmt.Errorf("%s: file %q, trigger %q, want %q, %w", h.name, got, lines[len(lines)-1], want, err)
				}
				return nil
			})
		}
	}
}

// cutHeals cuts off each host in turn, by a pause and by a stop, while all write.
func cutHeals(t *testing.T, f *fleet, round int) {
	for i, away := range f.hosts {
		other := f.hosts[(i+1)%len(f.hosts)]
		path := fmt.Sprintf("/cut/%d/%s", round, away.name)
		away.must("peers", "pause")
		away.mustPut(path+"/alone", "here")
		other.mustPut(path+"/who", "other")
		nextMillisecond(t)
		away.mustPut(path+"/who", "away")
		away.must("peers", "resume")
		f.converge()
		away.stop()
		for n := range 50 {
			other.mustPut(fmt.Sprintf("%s/%d", path, n), "x")
		}
		away.start()
		f.connect()
		f.converge()
		for _, h := range f.hosts {
			if values := h.mustList(path); values[path+"/who"] != "away" || len(values) != 52 {
				t.Errorf("%s shows %q and %d paths of the cut of %s", h.name, values[path+"/who"], len(values), away.name)
			}
		}
	}
}

// rightsFollow takes the right to read a prefix from the last host, and gives it back.
func rightsFollow(t *testing.T, f *fleet, round int) {
	last := f.hosts[len(f.hosts)-1]
	secret := fmt.Sprintf("/secret/%d", round)
	f.hosts[0].mustPut(secret, "hidden")
	f.converge()
	f.apply("@hosts /files rw", "@hosts /cut rw", "a / rw", "b / rw")
	eventually(t, func() error {
		if out, _, code := last.cli("get", secret); code == 0 {
			return fmt.Errorf("%s still reads %q", last.name, out)
		}
		return nil
	})
	f.hosts[1].mustPut(secret, "changed")
	f.apply(everything)
	for _, h := range f.hosts {
		eventually(t, func() error { return h.shows(secret, "changed") })
	}
	f.converge()
}

// questionsEnd asks all others on each host: whether they have a write, and what they show. An older program may not know
// the question; then the one who asks is told so, in time.
func questionsEnd(t *testing.T, f *fleet, round int, all bool) {
	for i, h := range f.hosts {
		peer := f.hosts[(i+1)%len(f.hosts)].name
		for _, args := range [][]string{
			{"put", "/files/wait", fmt.Sprint(h.name, round), "--wait", "all", "--timeout", "3s"},
			{"diff", peer, "--timeout", "3s"},
		} {
			out, errs, code := h.cli(args...)
			switch {
			case code == 0:
			case all || !strings.Contains(errs, "syncagent: error:"):
				t.Errorf("%s: %v: exit code %d\n%s%s", h.name, args, code, out, errs)
			default:
				t.Logf("%s, round %d: %v: exit code %d\n%s%s", h.name, round, args, code, out, errs)
			}
		}
		f.converge()
	}
}

// knowsLargeValues tells whether the program of a host takes values that travel in chunks.
func knowsLargeValues(h *host) bool {
	file := filepath.Join(h.dir, "large")
	if err := os.WriteFile(file, make([]byte, 300<<10), 0o600); err != nil {
		h.t.Fatal(err)
	}
	_, _, code := h.cli("put", "/large/known", "@"+file)
	return code == 0
}

// largeValuesArrive writes a value that travels in chunks on each host, and waits for all to have it.
func largeValuesArrive(t *testing.T, f *fleet, round int) {
	value := bytes.Repeat([]byte{byte('a' + round)}, 600<<10)
	for _, writer := range f.hosts {
		file := filepath.Join(writer.dir, "large")
		if err := os.WriteFile(file, value, 0o600); err != nil {
			t.Fatal(err)
		}
		path := fmt.Sprintf("/large/%d/%s", round, writer.name)
		writer.must("put", path, "@"+file)
		for _, h := range f.hosts {
			eventually(t, func() error {
				if out, errs, code := h.cli("get", path); code != 0 || out != string(value) {
					return fmt.Errorf("%s: get %s: %d bytes, exit code %d, %s", h.name, path, len(out), code, errs)
				}
				return nil
			})
		}
	}
}
