package acl

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"syncagent/crdtstore/record"
)

// model judges by reading the lines again for each question, without tags, groups by number, or any other cleverness.
type model struct {
	lines [][]string
	keys  map[string]record.PublicKey // by alias
}

func newModel(text string) model {
	m := model{keys: map[string]record.PublicKey{}}
	for _, line := range strings.Split(text, "\n") {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		m.lines = append(m.lines, f)
		if f[0] == "identity" {
			m.keys[f[1]], _ = record.ParsePublicKey(f[2])
		}
	}
	return m
}

func (m model) has(word string, k record.PublicKey) []string {
	for _, f := range m.lines {
		if f[0] == word && f[1] == k.String() {
			return f
		}
	}
	return nil
}

func (m model) stands(subject, alias string) bool {
	if subject == "*" || subject == alias {
		return true
	}
	for _, f := range m.lines {
		if f[0] == "group" && f[1] == subject {
			for _, member := range f[2:] {
				if member == alias {
					return true
				}
			}
		}
	}
	return false
}

// rules tells whether a rule gives alias the letter r, w or p at path.
func (m model) rules(alias, path string, letter string) bool {
	ops := map[string]string{"read": "r", "r": "r", "write": "w", "w": "w", "rw": "rw"}
	for _, f := range m.lines {
		if len(f) == 2 && f[1] == "peer" && letter == "p" && m.stands(f[0], alias) {
			return true
		}
		if len(f) != 3 || f[1][0] != '/' || !m.stands(f[0], alias) || !strings.Contains(ops[f[2]], letter) {
			continue
		}
		prefix := strings.ReplaceAll(f[1], "{self}", alias)
		if prefix == "/" && path != "/.sys" && !strings.HasPrefix(path, "/.sys/") {
			return true
		}
		if prefix = strings.TrimSuffix(prefix, "/"); prefix != "" && strings.HasPrefix(path+"/", prefix+"/") {
			return true
		}
	}
	return false
}

func (m model) now(alias, path string, letter string) bool {
	k, named := m.keys[alias]
	return named && m.has("revoke", k) == nil && m.has("retired", k) == nil && m.rules(alias, path, letter)
}

func (m model) allowed(alias, path string, v record.Version) bool {
	for _, f := range m.lines {
		if f[0] == "keep" && (f[1] == v.String() || f[1] == v.WriteString()) {
			return true
		}
	}
	k, named := m.keys[alias]
	if !named || m.has("revoke", k) != nil {
		return false
	}
	if f := m.has("retired", k); f != nil && v.HLC.Time().Format("2006-01-02T15:04:05.000Z") > f[2] {
		return false
	}
	return m.rules(alias, path, "w")
}

func (m model) membersMayRead(path string) bool {
	members := 0
	for alias := range m.keys {
		if m.now(alias, path, "p") {
			if members++; !m.now(alias, path, "r") {
				return false
			}
		}
	}
	return members > 0
}

// world draws policies, paths and versions from few words, so that they meet often.
type world struct{ *rand.Rand }

func (w world) of(words ...string) string { return words[w.IntN(len(words))] }

func (w world) alias() string { return fmt.Sprintf("h%d", w.IntN(8)) }

func (w world) segment() string { return w.of("a", "b", "a2", "h0", "h1", "h2", ".sys", "{x}") }

func (w world) path() string {
	var b strings.Builder
	for range 1 + w.IntN(3) {
		b.WriteString("/" + w.segment())
	}
	return b.String()
}

func (w world) version() record.Version {
	return version(int64(w.IntN(4)*1000+w.IntN(2)), w.of("u", "v"), uint16(w.IntN(2)))
}

func (w world) prefix() string {
	if w.IntN(12) == 0 {
		return "/"
	}
	segments := strings.Split(w.path(), "/")
	if i := w.IntN(2 * len(segments)); i > 0 && i < len(segments) {
		segments[i] = "{self}"
	}
	return strings.Join(segments, "/") + w.of("", "", "", "/")
}

func (w world) subject() string {
	return w.of(w.alias(), w.alias(), "@g", "@h", "@undefined", "*", "ghost")
}

func (w world) line() string {
	switch n := w.IntN(24); {
	case n == 0:
		return "revoke " + key(w.alias()).String()
	case n == 1:
		return "keep " + w.version().String()
	case n == 2:
		return "keep " + w.version().WriteString()
	case n < 6:
		return "group " + w.of("@g", "@h") + " " + w.alias() + " " + w.of(w.alias(), "ghost")
	case n < 8:
		return w.subject() + " peer"
	}
	return w.subject() + " " + w.prefix() + " " + w.of("read", "r", "write", "w", "rw")
}

// lines makes the lines of a policy that is valid in any order.
func (w world) lines() []string {
	lines := strings.Split(strings.TrimSpace(header(1)), "\n")
	for i := range 6 { // h6 and h7 stay unknown
		name := fmt.Sprintf("h%d", i)
		lines = append(lines, "identity "+name+" "+key(name).String())
		if w.IntN(8) == 0 {
			lines = append(lines, fmt.Sprintf("retired %s 1970-01-01T00:00:0%d.000Z", key(name), w.IntN(4)))
		}
	}
	for range w.IntN(40) {
		lines = append(lines, w.line())
	}
	return lines
}

func compileLines(t *testing.T, lines []string) *Policy {
	t.Helper()
	s, err := ParseSigned(Sign([]byte(strings.Join(lines, "\n")), testNetwork, private("admin")))
	if err != nil {
		t.Fatalf("%v\n%s", err, strings.Join(lines, "\n"))
	}
	return Compile(testNetwork, s, nil)
}

// TestDecisionsEqualTheModel asks random policies, each once in order and once with its lines shuffled, and the model.
func TestDecisionsEqualTheModel(t *testing.T) {
	w := world{newRand(t)}
	yes, questions := 0, 0
	for range 500 {
		lines := w.lines()
		m := newModel(strings.Join(lines, "\n"))
		straight := compileLines(t, lines)
		w.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
		shuffled := compileLines(t, lines)
		for range 40 {
			alias, path, v := w.alias(), w.path(), w.version()
			k, tags := key(alias), testNetwork.Tags(path)
			want := []bool{
				m.now(alias, path, "r"), m.now(alias, path, "w"), m.now(alias, path, "p"),
				m.allowed(alias, path, v), m.membersMayRead(path), m.now(alias, path, "r"), m.now(alias, path, "w"),
			}
			for _, p := range []*Policy{straight, shuffled} {
				got := []bool{
					p.MayRead(k, tags), p.MayWrite(k, tags), p.Member(k),
					p.Allowed(k, tags, v), p.MembersMayRead(tags), p.MayReadPath(k, path), p.MayWritePath(k, path),
				}
				for i := range want {
					if questions++; want[i] {
						yes++
					}
					if got[i] != want[i] {
						t.Fatalf("question %d for %s at %s, version %s: %v, the model says %v\n%s",
							i, alias, path, v, got[i], want[i], strings.Join(lines, "\n"))
					}
				}
			}
		}
	}
	if yes < questions/20 || yes > questions*19/20 {
		t.Errorf("%d of %d answers are yes: the test asks the wrong questions", yes, questions)
	}
	t.Logf("%d of %d answers are yes", yes, questions)
}
