package agent

import (
	"reflect"
	"slices"
	"strings"
)

// reloadable are the settings that Reload can put in force.
var reloadable = []string{"api.tls.cert", "api.tls.client_ca", "api.tls.key", "api.token_file", "bootstrap", "limits.requests",
	"limits.value", "limits.watches", "limits.peer_bytes", "limits.peer_origins", "local_rules", "log.level", "log.levels.api", "log.levels.libp2p",
	"log.levels.mirrors", "log.levels.network", "log.levels.store", "log.requests", "mirrors", "triggers", "indexes"}

// Reload puts those settings of c in force that can change while the agent runs. It returns the key paths that changed
// and were applied, and those that wait for a restart. Files in triggers_dir are read again in any case. On an error
// nothing has changed.
func (a *Agent) Reload(c Config) (applied, waiting []string, err error) {
	if err := faultsError(c.File, c.Check()); err != nil {
		return nil, nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, key := range changedKeys(&a.config, &c) {
		if slices.Contains(reloadable, key) {
			applied = append(applied, key)
		} else {
			waiting = append(waiting, key)
		}
	}
	next := a.config
	next.Bootstrap, next.Limits = c.Bootstrap, c.Limits
	next.Log.Level, next.Log.Levels, next.Log.Requests = c.Log.Level, c.Log.Levels, c.Log.Requests
	next.Mirrors, next.Triggers, next.LocalRules, next.Indexes = c.Mirrors, c.Triggers, c.LocalRules, c.Indexes
	next.API.TLS.Cert, next.API.TLS.Key, next.API.TLS.ClientCA = c.API.TLS.Cert, c.API.TLS.Key, c.API.TLS.ClientCA
	next.API.TokenFile = c.API.TokenFile
	if r := a.running; r != nil {
		if err := r.apply(&next, slices.Contains(applied, "mirrors") || slices.Contains(applied, "triggers")); err != nil {
			return nil, nil, err
		}
	}
	if a.options.Levels != nil {
		_ = a.options.Levels.Set(c.Log) // Check has seen it
	}
	a.config = next
	return applied, waiting, nil
}

// apply changes the parts that run. The agent's mu is held.
func (r *running) apply(c *Config, mirrors bool) error {
	useDoors, err := r.doors.prepare(c)
	if err != nil {
		return err
	}
	if err := r.node.SetBootstrap(c.Bootstrap); err != nil {
		return &Error{Code: CodeBadConfig, Message: err.Error(), Err: err}
	}
	files := slices.ContainsFunc(c.Mirrors, func(m MirrorConfig) bool { return m.TriggersDir != "" })
	if mirrors || files {
		if err := r.mirrors.replace(c); err != nil {
			_ = r.node.SetBootstrap(r.agent.config.Bootstrap) // it was good before
			return err
		}
	}
	r.node.SetPeerBytes(int64(c.Limits.PeerBytes))
	r.store.LimitOrigins(c.Limits.PeerOrigins)
	r.indexes.replace(c.Indexes)
	if r.server != nil {
		r.server.limit(c.Limits)
		r.server.logRequests.Store(c.Log.Requests)
	}
	useDoors()
	r.store.LimitValues(int64(c.Limits.Value))
	return nil
}

func (s *server) limit(c LimitsConfig) {
	s.requests.set(c.Requests)
	s.watches.set(c.Watches)
}

// changedKeys lists the key paths in which two configurations differ.
func changedKeys(old, new *Config) (keys []string) {
	values := map[string]any{}
	eachSetting(reflect.ValueOf(old).Elem(), "", func(key string, v reflect.Value) { values[key] = v.Interface() })
	eachSetting(reflect.ValueOf(new).Elem(), "", func(key string, v reflect.Value) {
		was, ok := values[key].([]string)
		is, ok2 := v.Interface().([]string)
		if ok && ok2 && slices.Equal(was, is) { // nil and empty are the same list
			return
		}
		if !reflect.DeepEqual(values[key], v.Interface()) {
			keys = append(keys, key)
		}
	})
	if !sameList(old.Mirrors, new.Mirrors) {
		keys = append(keys, "mirrors")
	}
	if !sameList(old.LocalRules, new.LocalRules) {
		keys = append(keys, "local_rules")
	}
	if !sameList(old.Triggers, new.Triggers) {
		keys = append(keys, "triggers")
	}
	if !sameList(old.Indexes, new.Indexes) {
		keys = append(keys, "indexes")
	}
	return keys
}

// ReloadFile reloads from the file, and keeps an error as an alarm until a reload works. It is what SIGHUP does.
func (a *Agent) ReloadFile() { _, _, _ = a.reload() } // it is in the log, and an error raises an alarm

func (a *Agent) reload() (applied, waiting []string, err error) {
	if a.options.Load == nil {
		return nil, nil, badRequest("this agent was not started from a file")
	}
	c, err := a.options.Load()
	if err == nil {
		applied, waiting, err = a.Reload(c)
	}
	if err != nil {
		a.alarms.Raise("bad-reload", "", "the old settings stay in force: "+err.Error())
		return nil, nil, err
	}
	a.alarms.Clear("bad-reload", "")
	a.log.Info("configuration reloaded", "applied", strings.Join(applied, " "), "need_restart", strings.Join(waiting, " "))
	return applied, waiting, nil
}
