package e2e

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	apiv1 "syncagent/agent/api/v1"
)

var bothTime = flag.Duration("both", 5*time.Second, "how long three hosts edit one directory")

// shared is a directory that three hosts keep alike and edit, with a plain idea of what may not get lost: every edit
// that nobody took away on the host where it was made before that host's store had it.
type shared struct {
	t     *testing.T
	r     *rand.Rand
	f     *fleet
	dirs  []string
	edits map[string]string // content -> the path at which it was written, until the store had it
	names map[string]bool   // all paths ever used
	count int
	dark  [3]bool // cut off
}

func TestThreeHostsEditOneDirectoryAndLoseNothing(t *testing.T) {
	seed := rand.Uint64() >> 16
	t.Logf("go test ./test/e2e -run ThreeHostsEdit -both=%s, seed %d", *bothTime, seed)
	s := &shared{
		t: t, r: rand.New(rand.NewPCG(seed, 0)), f: newFleet(t, "a", "b", "c"), edits: map[string]string{}, names: map[string]bool{},
	}
	for _, h := range s.f.hosts {
		dir := filepath.Join(h.dir, "files")
		h.configure(fmt.Sprintf("mirrors:\n  - prefix: /shared\n    dir: %s\n    mode: both\n    max_delete: 100%%\n", dir))
		s.dirs = append(s.dirs, dir)
	}
	s.f.start()
	s.f.apply(everything)
	s.f.connect()
	steps := 0
	for end := time.Now().Add(*bothTime); time.Now().Before(end); steps++ {
		s.step()
		if steps%10 == 0 {
			s.look()
		}
	}
	for i, h := range s.f.hosts {
		if h.process == nil {
			h.start()
		}
		if s.dark[i] {
			h.must("peers", "resume")
		}
	}
	eventually(t, s.alike)
	s.f.converge()
	s.nothingLost()
	t.Logf("%d steps, %d edits, %d paths, %d of them left", steps, s.count, len(s.names), len(s.tree(0)))
}

// step is an edit on one host, or something that happens to one.
func (s *shared) step() {
	i := s.r.IntN(3)
	h := s.f.hosts[i]
	switch n := s.r.IntN(100); {
	case n < 2 && h.process != nil:
		h.kill()
	case n < 10 && h.process == nil:
		h.start()
		s.dark[i] = false // an agent that starts is not cut off
	case n < 4 && h.process != nil:
		h.must("peers", "pause")
		s.dark[i] = true
	case n < 12 && s.dark[i] && h.process != nil:
		h.must("peers", "resume")
		s.dark[i] = false
	case n < 60:
		s.write(i, s.name())
	case n < 75:
		s.rename(i, s.name(), s.name())
	case n < 85:
		s.remove(i, s.name())
	default:
		time.Sleep(time.Duration(s.r.IntN(100)) * time.Millisecond) // the pace of who edits, not a wait
	}
}

// name gives a path. After some edits others are used, since of a path only so many versions are kept.
func (s *shared) name() string {
	generation := s.count / 40
	name := fmt.Sprintf([]string{"f%d.%d", "d%d/f%d", "d%d/e/f%d"}[s.r.IntN(3)], generation, s.r.IntN(4))
	s.names["/shared/"+name] = true
	return name
}

// free tells whether what a host has at a path may be taken away: the host's store has had it.
func (s *shared) free(i int, name string) bool {
	text, err := os.ReadFile(filepath.Join(s.dirs[i], name))
	if err != nil {
		return os.IsNotExist(err)
	}
	if _, open := s.edits[string(text)]; open && s.had(i, string(text)) {
		delete(s.edits, string(text))
	}
	_, open := s.edits[string(text)]
	return !open
}

// had tells whether a host's store has, or had, a content at some path that moves may have brought it to.
func (s *shared) had(i int, text string) bool {
	if s.f.hosts[i].process == nil {
		return false
	}
	return slices.ContainsFunc(slices.Sorted(maps.Keys(s.names)), func(path string) bool {
		return generationOf(path) == generationOf(s.edits[text]) && slices.Contains(s.history(i, path), text)
	})
}

// generationOf gives what the names have in common among which a content may have moved.
func generationOf(name string) string {
	name = strings.TrimPrefix(name, "/shared/")
	return name[1:strings.IndexAny(name, "./")]
}

func (s *shared) history(i int, path string) (values []string) {
	ctx, cancel := within(context.Background())
	defer cancel()
	r, err := s.f.hosts[i].client.KV.History(ctx, connect.NewRequest(&apiv1.HistoryRequest{Path: path, Values: true}))
	if err != nil {
		return nil // nothing is known of it
	}
	for _, e := range r.Msg.Entries {
		values = append(values, string(e.Value))
	}
	return values
}

// look notes the edits that a store has, before so many others follow that they are dropped.
func (s *shared) look() {
	open := map[string]bool{}
	for _, name := range s.edits {
		open[generationOf(name)] = true
	}
	for path := range s.names {
		if !open[generationOf(path)] {
			continue
		}
		for i, h := range s.f.hosts {
			if h.process == nil {
				continue
			}
			for _, value := range s.history(i, path) {
				delete(s.edits, value)
			}
		}
	}
}

// write makes an edit, in place or by a rename from elsewhere, as editors do.
func (s *shared) write(i int, name string) {
	if !s.free(i, name) {
		return
	}
	at := filepath.Join(s.dirs[i], name)
	if os.MkdirAll(filepath.Dir(at), 0o755) != nil {
		return
	}
	s.count++
	text := fmt.Sprintf("edit %d of %s on %d", s.count, name, i)
	direct := s.r.IntN(2) == 0
	file := at
	if !direct {
		file = filepath.Join(s.f.hosts[i].dir, "editor")
	}
	err := os.WriteFile(file, []byte(text), 0o644)
	if err == nil && !direct {
		err = os.Rename(file, at)
	}
	if err == nil {
		s.edits[text] = name
	}
}

func (s *shared) rename(i int, from, to string) {
	if !s.free(i, to) {
		return
	}
	at := filepath.Join(s.dirs[i], to)
	if os.MkdirAll(filepath.Dir(at), 0o755) == nil {
		_ = os.Rename(filepath.Join(s.dirs[i], from), at) // perhaps there is none
	}
}

func (s *shared) remove(i int, name string) {
	if s.free(i, name) {
		_ = os.Remove(filepath.Join(s.dirs[i], name)) // perhaps there is none
	}
}

// tree gives the files of a host.
func (s *shared) tree(i int) map[string]string {
	files := map[string]string{}
	err := filepath.WalkDir(s.dirs[i], func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(d.Name(), ".syncagent") {
			return err
		}
		text, err := os.ReadFile(path)
		rel, _ := filepath.Rel(s.dirs[i], path)
		files["/shared/"+filepath.ToSlash(rel)] = string(text)
		return err
	})
	if err != nil {
		return map[string]string{"error": err.Error()} // it is changing
	}
	return files
}

// alike says whether all directories hold what the stores show.
func (s *shared) alike() error {
	want, err := s.f.hosts[0].list("/shared")
	if err != nil {
		return err
	}
	for i, h := range s.f.hosts {
		if got := s.tree(i); !maps.Equal(got, want) {
			return fmt.Errorf("%s has %v, want %v", h.name, got, want)
		}
		status, err := h.tryStatus()
		if err != nil {
			return err
		}
		if m := status.Mirrors[0]; m.State != "ok" || m.Pending > 0 {
			return fmt.Errorf("%s: mirror is %s, %d pending: %s", h.name, m.State, m.Pending, m.LastError)
		}
	}
	return nil
}

// keptVersions is how many superseded versions of a path are kept at least.
const keptVersions = 10

// nothingLost looks for every edit in the stores. One may be gone only where more versions came after it than are kept.
func (s *shared) nothingLost() {
	kept, full := map[string]bool{}, map[string]bool{}
	for path := range s.names {
		for i := range s.f.hosts {
			values := s.history(i, path)
			for _, value := range values {
				kept[value] = true
			}
			full[path] = full[path] || len(values) > keptVersions
		}
	}
	for text, name := range s.edits {
		if kept[text] {
			continue
		}
		moved := slices.ContainsFunc(slices.Sorted(maps.Keys(full)), func(path string) bool {
			return full[path] && generationOf(path) == generationOf(name)
		})
		if moved {
			s.t.Logf("%q has had more than %d versions after it, or what it was moved over", text, keptVersions)
			continue
		}
		s.t.Errorf("%q is neither in the tree nor in the history, which is %q", text, s.history(0, "/shared/"+name))
	}
}

// An edit that was made while the agent was down is older than what another host wrote since. The agent does not know of that
// when it starts, and must hear of it before it makes the edit its own write.
func TestEditFromBeforeTheStartIsNotTheLaterOne(t *testing.T) {
	f := newFleet(t, "a", "b")
	a, b := f.hosts[0], f.hosts[1]
	dir := filepath.Join(b.dir, "files")
	b.configure(fmt.Sprintf("mirrors:\n  - {prefix: /shared, dir: %s, mode: both}\n", dir))
	f.start()
	f.apply(everything)
	f.connect()
	a.mustPut("/shared/x", "first")
	f.converge()
	file := filepath.Join(dir, "x")
	is := func(want string) func() error {
		return func() error {
			if got, err := os.ReadFile(file); err != nil || string(got) != want {
				return fmt.Errorf("the file holds %q, want %q (%v)", got, want, err)
			}
			return nil
		}
	}
	eventually(t, is("first"))
	b.stop()
	if err := os.WriteFile(file, []byte("earlier edit"), 0o600); err != nil {
		t.Fatal(err)
	}
	ago := time.Now().Add(-time.Minute)
	if err := os.Chtimes(file, ago, ago); err != nil {
		t.Fatal(err)
	}
	edited := time.Now()
	a.mustPut("/shared/x", "later put")
	eventually(t, func() error { // a file that was changed just now is left alone anyway
		if age := time.Since(edited); age < 300*time.Millisecond {
			return fmt.Errorf("the edit is %s old", age)
		}
		return nil
	})
	b.start()
	eventually(t, is("later put"))
	f.converge()
	if got := a.mustList("/shared"); got["/shared/x"] != "later put" {
		t.Errorf("a shows %q", got)
	}
	if history := a.must("history", "/shared/x"); strings.Count(history, "\n") != 5 { // a heading, three writes, and the last one again
		t.Errorf("the edit is not in the history:\n%s", history)
	}
}
