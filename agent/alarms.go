package agent

import (
	"cmp"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Alarm is something that an operator must look at.
type Alarm struct {
	Code    string // stable, such as "disk_full"
	Subject string // which one of several, such as a mirror's name; may be empty
	Since   time.Time
	Message string
	Hint    string
}

// maxAlarms bounds the list. Codes are few; a subject that runs wild must not fill the memory.
const maxAlarms = 1000

// Alarms is the one list of what is wrong now. It is safe for concurrent use; the zero value without a logger is not
// ready, use NewAlarms.
type Alarms struct {
	log *slog.Logger
	now func() time.Time

	mu     sync.Mutex
	active map[alarmKey]Alarm
}

type alarmKey struct{ code, subject string }

// NewAlarms gives an empty list that logs what is raised and cleared.
func NewAlarms(log *slog.Logger) *Alarms {
	return &Alarms{log: log, now: time.Now, active: map[alarmKey]Alarm{}}
}

// Raise puts an alarm on the list. One that is there already keeps its time and takes the new message; only a new one
// is logged.
func (a *Alarms) Raise(code, subject, message string) {
	a.mu.Lock()
	key := alarmKey{code, subject}
	old, known := a.active[key]
	full := !known && len(a.active) >= maxAlarms
	if !full {
		alarm := Alarm{Code: code, Subject: subject, Since: a.now(), Message: message, Hint: alarmHints[code]}
		if known {
			alarm.Since = old.Since
		}
		a.active[key] = alarm
	}
	a.mu.Unlock()
	if !known && !full {
		a.log.Warn("alarm raised", "code", code, "subject", subject, "message", message, "hint", alarmHints[code])
	}
}

// Clear takes an alarm off the list, if it is there.
func (a *Alarms) Clear(code, subject string) {
	a.mu.Lock()
	key := alarmKey{code, subject}
	_, known := a.active[key]
	delete(a.active, key)
	a.mu.Unlock()
	if known {
		a.log.Info("alarm cleared", "code", code, "subject", subject)
	}
}

// Set raises an alarm, or clears it when message is empty. It is the form that the parts of an agent are given.
func (a *Alarms) Set(code, message string) {
	if message == "" {
		a.Clear(code, "")
		return
	}
	a.Raise(code, "", message)
}

// List gives the active alarms, the oldest first.
func (a *Alarms) List() []Alarm {
	a.mu.Lock()
	list := make([]Alarm, 0, len(a.active))
	for _, alarm := range a.active {
		list = append(list, alarm)
	}
	a.mu.Unlock()
	slices.SortFunc(list, func(x, y Alarm) int {
		return cmp.Or(x.Since.Compare(y.Since), cmp.Compare(x.Code, y.Code), cmp.Compare(x.Subject, y.Subject))
	})
	return list
}

// alarmHints says what to do about an alarm, by its code.
var alarmHints = map[string]string{
	alarmNoPolicy:       "on the host with the admin key: syncagent acl admit, with the line that syncagent join printed here",
	alarmNoMember:       "if that is a mistake: syncagent acl admit, with its identity line, on the host with the admin key; a revoked key stays out, join anew with another --dir",
	"bad-policy":        "syncagent acl check, then syncagent acl apply",
	"policy-twins":      "apply a policy with a higher serial: syncagent acl apply",
	"bad-reload":        "syncagent config check",
	"paused":            "syncagent peers resume",
	"old-version":       "install the version of syncagent that the other hosts run",
	"disk-full":         "free space on the disk of data_dir, or lower store.min_free",
	alarmClock:          "mend the time service of this host; agent time never goes back, so if it was ahead, keep the agent stopped for as long as it was",
	"corrupt":           "check the disk; stop the agent, move its store away and start it: the other agents fill it again",
	"diverged":          "compare block_digest of syncagent status on both hosts, and report it",
	"invalid-data":      "look at the member that the message names: its program or its host may not be sound",
	"identity-reused":   "never run two agents with one identity.key",
	"trigger-files":     "mend the files that the message names, then restart the agent",
	"mirror-halted":     "bring the directory back, or remove the mirror's journal to start anew",
	"mirror-held":       "if the deletions are meant, run syncagent mirror once by hand",
	"mirror-incomplete": "syncagent status shows the paths that cannot be files here",
	"mirror-failing":    "it is tried again until it works",
}
