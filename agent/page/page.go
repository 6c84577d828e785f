// Package page renders the status page of an agent: one HTML document without outside references, complete without
// JavaScript, kept current by it. It shows no value ever, and names of paths only where View.Full says so.
package page

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
)

//go:embed page.html
var html string

//go:embed page.css
var css string

//go:embed page.js
var js string

var parsed = template.Must(template.New("page").Parse(html))

// Sections are the parts that Section renders; their names are element IDs.
var Sections = []string{"head", "alarms", "peers", "changes", "entries", "mirrors", "store"}

// Policy is the content security policy that fits the page: its own style and script, and nothing else.
var Policy = fmt.Sprintf("default-src 'none'; style-src '%s'; script-src '%s'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
	hash(css), hash(js))

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// View is what the page shows, in words.
type View struct {
	Full   bool // may name paths
	Token  bool // there is a token that lets them be named
	Socket string
	Now    string

	Name, PeerID, Network, Version, Since string
	State, Level, Explanation             string // Level: ok, warn or bad
	Alarms                                []Alarm
	Peers                                 []Peer
	Connected                             int
	Entries, Missing, Withheld            int64
	Prefixes                              []Prefix
	Mirrors                               []Mirror
	Triggers                              []Trigger
	Serial                                uint64
	Blocks, Heads, Pending                int64
	Digest, DiskFree, StoreSize, Memory   string
	Changes                               []Change // newest first
}

// Alarm is something that an operator must look at.
type Alarm struct{ Code, Since, Message, Hint string }

// Peer is another agent.
type Peer struct{ Name, ID, State, Level, Lag, RTT, Skew, Serial, Version, Addr string }

// Prefix is a first segment and how many entries lie below it.
type Prefix struct {
	Prefix string
	Count  int64
}

// Mirror is a directory that follows a prefix. Output is what the command printed that is the reason of the error.
type Mirror struct {
	Name, State, Level, Dir, Error, Output string
	Files, Pending                         int64
}

// Trigger is a command that runs after changes. Output is what it printed last.
type Trigger struct {
	Name, State, Level, Exit, Output string
	Runs                             int64
}

// Change is a path that shows something else since then.
type Change struct{ Time, What, Path, By, Size string }

// ShortDigest is enough of the digest to compare two pages by eye.
func (v View) ShortDigest() string { return v.Digest[:min(16, len(v.Digest))] }

// CSS is the page's style.
func (View) CSS() template.CSS { return template.CSS(css) } //nolint:gosec // a constant of this package

// JS is the page's script.
func (View) JS() template.JS { return template.JS(js) } //nolint:gosec // a constant of this package

// Page renders the whole document.
func Page(v View) ([]byte, error) { return render("page", v) }

// Section renders one of Sections.
func Section(name string, v View) ([]byte, error) { return render(name, v) }

func render(name string, v View) ([]byte, error) {
	var b bytes.Buffer
	if err := parsed.ExecuteTemplate(&b, name, v); err != nil {
		return nil, fmt.Errorf("render %s: %w", name, err)
	}
	return b.Bytes(), nil
}
