package mirror

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// model is a deliberately simple idea of what a mirror may do to a directory.
type model struct {
	b       *bench
	r       *rand.Rand
	owned   map[string]bool   // files that the mirror wrote
	foreign map[string]string // files and links of others, at names that are not ours
}

var modelNames = []string{"a", "a/b", "a/b/c", "a/d", "e", "e/f", "g", "h/i/j", "h/i/k", "h/l"}

func (m *model) name() string { return modelNames[m.r.IntN(len(modelNames))] }

// remote changes the source.
func (m *model) remote() {
	var ops []op
	for range 1 + m.r.IntN(3) {
		p := "/p/" + m.name()
		if slices.ContainsFunc(ops, func(o op) bool { return o.path == p }) {
			continue
		}
		if m.r.IntN(3) == 0 {
			ops = append(ops, del(p))
		} else {
			ops = append(ops, put(p, fmt.Sprint("remote ", m.r.IntN(4))))
		}
	}
	m.b.src.write(ops...)
}

// local changes the directory behind the mirror's back.
func (m *model) local() {
	rel := m.name()
	at := m.b.path(rel)
	switch m.r.IntN(5) {
	case 0:
		if info, err := os.Lstat(at); err == nil && !info.IsDir() && os.Remove(at) == nil {
			delete(m.foreign, rel)
		}
		return
	case 1:
		if _, err := os.Lstat(at); err == nil || os.MkdirAll(filepath.Dir(at), 0o755) != nil || os.Symlink("/dev/null/nowhere", at) != nil {
			return
		}
	case 2:
		if info, err := os.Lstat(at); err == nil && info.Mode().IsRegular() {
			_ = os.Chmod(at, 0o640)
		}
		return
	default:
		if os.MkdirAll(filepath.Dir(at), 0o755) != nil || os.WriteFile(at, fmt.Append(nil, "local ", m.r.IntN(4)), 0o644) != nil {
			return
		}
	}
	if !m.owned[rel] {
		m.foreign[rel] = "" // what it is, is read when it matters
	}
}

// wanted gives what has to be there, without what a path below shadows.
func (m *model) wanted() map[string]string {
	all := m.b.src.tree()
	want := maps.Clone(all)
	for p := range all {
		for q := range all {
			if strings.HasPrefix(q, p+"/") {
				delete(want, p)
			}
		}
	}
	return want
}

// check mirrors once and compares.
func (m *model) check() error {
	before, err := readTree(m.b.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	mir := m.b.mirror()
	if err := mir.Once(context.Background()); err != nil && !errors.Is(err, ErrIncomplete) {
		return err
	}
	after, err := readTree(m.b.dir)
	if err != nil {
		return err
	}
	excused := map[string]string{}
	for _, p := range mir.Status().Problems {
		excused[strings.TrimPrefix(p.Path, "/p/")] = p.Reason
	}
	want := m.wanted()
	for p, text := range want {
		if after[p] != text && !strings.Contains(excused[p], "in the way") {
			return fmt.Errorf("%s is %q, want %q (%q)", p, after[p], text, excused[p])
		}
	}
	for p := range m.foreign {
		if _, ours := want[p]; ours {
			continue
		}
		if _, there := before[p]; there && after[p] != before[p] {
			return fmt.Errorf("foreign %s was %q and is %q", p, before[p], after[p])
		}
	}
	for p := range after {
		_, wanted := want[p]
		_, foreign := m.foreign[p]
		if !wanted && !foreign && !strings.HasSuffix(p, "/") && excused[p] == "" {
			return fmt.Errorf("%s is left over", p)
		}
	}
	owned := map[string]bool{}
	for p := range want {
		if excused[p] == "" {
			owned[p] = true
			delete(m.foreign, p)
		} else {
			owned[p] = m.owned[p]
		}
	}
	m.owned = owned
	return nil
}

func TestModel_HaveBecomesWantAndForeignFilesStay(t *testing.T) {
	seed := rand.Uint64()
	for run := range 10 * *rounds {
		m := &model{
			b: newBench(t), r: rand.New(rand.NewPCG(seed, uint64(run))),
			owned: map[string]bool{}, foreign: map[string]string{},
		}
		m.b.opt.MaxDelete = 1
		for step := range 25 {
			for range m.r.IntN(4) {
				if m.r.IntN(2) == 0 {
					m.remote()
				} else {
					m.local()
				}
			}
			if m.r.IntN(10) == 0 { // the journal is lost: nothing is ours any more
				m.loseJournal()
			}
			if err := m.check(); err != nil {
				t.Fatalf("seed %d, run %d, step %d: %v\ntree %s", seed, run, step, err, show(m.b.files()))
			}
		}
	}
}

func (m *model) loseJournal() {
	if err := os.RemoveAll(m.b.state); err != nil {
		m.b.t.Fatal(err)
	}
	now, _ := readTree(m.b.dir)
	for p := range now {
		m.foreign[p] = ""
	}
	m.owned = map[string]bool{}
}
