package chaos

import (
	"errors"
	"strings"
	"testing"
)

// TestHistoryIsAJudge holds that a round is not green that lost a write, made one up, went back or had too little traffic.
// It needs neither root nor agents, so it runs wherever the round does not.
func TestHistoryIsAJudge(t *testing.T) {
	lost := errors.New("no answer")
	after := func() *history {
		y := newHistory()
		y.wrote("a", map[string]string{"/put": "old"}, "1-w", nil)
		y.wrote("b", map[string]string{"/put": "new", "/both": "new"}, "2-w", nil)
		y.wrote("a", map[string]string{"/gone": "there"}, "1-w", nil)
		y.wrote("a", map[string]string{"/gone": ""}, "2-w", nil)
		y.wrote("a", map[string]string{"/put": "perhaps"}, "", lost)
		y.wrote("a", map[string]string{"/both": ""}, "", lost)
		return y
	}
	good := map[string]shown{"/put": {"2-w-000", "new"}, "/both": {"2-w-001", "new"}}
	for _, c := range []struct {
		name string
		path string // that is shown in another way
		show *shown // nil: not at all
		want string // of what is wrong, empty: nothing
	}{
		{"as acknowledged", "/put", &shown{"2-w-000", "new"}, ""},
		{"an unanswered write came through", "/put", &shown{"3-w-000", "perhaps"}, ""},
		{"an unanswered delete came through", "/both", nil, ""},
		{"lost", "/put", nil, "lost an acknowledged write: /put"},
		{"an older one in its place", "/put", &shown{"1-w-000", "old"}, "lost an acknowledged write: /put"},
		{"an unanswered one that is older", "/put", &shown{"1-w-000", "perhaps"}, "lost an acknowledged write: /put"},
		{"another value", "/put", &shown{"2-w-000", "other"}, "lost an acknowledged write: /put"},
		{"a newer one that nobody wrote", "/put", &shown{"3-w-000", "other"}, "lost an acknowledged write: /put"},
		{"half a batch", "/both", &shown{"1-w-000", "new"}, "lost an acknowledged write: /both"},
		{"deleted and back", "/gone", &shown{"1-w-000", "there"}, "lost an acknowledged write: /gone"},
		{"made up", "/none", &shown{"1-w-000", "x"}, "which nobody wrote"},
	} {
		t.Run(c.name, func(t *testing.T) {
			all := map[string]shown{}
			for path, s := range good {
				all[path] = s
			}
			if delete(all, c.path); c.show != nil {
				all[c.path] = *c.show
			}
			err := after().check("a", all)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("judged %v, want %q", err, c.want)
			}
		})
	}

	y := after()
	y.read("a", map[string]shown{"/put": {"2-w-000", "new"}})
	y.read("b", map[string]shown{"/put": {"1-w-000", "old"}}) // another host may be behind
	if err := y.check("a", good); err != nil {
		t.Errorf("two hosts that read: %v", err)
	}
	y.read("a", map[string]shown{"/put": {"1-w-000", "old"}})
	if err := y.check("a", good); err == nil || !strings.Contains(err.Error(), "after 2-w-000") {
		t.Errorf("a read that went back: %v", err)
	}

	w := &world{hosts: []*host{{name: "a"}, {name: "b"}}, history: newHistory()}
	for range leastAcks {
		w.history.wrote("a", nil, "1-w", nil)
		w.history.wrote("b", nil, "", lost)
	}
	if err := w.check(); err == nil || !strings.Contains(err.Error(), "void: b acknowledged 0 writes") {
		t.Errorf("a round in which b wrote nothing: %v", err)
	}
}
