// Package trigger runs commands after paths changed.
//
// A Spec names a path and a shell command; Load reads specs from a directory of JSON files. A Runner is told of changes
// by the mirror that put them on disk, coalesces what comes close together, and runs each command whose path covers one
// of them: at most one run of a trigger at a time, retried with growing delays until it succeeds.
//
// At least once: a change counts as seen only when a run that was started after it has succeeded. The Runner reports
// that through a callback, so that its owner can remember changes over a restart. A run may therefore happen twice.
//
// Nothing that comes from the store is ever put into the command's text: paths go to its standard input, facts to its
// environment.
package trigger

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"syncagent/crdtstore/record"
)

// Limits of a trigger directory.
const (
	DefaultTimeout = 30 * time.Second
	MaxTimeout     = 24 * time.Hour
	maxFiles       = 1000
	maxFileBytes   = 64 << 10
)

// Spec is one trigger.
type Spec struct {
	Name    string        // of the file it came from; distinct within a Runner, and kept over restarts
	Path    string        // a clean prefix: the command runs when this path or one below it changed
	Command string        // given to /bin/sh -c; empty if there are Args
	Args    []string      // a program and its arguments, without a shell
	Env     []string      // NAME=VALUE, added to our own environment
	User    string        // who runs it; empty: we
	Null    bool          // changed paths end in a NUL byte instead of a newline
	Timeout time.Duration // of one run, then its process group is killed
	// Attempts is how often it is run for the same changes when it fails, 0 means until it succeeds. After the last one
	// they count as seen.
	Attempts int
	// DebounceMin and DebounceMax replace those of the Runner, if not zero.
	DebounceMin, DebounceMax time.Duration
	// Turn keeps the runs of one trigger apart that several Runners have; nil: only one has it.
	Turn *Turn
}

// Turn lets one run at a time go on. The zero value is of no use, see NewTurn.
type Turn struct{ token chan struct{} }

// NewTurn makes a Turn to be shared.
func NewTurn() *Turn { return &Turn{token: make(chan struct{}, 1)} }

// take waits for the turn; false if ctx ended before. A nil Turn is always free.
func (t *Turn) take(ctx context.Context) bool {
	if t == nil {
		return ctx.Err() == nil
	}
	select {
	case t.token <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (t *Turn) giveBack() {
	if t != nil {
		<-t.token
	}
}

// command is the program to run.
func (s *Spec) command() Command {
	args := s.Args
	if len(args) == 0 {
		args = []string{"/bin/sh", "-c", s.Command}
	}
	return Command{Args: args, Env: s.Env, User: s.User, Timeout: s.Timeout}
}

// title is the command as people read it.
func (s *Spec) title() string {
	if len(s.Args) == 0 {
		return s.Command
	}
	return strings.Join(s.Args, " ")
}

// Load reads the triggers of dir: every regular file without a dot in its name, as JSON
//
//	{"path": "/certs", "command": "systemctl reload nginx", "timeout": "30s", "null": false}
//
// of which timeout and null may be left out. Files are in order of their names. A faulty file is reported in the joined
// error, with its name, while the others are returned: the caller decides whether to go on. The directory and the files
// must belong to root or to the caller and be writable by nobody else, since whoever writes them runs commands as us.
func Load(dir string) ([]Spec, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("read triggers: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("read triggers: %s is not a directory", dir)
	}
	if err := checkTrusted(dir, info); err != nil {
		return nil, fmt.Errorf("read triggers: %w", err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read triggers: %w", err)
	}
	var specs []Spec
	var faults []error
	for _, f := range files {
		if strings.Contains(f.Name(), ".") || f.IsDir() {
			continue
		}
		if len(specs) == maxFiles {
			faults = append(faults, fmt.Errorf("read triggers: more than %d files in %s", maxFiles, dir))
			break
		}
		name := filepath.Join(dir, f.Name())
		s, err := loadFile(name)
		if err != nil {
			faults = append(faults, fmt.Errorf("read trigger %s: %w", name, err))
			continue
		}
		specs = append(specs, s)
	}
	return specs, errors.Join(faults...)
}

func loadFile(name string) (Spec, error) {
	// O_NONBLOCK: a FIFO must not block the start.
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return Spec{}, errors.Unwrap(err) // the name is in the caller's error
	}
	defer f.Close() //nolint:errcheck // read only
	info, err := f.Stat()
	if err != nil {
		return Spec{}, err
	}
	if !info.Mode().IsRegular() {
		return Spec{}, errors.New("not a regular file")
	}
	if err := checkTrusted(name, info); err != nil {
		return Spec{}, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return Spec{}, err
	}
	if len(b) > maxFileBytes {
		return Spec{}, fmt.Errorf("larger than %d bytes", maxFileBytes)
	}
	return Parse(filepath.Base(name), b)
}

// Parse reads one trigger from its JSON form. Unknown keys are errors: a misspelt one would silently do nothing.
func Parse(name string, b []byte) (Spec, error) {
	var raw struct {
		Path    string  `json:"path"`
		Command string  `json:"command"`
		Null    bool    `json:"null"`
		Timeout *string `json:"timeout"`
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&raw); err != nil {
		if errors.Is(err, io.EOF) {
			return Spec{}, errors.New("the file is empty")
		}
		return Spec{}, fmt.Errorf("bad json: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Spec{}, errors.New("bad json: text after the object")
	}
	s := Spec{Name: name, Command: raw.Command, Null: raw.Null, Timeout: DefaultTimeout}
	if raw.Path == "" {
		return Spec{}, errors.New("path is missing")
	}
	var err error
	if s.Path, err = record.CleanPrefix(raw.Path); err != nil {
		return Spec{}, err
	}
	if strings.TrimSpace(s.Command) == "" {
		return Spec{}, errors.New("command is missing")
	}
	if strings.ContainsRune(s.Command, 0) {
		return Spec{}, errors.New("command contains a NUL byte")
	}
	if raw.Timeout != nil {
		s.Timeout, err = time.ParseDuration(*raw.Timeout)
		if err != nil || s.Timeout <= 0 || s.Timeout > MaxTimeout {
			return Spec{}, fmt.Errorf("timeout %q: want a duration such as 30s, at most %s", *raw.Timeout, MaxTimeout)
		}
	}
	return s, nil
}

// checkTrusted refuses what somebody else than root or the caller could have written.
func checkTrusted(name string, info fs.FileInfo) error {
	if perm := info.Mode().Perm(); perm&0o022 != 0 {
		return fmt.Errorf("%s is writable by others (mode %04o): run chmod go-w on it", name, perm)
	}
	owner := int(info.Sys().(*syscall.Stat_t).Uid)
	if owner != 0 && owner != os.Geteuid() {
		return fmt.Errorf("%s belongs to user %d: it must belong to root or to user %d", name, owner, os.Geteuid())
	}
	return nil
}
