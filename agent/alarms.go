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
		alarm := Alarm{Code: code, Subject: subject, Since: a.now(), Message: message, Hint: alarmHint(code)}
		if known {
			alarm.Since = old.Since
		}
		a.active[key] = alarm
	}
	a.mu.Unlock()
	if !known && !full {
		a.log.Warn("alarm raised", "code", code, "subject", subject, "message", message, "hint", alarmHint(code))
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
func (a *Alarms) Set(code, message string) { a.set(code, "", message) }

func (a *Alarms) set(code, subject, message string) {
	if message == "" {
		a.Clear(code, subject)
		return
	}
	a.Raise(code, subject, message)
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
