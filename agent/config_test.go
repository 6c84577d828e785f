package agent

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"syncagent/configs"
)

func noEnv(string) (string, bool) { return "", false }

func TestExampleEqualsDefaults(t *testing.T) {
	got, err := parseConfig("", configs.Example, noEnv, nil)
	if err != nil {
		t.Fatal(err)
	}
	got.Network, got.Admins, got.Announce, got.Bootstrap, got.Mirrors, got.Triggers, got.LocalRules, got.Indexes = "", nil, nil, nil, nil, nil, nil, nil // lists are empty either way
	want := DefaultConfig()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("example gives\n%+v\nwant\n%+v", got, want)
	}
	for _, key := range append(SettingKeys(), "mirrors", "triggers", "local_rules", "indexes") {
		name := key[strings.LastIndex(key, ".")+1:]
		if indent := strings.Repeat("  ", strings.Count(key, ".")); !strings.Contains(string(configs.Example), "\n"+indent+name+":") {
			t.Errorf("the example does not show %s", key)
		}
	}
}

func TestConfigFaultsAllAtOnce(t *testing.T) {
	text := `name: "not a name"
data_dir: /var/lib/syncagent
listn: []
listen: [/ip4/0.0.0.0/tcp/x]
api:
  http: 7425
  socket_mode: 0999
  http: 127.0.0.1:1
mirrors:
  - prefix: certs
    dir: /etc/ssl
    evry: 5s
  - {prefix: /certs, dir: /etc/ssl/sub, mode: pushy}
  - prefix: /nowhere
store:
  history: 1d
  min_free: lots
limits: 3
log: {level: loud}
admins: [nobody]
network: abc
bootstrap: ["db1:99999"]
`
	_, err := parseConfig("/etc/s.yaml", []byte(text), noEnv, map[string]string{"log.format": "xml"})
	want := []string{
		`19 faults`,
		`[1:7] name: want 1 to 63 letters`,
		`[3:1] unknown field "listn" (did you mean "listen"?)`,
		`[4:10] listen[0]: want /ip4/ADDRESS/tcp/PORT`,
		`[6:9] api.http: want ADDRESS:PORT`,
		`[7:16] api.socket_mode: want permission bits such as 0640, not "0999"`,
		`[8:3] field "http" is here twice`,
		`[10:13] mirrors[0].prefix: bad path "certs": it must begin with /`,
		`[12:5] unknown field "evry"`,
		`mirrors[1].dir: /etc/ssl/sub overlaps mirrors[0].dir`,
		`mirrors[1].mode: want pull or push or both, not "pushy"`,
		`mirrors[2].dir: missing`,
		`[16:12] store.history: 1d is too short; the least is 7d`,
		`[17:13] store.min_free: want a size`,
		`[18:9] limits: want keys with values here, not a single value`,
		`log.level: want debug or info or warn or error, not "loud"`,
		`flag for log.format: want auto or text or json, not "xml"`,
		`admins[0]: peer ID "nobody"`,
		`network: network ID "abc"`,
		`bootstrap[0]: want HOST:PORT`,
	}
	if err == nil {
		t.Fatal("no error")
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("missing %q", w)
		}
	}
	if t.Failed() {
		t.Log(err)
	}
}

func TestConfigSyntax(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"unknown":   {"api:\n  http: 127.0.0.1:1\nmirrors:\n  - prefix: /a\n    dir: /b\n    onwer: x\n", `[6:5] unknown field "onwer" (did you mean "owner"?)`},
		"far off":   {"zzzzzzz: 1\n", `[1:1] unknown field "zzzzzzz"`},
		"broken":    {"name: [a\n", `[1:7]`},
		"tabs":      {"api:\n\thttp: x\n", `[`},
		"documents": {"name: a\n---\nname: b\n", `a second document`},
		"list":      {"- a\n", `want keys with values here, not a list`},
		"anchor":    {"name: &x a\n", `anchor`},
		"nested":    {"name: {a: b}\n", `name: want one value here, not keys with values`},
		"bool":      {"metrics: {libp2p: maybe}\n", `metrics.libp2p: want true or false`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseConfig("c.yaml", []byte(test.text), noEnv, nil)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
			if e, ok := errors.AsType[*Error](err); !ok || e.Code != CodeBadConfig {
				t.Errorf("%v is no CodeBadConfig", err)
			}
		})
	}
}

func TestConfigEmptyFileIsDefault(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "api:\nname:\n", "---\n"} {
		got, err := parseConfig("", []byte(text), noEnv, nil)
		if err != nil || !reflect.DeepEqual(got, DefaultConfig()) {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}

func TestConfigPrecedence(t *testing.T) {
	env := map[string]string{"SYNCAGENT_API_HTTP": "127.0.0.1:2", "SYNCAGENT_NAME": "env", "SYNCAGENT_BOOTSTRAP": "a:1, b:2,"}
	lookup := func(k string) (string, bool) { v, ok := env[k]; return v, ok }
	text := "name: file\nbootstrap: [c]\napi: {http: '127.0.0.1:3', socket: /file.sock}\n"
	got, err := parseConfig("", []byte(text), lookup, map[string]string{"name": "flag"})
	if err != nil {
		t.Fatal(err)
	}
	if got.Name != "flag" || got.API.HTTP != "127.0.0.1:2" || got.API.Socket != "/file.sock" ||
		!reflect.DeepEqual(got.Bootstrap, []string{"a:1", "b:2"}) || got.Log.Level != "info" {
		t.Errorf("%+v", got)
	}
	env["SYNCAGENT_STORE_MIN_FREE"] = "lots"
	_, err = parseConfig("", nil, lookup, nil)
	if err == nil || !strings.Contains(err.Error(), "SYNCAGENT_STORE_MIN_FREE: want a size") {
		t.Error(err)
	}
}

func TestConfigRelativePaths(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "syncagent.yaml")
	text := "data_dir: data\napi: {socket: agent.sock}\nmirrors: [{prefix: /a, dir: out, triggers_dir: /t}]\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := LoadConfig(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.DataDir != dir+"/data" || got.API.Socket != dir+"/agent.sock" || got.Mirrors[0].Dir != dir+"/out" ||
		got.Mirrors[0].TriggersDir != "/t" || got.Mirrors[0].Mode != "pull" || got.IdentityFile() != dir+"/identity.key" {
		t.Errorf("%+v", got)
	}
}

func TestConfigMissingFile(t *testing.T) {
	_, err := LoadConfig(filepath.Join(t.TempDir(), "none.yaml"), nil)
	e, ok := errors.AsType[*Error](err)
	if !ok || !errors.Is(err, fs.ErrNotExist) || e.Hint == "" {
		t.Errorf("%v", err)
	}
}

func TestMirrorDirectoriesThatDoHarm(t *testing.T) {
	c := DefaultConfig()
	c.File = "/etc/syncagent/syncagent.yaml"
	c.Mirrors = []MirrorConfig{
		{Prefix: "/a", Dir: "/var/lib/syncagent/x", Mode: "pull"},
		{Prefix: "/b", Dir: "/etc", Mode: "pull"},
		{Prefix: "/c", Dir: "/srv", TriggersDir: "/srv/triggers", Mode: "pull"},
		{Prefix: "/.sys", Dir: "/sys2", Mode: "pull"},
	}
	faults := c.Check()
	if len(faults) != 4 {
		t.Errorf("%d faults: %v", len(faults), faults)
	}
}

// A rendered configuration reads back as what was rendered.
func TestRender(t *testing.T) {
	if got := string(DefaultConfig().Render()); got != string(configs.Example) {
		t.Errorf("the defaults do not render as the example:\n%s", got)
	}
	word := rapid.StringOfN(rapid.RuneFrom([]rune("ab01 \"'#:\\-{}[],éyn.\n\t")), 0, 12, -1)
	rapid.Check(t, func(t *rapid.T) {
		c := DefaultConfig()
		c.Name = word.Draw(t, "name")
		c.DataDir = word.Draw(t, "data_dir")
		c.Announce = rapid.SliceOfN(word, 0, 3).Draw(t, "announce")
		c.Store.MinFree = Size(rapid.Uint64Range(0, 1<<62).Draw(t, "min_free"))
		c.Store.History = Duration(rapid.Int64Range(0, 1<<62).Draw(t, "history"))
		c.API.SocketMode = FileMode(rapid.Uint32Range(0, 0o777).Draw(t, "mode"))
		c.Limits.Requests = rapid.IntRange(-5, 1e6).Draw(t, "requests")
		if rapid.Bool().Draw(t, "mirror") {
			c.Mirrors = []MirrorConfig{
				{Name: word.Draw(t, "m"), Prefix: "/x", Dir: word.Draw(t, "dir"), Mode: "pull", FileMode: 0o640},
				{Prefix: word.Draw(t, "p"), Mode: "pull", Include: []string{word.Draw(t, "i"), "b"}, MaxDelete: 0.25, Rollback: true,
					OnChange: []string{"a b", word.Draw(t, "arg")}, Debounce: DebounceConfig{Max: Duration(time.Second)}, TriggersDir: "/t"},
			}
			c.Triggers = []TriggerConfig{{Path: "/x", Command: []string{word.Draw(t, "c")}, Retries: Retries(rapid.IntRange(0, 3).Draw(t, "retries")),
				Debounce: DebounceConfig{Min: 1, Max: 2}, Env: []string{"A=" + word.Draw(t, "e")}}}
		}
		c.API.TLS.Listen = word.Draw(t, "tls")
		if rapid.Bool().Draw(t, "local") {
			c.LocalRules = []LocalRuleConfig{{User: word.Draw(t, "user"), Rules: []string{word.Draw(t, "rule"), "control"}}, {Group: "g", As: word.Draw(t, "as")}}
		}
		got := DefaultConfig()
		text := c.Render()
		d := decodeConfig(text, &got)
		if len(d.faults) > 0 {
			t.Fatalf("%v\n%s", d.faults, text)
		}
		if len(got.Announce) == 0 {
			got.Announce = c.Announce
		}
		got.Admins, got.Bootstrap = nil, nil
		if len(c.Mirrors) == 0 {
			got.Mirrors = nil
		}
		got.Indexes = nil
		if len(c.Triggers) == 0 {
			got.Triggers = nil
		}
		if len(c.LocalRules) == 0 {
			got.LocalRules = nil
		}
		if !reflect.DeepEqual(got, c) {
			t.Fatalf("got\n%+v\nwant\n%+v\n%s", got, c, text)
		}
	})
}

func TestUnits(t *testing.T) {
	for text, want := range map[string]time.Duration{"7d": 168 * time.Hour, "90s": 90 * time.Second, "1h30m": 90 * time.Minute, "0d": 0, "0s": 0} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || time.Duration(d) != want {
			t.Errorf("%q: %v %v", text, time.Duration(d), err)
		}
		var again Duration
		if err := again.UnmarshalText([]byte(d.String())); err != nil || again != d {
			t.Errorf("%q -> %q: %v", text, d, err)
		}
	}
	for _, text := range []string{"", "7", "d", "-1d", "9999999999999d", "1w"} {
		if err := new(Duration).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("duration %q was accepted", text)
		}
	}
	for text, want := range map[string]Size{"0": 0, "1": 1, "64KiB": 64 << 10, "256 MiB": 256 << 20, "2GiB": 2 << 30, "12B": 12} {
		var z Size
		if err := z.UnmarshalText([]byte(text)); err != nil || z != want {
			t.Errorf("%q: %d %v", text, z, err)
		}
	}
	for _, text := range []string{"", "-1", "1MB", "1.5GiB", "99999999TiB", "MiB"} {
		if err := new(Size).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("size %q was accepted", text)
		}
	}
	for _, text := range []string{"0", "000", "0800", "1777", "640x", "77777", "-77"} {
		if err := new(FileMode).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("mode %q was accepted", text)
		}
	}
}

// The lists that the example shows in comments are what the agent reads, each with every key there is.
func TestExampleListsAreRead(t *testing.T) {
	text := string(configs.Example)
	for _, key := range []string{"mirrors", "triggers", "indexes"} {
		lines := strings.Split(text, "\n")
		end := slices.Index(lines, key+": []")
		start := end
		for start > 0 && strings.HasPrefix(lines[start-1], "#") && !strings.HasPrefix(lines[start], "#   - ") {
			start--
		}
		block := key + ":\n"
		for _, line := range lines[start:end] {
			block += strings.TrimPrefix(line, "#") + "\n"
		}
		text = strings.Replace(text, key+": []", block, 1)
	}
	var c Config
	d := decodeConfig([]byte(text), &c)
	if len(d.faults) > 0 || len(c.Mirrors) != 1 || len(c.Triggers) != 1 {
		t.Fatalf("%v\n%s", d.faults, text)
	}
	for _, element := range []any{c.Mirrors[0], c.Triggers[0]} {
		v := reflect.ValueOf(element)
		for _, f := range fieldsOf(v.Type()) {
			if !strings.Contains(text, f.name+":") && !strings.Contains(text, `"`+f.name+`":`) {
				t.Errorf("the example does not show %s of %T", f.name, element)
			}
		}
	}
	if m, tr := c.Mirrors[0], c.Triggers[0]; m.MaxDelete != 0.5 || time.Duration(m.Debounce.Max) != 2*time.Second || len(m.OnChange) != 3 ||
		tr.User != "nginx" || tr.Retries != 0 || len(tr.Command) != 3 {
		t.Errorf("%+v\n%+v", m, tr)
	}
}
