package mirror

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"syncagent/sync/trigger"
)

var crashImages = flag.Int("mirror.images", 2, "random states of the disk that are tried for each crash")

// crashStory is a mirror that has agreed with its source, and something new that it has to do.
type crashStory struct {
	name   string
	opt    func(*Options)
	src    []op // before
	local  map[string]string
	news   []op
	edits  map[string]string // files that somebody wrote on this host
	gone   []string          // and removed
	stays  bool              // the change goes back, or never goes live
	shows  bool              // after it was live for a moment
	writes bool              // the mirror writes into the source
}

var crashStories = []crashStory{
	{name: "pull"},
	{name: "checked", opt: func(o *Options) { o.Check, o.Trial = shell("true"), shell("true") }},
	{name: "refused", opt: func(o *Options) { o.Check = shell("false") }, stays: true},
	{name: "rolled back", opt: func(o *Options) { o.Trial = shell("false") }, stays: true, shows: true},
	{name: "both rolled back", opt: func(o *Options) { o.Mode, o.Trial = ModeBoth, shell("false") }, stays: true, shows: true},
	{name: "swap", opt: func(o *Options) { o.Swap = SwapDirectory }},
	{name: "swap rolled back", opt: func(o *Options) { o.Swap, o.Trial = SwapDirectory, shell("false") }, stays: true, shows: true},
	{name: "confirmed", opt: func(o *Options) { o.MaxDelete = 0.01 }, src: manyOps(30), news: manyGone(30)},
	{
		name: "push", opt: func(o *Options) { o.Mode = ModePush }, src: []op{}, news: []op{}, writes: true,
		local: map[string]string{"a": "1", "d/b": "2", "d/c": "3"},
		edits: map[string]string{"a": "one", "e/f": "new"}, gone: []string{"d/b"},
	},
	{
		name: "both", opt: func(o *Options) { o.Mode = ModeBoth }, writes: true,
		edits: map[string]string{"mine": "local", "d/c": "edited"}, gone: []string{"d/b"},
	},
}

func manyOps(n int) (ops []op) {
	for i := range n {
		ops = append(ops, put(fmt.Sprintf("/p/m%d/f%d", i%3, i), fmt.Sprint(i)))
	}
	return ops
}

func manyGone(n int) (ops []op) {
	for i := range n {
		ops = append(ops, del(fmt.Sprintf("/p/m%d/f%d", i%3, i)))
	}
	return append(ops, put("/p/last", "1"))
}

// One write that changes, adds and removes files, and turns a file into a directory and a directory into a file.
func (c *crashStory) fill() {
	if c.src == nil {
		c.src = []op{
			put("/p/a", "1"), putMode("/p/d/b", "2", 0o600), put("/p/d/c", "3"), put("/p/flip", "4"), put("/p/x/y/z", "5"), put("/p/idle/i", "6"),
		}
	}
	if c.news == nil {
		c.news = []op{
			put("/p/a", "one"), put("/p/n/e/w", "new"), put("/p/flip/flop", "dir now"), del("/p/flip"), del("/p/x/y/z"), put("/p/x", "file now"), del("/p/idle/i"),
		}
	}
}

func (c *crashStory) source() *fakeSource {
	s := newFakeSource()
	if len(c.src) > 0 {
		s.write(c.src...)
	}
	return s
}

// mirror gives one of the story on a disk.
func (c *crashStory) mirror(t *testing.T, src *fakeSource, d *crashDisk) *Mirror {
	t.Helper()
	o := Options{
		Prefix: "/p", Dir: "/m/out", StateDir: "/m/state", Log: slog.New(slog.DiscardHandler), MaxDelete: 1,
		Triggers: trigger.New(trigger.Options{Specs: []trigger.Spec{{Name: "t", Path: "/p", Args: []string{"true"}, Timeout: time.Minute}}}),
	}
	if c.opt != nil {
		c.opt(&o)
	}
	m, err := New(src, o)
	if err != nil {
		t.Fatal(err)
	}
	m.disk, m.settle, m.grace = d, 0, 0
	return m
}

// once mirrors, confirms what is held, and leaves the triggers their marks.
func once(m *Mirror) (due map[string]mark, err error) {
	j, err := openJournal(m.disk, m.journalPath, m.o.Log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, j.close()) }()
	err = m.once(context.Background(), j)
	if errors.Is(err, ErrHeld) && !errors.Is(err, errPower) {
		m.Confirm()
		err = m.once(context.Background(), j)
	}
	return j.due()["t"], err
}

// begin gives a durable disk on which the mirror has agreed with its source, and with what is new on this host.
func (c *crashStory) begin(t *testing.T) *crashDisk {
	t.Helper()
	d := newCrashDisk()
	if err := errors.Join(d.MkdirAll("/m/out", 0o755), d.put("/m/out", c.local)); err != nil {
		t.Fatal(err)
	}
	src := c.source()
	m := c.mirror(t, src, d)
	if c.stays {
		m.o.Check, m.o.Trial = nil, nil
	}
	if err := m.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.put("/m/out", c.edits); err != nil {
		t.Fatal(err)
	}
	for _, p := range c.gone {
		up, err := d.Folder("/m/out/" + parent(p))
		if err = errors.Join(err, up.Remove(name(p))); err != nil {
			t.Fatal(err)
		}
	}
	return d.after(nothingIsLost)
}

// agreed gives a source as it is after what begin did, and what is new.
func (c *crashStory) agreed(t *testing.T) *fakeSource {
	src := c.source()
	if c.writes { // the versions of what was pushed have to be the same each time
		if _, err := once(c.mirror(t, src, c.localDisk(t))); err != nil {
			t.Fatal(err)
		}
	}
	if len(c.news) > 0 {
		src.write(c.news...)
	}
	return src
}

func (c *crashStory) localDisk(t *testing.T) *crashDisk {
	d := newCrashDisk()
	if err := errors.Join(d.MkdirAll("/m/out", 0o755), d.put("/m/out", c.local)); err != nil {
		t.Fatal(err)
	}
	return d
}

// put writes files, durably.
func (d *crashDisk) put(dir string, files map[string]string) error {
	for p, text := range files {
		if err := d.MkdirAll(dir+"/"+parent(p), 0o755); err != nil {
			return err
		}
		up, err := d.Folder(dir + "/" + parent(p))
		if err != nil {
			return err
		}
		f, err := up.Open(name(p), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
		if err != nil {
			return err
		}
		if _, err := f.Write([]byte(text)); err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), up.Sync()); err != nil {
			return err
		}
	}
	return nil
}

// seen gives the files as programs see them, each with its mode; what is the mirror's own is left out.
func (d *crashDisk) seen(dir string) map[string]string {
	got := map[string]string{}
	var look func(n *node, at string)
	look = func(n *node, at string) {
		for name, to := range n.names {
			if strings.HasPrefix(name, ours) {
				continue
			}
			p := strings.TrimPrefix(at+"/"+name, "/")
			if to.kind == fs.ModeSymlink {
				if to = d.follow(dir, to.target); to == nil {
					continue
				}
			}
			if to.IsDir() {
				look(to, p)
			} else {
				got[p] = fmt.Sprintf("%s %o", to.data, to.mode)
			}
		}
	}
	if top, err := d.find(dir); err == nil {
		look(top, "")
	}
	return got
}

// follow resolves one of the mirror's links.
func (d *crashDisk) follow(dir, target string) *node {
	first, rest, _ := strings.Cut(target, "/")
	version, err := d.find(dir + "/" + first)
	if err != nil || version.kind != fs.ModeSymlink {
		return nil
	}
	n, err := d.find(dir + "/" + version.target + "/" + rest)
	if err != nil {
		return nil
	}
	return n
}

// leftovers gives what is in the root and no file, directory or marker.
func (d *crashDisk) leftovers(dir string) (left []string) {
	top, err := d.find(dir)
	if err != nil {
		return nil
	}
	for name := range top.names {
		if strings.HasPrefix(name, ours) && name != markerName && name != liveLink && !isVersion(name) {
			left = append(left, name)
		}
	}
	return left
}

func TestG8_G9_CrashAtEveryOperation(t *testing.T) {
	for _, c := range crashStories {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.fill()
			c.run(t)
		})
	}
}

func (c *crashStory) run(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	start := c.begin(t)
	before, tried := start.seen("/m/out"), start.seen("/m/out")
	whole := start.after(nothingIsLost)
	m := c.mirror(t, c.agreed(t), whole)
	if _, err := once(m); err != nil && !c.stays {
		t.Fatal(err)
	}
	if c.stays && c.shows {
		tried = c.tried(t, start)
	}
	operations, after := whole.ops.Load(), whole.seen("/m/out")
	if c.stays && !maps.Equal(before, after) {
		t.Fatalf("it does not go back: %s, before %s", show(after), show(before))
	}
	losses := map[string]loss{"nothing": nothingIsLost, "all": allIsLost}
	for n := range *crashImages {
		losses[fmt.Sprint("random ", n)] = random(r)
	}
	for at := int64(1); at <= operations; at++ {
		d := start.after(nothingIsLost)
		d.stopAt = at
		src := c.agreed(t)
		_, err := once(c.mirror(t, src, d))
		for _, what := range slices.Sorted(maps.Keys(losses)) {
			image := d.after(losses[what])
			fault := c.check(t, src, image, []map[string]string{before, after, tried}, r)
			if fault != nil {
				t.Fatalf("seed %d, power fails at operation %d of %d (%v), unsynced is lost: %s: %v", seed, at, operations, err, what, fault)
			}
		}
	}
	t.Logf("%d operations, %d states of the disk each", operations, len(losses))
}

// check looks at a disk after a crash, and at what the next start makes of it, which may crash as well.
func (c *crashStory) check(t *testing.T, src *fakeSource, d *crashDisk, states []map[string]string, r *rand.Rand) error {
	before, after := states[0], states[1]
	wanted := src.tree()
	src = src.clone()
	swapped := len(d.versions("/m/out")) > 0
	if err := onlyWhole(d.seen("/m/out"), states, swapped); err != nil {
		return fmt.Errorf("after the crash: %w", err)
	}
	if !c.stays && !c.writes {
		if err := c.takenBack(t, src.clone(), d.after(nothingIsLost)); err != nil {
			return fmt.Errorf("the source took the news back before the next start: %w", err)
		}
	}
	if r.IntN(4) == 0 {
		d.stopAt = 1 + r.Int64N(40)
		if _, err := once(c.mirror(t, src, d)); err == nil {
			d.stopAt = 0 // it got through
		}
		d = d.after(random(r))
		if err := onlyWhole(d.seen("/m/out"), states, swapped); err != nil {
			return fmt.Errorf("after the second crash: %w", err)
		}
	}
	due, err := once(c.mirror(t, src, d))
	if err != nil && (!c.stays || !errors.Is(err, ErrIncomplete)) {
		return err
	}
	if got := d.seen("/m/out"); !maps.Equal(got, after) {
		return fmt.Errorf("the next run makes it %s, want %s", show(got), show(after))
	}
	if left := d.leftovers("/m/out"); len(left) > 0 {
		return fmt.Errorf("left over: %q", left)
	}
	if got := src.tree(); !c.writes && !maps.Equal(got, wanted) {
		return fmt.Errorf("nobody edited a file, and the source is %s, want %s", show(got), show(wanted))
	}
	if c.writes {
		for p, text := range src.tree() {
			if after[p] != text+" 644" {
				return fmt.Errorf("the source has %q at %s, the directory %q", text, p, after[p])
			}
		}
	}
	for p := range differing(before, after) {
		if _, ok := due[p]; !ok && !c.writes {
			return fmt.Errorf("no trigger is due for %s", p)
		}
	}
	return nil
}

// takenBack looks at what the next start makes of a disk when nothing of the news is wanted any more: what the mirror put
// there goes.
func (c *crashStory) takenBack(t *testing.T, src *fakeSource, d *crashDisk) error {
	for _, o := range c.news {
		src.write(del(o.path))
	}
	if _, err := once(c.mirror(t, src, d)); err != nil {
		return err
	}
	got := d.seen("/m/out")
	for p, text := range got {
		got[p] = text[:strings.LastIndex(text, " ")] // without the mode
	}
	if want := src.tree(); !maps.Equal(got, want) {
		return fmt.Errorf("the next run makes it %s, want %s", show(got), show(want))
	}
	return nil
}

// onlyWhole makes sure that each file is as in one of the states; with together, that all are of the same.
func onlyWhole(got map[string]string, states []map[string]string, together bool) error {
	for p, text := range got {
		if !slices.ContainsFunc(states, func(s map[string]string) bool { return s[p] == text }) {
			return fmt.Errorf("%s is %q, which it never was", p, text)
		}
	}
	if together && !slices.ContainsFunc(states, func(s map[string]string) bool { return maps.Equal(s, got) }) {
		return fmt.Errorf("a mix is seen: %s", show(got))
	}
	return nil
}

// tried gives what is seen between the change and its way back.
func (c *crashStory) tried(t *testing.T, start *crashDisk) map[string]string {
	d := start.after(nothingIsLost)
	m := c.mirror(t, c.agreed(t), d)
	m.o.Trial = nil
	if _, err := once(m); err != nil {
		t.Fatal(err)
	}
	return d.seen("/m/out")
}

// clone gives a source in the same state, for one that has not been watched.
func (s *fakeSource) clone() *fakeSource {
	c := newFakeSource()
	c.files, c.log, c.hlc = maps.Clone(s.files), slices.Clone(s.log), s.hlc
	return c
}

func (d *crashDisk) versions(dir string) (all []string) {
	if top, err := d.find(dir); err == nil {
		for name := range top.names {
			if isVersion(name) {
				all = append(all, name)
			}
		}
	}
	return all
}

func differing(a, b map[string]string) map[string]struct{} {
	diff := map[string]struct{}{}
	for p := range a {
		if a[p] != b[p] {
			diff[p] = struct{}{}
		}
	}
	for p := range b {
		if a[p] != b[p] {
			diff[p] = struct{}{}
		}
	}
	return diff
}

// What was read once and looks as before is not read again by every check, and nothing is written.
func TestCheckReadsNoUnchangedFile(t *testing.T) {
	c := &crashStory{}
	c.fill()
	d, src := newCrashDisk(), c.source()
	if err := d.MkdirAll("/m/out", 0o755); err != nil {
		t.Fatal(err)
	}
	m := c.mirror(t, src, d)
	read := func() int {
		t.Helper()
		d.reads = 0
		if err := m.Once(t.Context()); err != nil {
			t.Fatal(err)
		}
		return d.reads
	}
	read()
	if n := read(); n != len(c.src) {
		t.Errorf("the check of %d files that were written just now reads %d", len(c.src), n)
	}
	ops := d.ops.Load()
	if n := read(); n != 0 {
		t.Errorf("the check of %d unchanged files reads %d", len(c.src), n)
	}
	if n := d.ops.Load() - ops; n > 1 {
		t.Errorf("the check of unchanged files does %d operations that change something", n)
	}
	if err := d.put("/m/out", map[string]string{"a": "edit"}); err != nil {
		t.Fatal(err)
	}
	if n := read(); n > 2 || d.seen("/m/out")["a"] != "1 644" {
		t.Errorf("one of %d files is edited: %d are read, it is %q", len(c.src), n, d.seen("/m/out")["a"])
	}
}
