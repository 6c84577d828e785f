package agent

import (
	"fmt"
	"math"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"syncagent/crdtstore/record"
	"syncagent/sync/mirror"
	"syncagent/sync/trigger"
)

// MirrorConfig is one directory that is kept equal to a prefix. What is zero or empty has the default that is named in
// configs/syncagent.yaml.
type MirrorConfig struct {
	Name         string         `yaml:"name"`
	Prefix       string         `yaml:"prefix"`
	Dir          string         `yaml:"dir"`
	Mode         string         `yaml:"mode"`
	FileMode     FileMode       `yaml:"file_mode"`
	PreserveMode bool           `yaml:"preserve_mode"`
	ConflictCopy bool           `yaml:"conflict_copy"`
	Owner        string         `yaml:"owner"`
	Group        string         `yaml:"group"`
	Include      []string       `yaml:"include"`
	Exclude      []string       `yaml:"exclude"`
	Drift        string         `yaml:"drift"`
	Swap         string         `yaml:"swap"`
	MaxDelete    Share          `yaml:"max_delete"`
	Check        []string       `yaml:"check"`
	OnChange     []string       `yaml:"on_change"`
	Rollback     bool           `yaml:"rollback"`
	Timeout      Duration       `yaml:"timeout"`
	Debounce     DebounceConfig `yaml:"debounce"`
	TriggersDir  string         `yaml:"triggers_dir"`
	Paused       bool           `yaml:"paused"`
}

// DebounceConfig delays commands: they start when nothing changed for Min, but at the latest Max after the first change.
type DebounceConfig struct {
	Min Duration `yaml:"min"`
	Max Duration `yaml:"max"`
}

// TriggerConfig is a command that runs after mirrored files changed.
type TriggerConfig struct {
	Name     string         `yaml:"name"`
	Path     string         `yaml:"path"`
	Command  []string       `yaml:"command"`
	Timeout  Duration       `yaml:"timeout"`
	Debounce DebounceConfig `yaml:"debounce"`
	Env      []string       `yaml:"env"`
	User     string         `yaml:"user"`
	Retries  Retries        `yaml:"retries"`
	Null     bool           `yaml:"null"`
}

// Share is a part of a whole, written as "0.5" or "50%". Zero means that none was given.
type Share float64

// UnmarshalText reads a number above 0 up to 1, or a percentage.
func (s *Share) UnmarshalText(b []byte) error {
	text, percent := strings.CutSuffix(string(b), "%")
	v, err := strconv.ParseFloat(text, 64)
	if percent {
		v /= 100
	}
	if err != nil || !(v > 0 && v <= 1) {
		return fmt.Errorf("want a part such as 0.5 or 50%%, above 0 and at most 1, not %q", b)
	}
	*s = Share(v)
	return nil
}

// MarshalText writes the number, or nothing for none given.
func (s Share) MarshalText() ([]byte, error) {
	if s == 0 {
		return nil, nil
	}
	return strconv.AppendFloat(nil, float64(s), 'g', -1, 64), nil
}

// Retries says how often a failed command is repeated, written as a number or "forever". The zero value is forever; else
// it is the number of attempts in all.
type Retries int

// UnmarshalText reads a number from 0 on, or "forever".
func (r *Retries) UnmarshalText(b []byte) error {
	if string(b) == "forever" {
		*r = 0
		return nil
	}
	n, err := strconv.ParseUint(string(b), 10, 31)
	if err != nil || n == math.MaxInt32 {
		return fmt.Errorf("want a number of retries or forever, not %q", b)
	}
	*r = Retries(n + 1)
	return nil
}

// MarshalText writes what UnmarshalText reads.
func (r Retries) MarshalText() ([]byte, error) {
	if r <= 0 {
		return []byte("forever"), nil
	}
	return strconv.AppendInt(nil, int64(r)-1, 10), nil
}

func (c *Config) checkMirrors(k *check) {
	names := map[string]int{}
	for i, m := range c.Mirrors {
		key := fmt.Sprintf("mirrors[%d]", i)
		if prefix, err := record.CleanPrefix(m.Prefix); m.Prefix == "" {
			k.add(key+".prefix", "missing")
		} else if err != nil {
			k.add(key+".prefix", "%v", err)
		} else if record.Reserved(prefix) {
			k.add(key+".prefix", "/.sys is reserved")
		}
		if m.Dir == "" {
			k.add(key+".dir", "missing")
		} else if c.DataDir != "" && overlap(m.Dir, c.DataDir) {
			k.add(key+".dir", "%s and data_dir overlap", m.Dir)
		} else if c.File != "" && below(filepath.Dir(c.File), m.Dir) {
			k.add(key+".dir", "%s holds the configuration and the identity", m.Dir)
		}
		for j := range i {
			if m.Dir != "" && overlap(m.Dir, c.Mirrors[j].Dir) {
				k.add(key+".dir", "%s overlaps mirrors[%d].dir", m.Dir, j)
			}
		}
		if m.TriggersDir != "" && m.Dir != "" && below(m.TriggersDir, m.Dir) {
			k.add(key+".triggers_dir", "%s lies in the mirrored directory, so that the store could say what is run here", m.TriggersDir)
		}
		m.checkRules(k, key)
		if m.Owner != "" {
			if _, err := lookupUser(m.Owner); err != nil {
				k.add(key+".owner", "%v", err)
			}
		}
		if m.Group != "" {
			if _, err := lookupGroup(m.Group); err != nil {
				k.add(key+".group", "%v", err)
			}
		}
		if j, twice := names[m.title()]; twice {
			k.add(key+".name", "%q is also the name of mirrors[%d]", m.title(), j)
		}
		names[m.title()] = i
	}
}

// OwnFiles lists the files and folders of the agent's own that no mirror may hold, or lie in.
func (c *Config) OwnFiles() []string {
	own := []string{c.DataDir, c.File, c.IdentityFile(), c.AdminKeyFile(), c.API.Socket}
	return slices.DeleteFunc(own, func(path string) bool { return path == "" })
}

// title is the mirror's name, or its prefix.
func (m *MirrorConfig) title() string {
	if m.Name != "" {
		return m.Name
	}
	return m.Prefix
}

// checkRules looks at what the mirror does, wherever it lies.
func (m *MirrorConfig) checkRules(k *check, key string) {
	k.oneOf(key+".mode", m.Mode, string(mirror.ModePull), string(mirror.ModePush), string(mirror.ModeBoth))
	m.checkMode(k, key)
	if m.Drift != "" {
		k.oneOf(key+".drift", m.Drift, string(mirror.DriftRestore), string(mirror.DriftKeep), string(mirror.DriftReport))
	}
	if m.Swap != "" {
		k.oneOf(key+".swap", m.Swap, string(mirror.SwapFiles), string(mirror.SwapDirectory))
	}
	for _, list := range []struct {
		name     string
		patterns []string
	}{{"include", m.Include}, {"exclude", m.Exclude}} {
		for i, p := range list.patterns {
			if err := mirror.CheckPattern(p); err != nil {
				k.add(fmt.Sprintf("%s.%s[%d]", key, list.name, i), "%v", err)
			}
		}
	}
	if m.Rollback && len(m.OnChange) == 0 {
		k.add(key+".rollback", "there is no on_change whose failure could be seen")
	}
	checkCommand(k, key+".check", m.Check)
	checkCommand(k, key+".on_change", m.OnChange)
	checkTimeout(k, key+".timeout", m.Timeout)
	m.Debounce.check(k, key+".debounce")
}

// checkMode finds keys that say nothing in the mirror's mode.
func (m *MirrorConfig) checkMode(k *check, key string) {
	for _, c := range []struct {
		name   string
		set    bool
		wanted []mirror.Mode
	}{
		{"preserve_mode", m.PreserveMode, []mirror.Mode{mirror.ModePush, mirror.ModeBoth}},
		{"conflict_copy", m.ConflictCopy, []mirror.Mode{mirror.ModeBoth}},
		{"drift", m.Drift != "", []mirror.Mode{mirror.ModePull, mirror.ModePush}},
		{"swap", m.Swap == string(mirror.SwapDirectory), []mirror.Mode{mirror.ModePull}},
		{"check", len(m.Check) > 0, []mirror.Mode{mirror.ModePull, mirror.ModeBoth}},
		{"on_change", len(m.OnChange) > 0, []mirror.Mode{mirror.ModePull, mirror.ModeBoth}},
	} {
		if c.set && !slices.Contains(c.wanted, mirror.Mode(m.Mode)) {
			k.add(key+"."+c.name, "has no meaning in mode %s", m.Mode)
		}
	}
}

func checkCommand(k *check, key string, args []string) {
	if len(args) > 0 && args[0] == "" {
		k.add(key, "the program is empty; want a list such as [systemctl, reload, nginx]")
	}
	if slices.ContainsFunc(args, func(a string) bool { return strings.ContainsRune(a, 0) }) {
		k.add(key, "a NUL byte cannot be in an argument")
	}
}

func checkTimeout(k *check, key string, d Duration) {
	if d < 0 || time.Duration(d) > trigger.MaxTimeout {
		k.add(key, "want at most %s, not %s", Duration(trigger.MaxTimeout), d)
	}
}

func (d DebounceConfig) check(k *check, key string) {
	if d.Min < 0 || d.Max < 0 || d.Max > 0 && d.Min > d.Max {
		k.add(key, "want min at most max, both from 0s on")
	}
}

func (c *Config) checkTriggers(k *check) {
	names := map[string]int{}
	for i, t := range c.Triggers {
		key := fmt.Sprintf("triggers[%d]", i)
		if prefix, err := record.CleanPrefix(t.Path); t.Path == "" {
			k.add(key+".path", "missing")
		} else if err != nil {
			k.add(key+".path", "%v", err)
		} else if !slices.ContainsFunc(c.Mirrors, func(m MirrorConfig) bool { return meets(m.Prefix, prefix) }) {
			k.add(key+".path", "no mirror covers %s: triggers run after files changed", prefix)
		}
		if len(t.Command) == 0 {
			k.add(key+".command", "missing; want a list such as [systemctl, reload, nginx]")
		}
		checkCommand(k, key+".command", t.Command)
		checkTimeout(k, key+".timeout", t.Timeout)
		t.Debounce.check(k, key+".debounce")
		for n, e := range t.Env {
			if name, _, ok := strings.Cut(e, "="); !ok || name == "" || strings.ContainsRune(e, 0) {
				k.add(fmt.Sprintf("%s.env[%d]", key, n), "want NAME=VALUE, not %q", e)
			}
		}
		if t.User != "" {
			if _, err := lookupUser(t.User); err != nil {
				k.add(key+".user", "%v", err)
			}
		}
		if j, twice := names[t.title()]; twice {
			k.add(key+".name", "%q is also the name of triggers[%d]", t.title(), j)
		}
		names[t.title()] = i
	}
}

// meets tells whether one of two prefixes covers the other.
func meets(a, b string) bool {
	a, err := record.CleanPrefix(a)
	return err == nil && (record.Covers(a, b) || record.Covers(b, a))
}

// title is the trigger's name, or its path. It names the trigger over restarts.
func (t *TriggerConfig) title() string {
	if t.Name != "" {
		return t.Name
	}
	return t.Path
}

// spec is the trigger as a Runner runs it.
func (t *TriggerConfig) spec() (trigger.Spec, error) {
	prefix, err := record.CleanPrefix(t.Path)
	s := trigger.Spec{
		Name: "config/" + t.title(), Path: prefix, Args: t.Command, Env: t.Env, User: t.User, Null: t.Null,
		Timeout: orDefault(t.Timeout, trigger.DefaultTimeout), Attempts: int(t.Retries),
		DebounceMin: time.Duration(t.Debounce.Min), DebounceMax: time.Duration(t.Debounce.Max), Turn: trigger.NewTurn(),
	}
	return s, err
}

func orDefault(d Duration, standard time.Duration) time.Duration {
	if d == 0 {
		return standard
	}
	return time.Duration(d)
}

// sameList tells whether two lists hold the same. Nil and empty lists do.
func sameList[T any](a, b []T) bool { return len(a) == 0 && len(b) == 0 || reflect.DeepEqual(a, b) }
