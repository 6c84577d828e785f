package agent

import (
	"encoding/base64"
	"fmt"
	"time"

	apiv1 "syncagent/agent/api/v1"
)

// EntryJSON is an entry as programs get it from the command line and over plain HTTP. Its keys are a contract.
type EntryJSON struct {
	Path    string  `json:"path"`
	Version string  `json:"version"`
	HLC     string  `json:"hlc"`
	Author  string  `json:"author"`
	Alias   string  `json:"alias"`
	Size    int64   `json:"size"`
	Mode    *string `json:"mode"`    // octal; null when the writer gave none
	Expires *string `json:"expires"` // RFC 3339; null: never
	Value   *string `json:"value_base64,omitempty"`
	Large   bool    `json:"large,omitempty"` // the value is too large to be here
	Deleted bool    `json:"deleted,omitempty"`
}

// NewEntryJSON makes it of an entry.
func NewEntryJSON(e *apiv1.Entry) EntryJSON {
	out := EntryJSON{
		Path: e.GetPath(), Version: e.GetVersion(), HLC: e.GetHlc(), Author: e.GetAuthor(), Alias: e.GetAlias(),
		Size: e.GetSize(), Large: e.GetLarge(), Deleted: e.GetDeleted(),
	}
	if e.Mode != nil {
		m := fmt.Sprintf("%04o", e.GetMode())
		out.Mode = &m
	}
	if e.GetExpires() != nil {
		t := e.GetExpires().AsTime().Format(time.RFC3339Nano)
		out.Expires = &t
	}
	if e.Value != nil {
		v := base64.StdEncoding.EncodeToString(e.GetValue())
		out.Value = &v
	}
	return out
}

// EventJSON is an event of a watch in the same places.
type EventJSON struct {
	Cursor  string  `json:"cursor"`
	Type    string  `json:"type"` // one of EventName
	More    bool    `json:"more,omitempty"`
	Path    string  `json:"path,omitempty"`
	Version string  `json:"version,omitempty"`
	HLC     string  `json:"hlc,omitempty"`
	Author  string  `json:"author,omitempty"`
	Alias   string  `json:"alias,omitempty"`
	Size    *int64  `json:"size,omitempty"` // of a put
	Mode    *string `json:"mode,omitempty"`
	Value   *string `json:"value_base64,omitempty"`
	Large   bool    `json:"large,omitempty"`
}

var eventNames = map[apiv1.EventType]string{
	apiv1.EventType_EVENT_TYPE_PUT:    "put",
	apiv1.EventType_EVENT_TYPE_DELETE: "delete",
	apiv1.EventType_EVENT_TYPE_SYNCED: "synced",
	apiv1.EventType_EVENT_TYPE_RESET:  "reset",
	apiv1.EventType_EVENT_TYPE_POLICY: "policy",
}

// EventName is put, delete, synced, reset or policy.
func EventName(t apiv1.EventType) string { return eventNames[t] }

// NewEventJSON makes it of an event.
func NewEventJSON(e *apiv1.Event) EventJSON {
	entry := e.GetEntry()
	out := EventJSON{
		Cursor: e.GetCursor(), Type: EventName(e.GetType()), More: e.GetMore(),
		Path: entry.GetPath(), Version: entry.GetVersion(), HLC: entry.GetHlc(), Author: entry.GetAuthor(), Alias: entry.GetAlias(),
	}
	if e.GetType() == apiv1.EventType_EVENT_TYPE_PUT {
		full := NewEntryJSON(entry)
		out.Size, out.Mode, out.Value, out.Large = &full.Size, full.Mode, full.Value, full.Large
	}
	return out
}
