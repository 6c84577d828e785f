package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Severity says how bad a finding is.
type Severity string

// The severities. Only SeverityFail means that something does not work.
const (
	SeverityOK   Severity = "ok"
	SeverityWarn Severity = "warn"
	SeverityFail Severity = "fail"
)

// Finding is what one check of a diagnosis came to.
type Finding struct {
	Check    string   `json:"check"` // stable, such as "disk"
	Severity Severity `json:"severity"`
	Message  string   `json:"message"`
	Hint     string   `json:"hint"` // what to do; empty when all is well
}

// Diagnose looks at the configuration, its files and, by client, at the agent that runs with them. It changes nothing.
// version is that of the caller. It takes as long as the slowest bootstrap address, at most some seconds.
func Diagnose(ctx context.Context, c Config, client *Client, version string) []Finding {
	d := diagnosis{config: c, version: version}
	d.files()
	d.tls(time.Now())
	if !d.askAgent(ctx, client) {
		d.disk(freeBytes(c.DataDir))
	}
	d.bootstrap(ctx, reach)
	return d.findings
}

// diagnosis gathers findings.
type diagnosis struct {
	config   Config
	version  string
	findings []Finding
}

func (d *diagnosis) ok(check, format string, args ...any) {
	d.findings = append(d.findings, Finding{check, SeverityOK, fmt.Sprintf(format, args...), ""})
}

func (d *diagnosis) warn(check, hint, format string, args ...any) {
	d.findings = append(d.findings, Finding{check, SeverityWarn, fmt.Sprintf(format, args...), hint})
}

func (d *diagnosis) fail(check, hint, format string, args ...any) {
	d.findings = append(d.findings, Finding{check, SeverityFail, fmt.Sprintf(format, args...), hint})
}

// files checks what lies on the disk of this host.
func (d *diagnosis) files() {
	c := &d.config
	if c.Network == "" {
		d.fail("config", "syncagent init makes a network, syncagent join TOKEN makes this host part of one",
			"%s names no network", c.File)
	} else {
		d.ok("config", "%s", c.File)
	}
	switch _, err := LoadKey(c.IdentityFile()); {
	case errors.Is(err, fs.ErrPermission):
		d.warn("identity", "run doctor as the agent's user", "%s cannot be read by this user", c.IdentityFile())
	case err != nil:
		e := classify(err)
		d.fail("identity", e.Hint, "%s", e.Message)
	default:
		d.ok("identity", "%s", c.IdentityFile())
	}
	if _, err := os.Lstat(c.AdminKeyFile()); err == nil {
		d.warn("admin-key", "keep it offline; acl commands take it by --admin-key FILE",
			"%s still lies on this host: who gets the host gets the network", c.AdminKeyFile())
	}
	d.permissions()
	if info, err := os.Stat(c.DataDir); err == nil && info.Mode().Perm()&0o077 != 0 {
		d.warn("data-dir", "chmod 700 "+c.DataDir, "others than the agent's user can look into %s (mode %04o)", c.DataDir, info.Mode().Perm())
	}
}

// permissions looks for files through which others than the agent's user could steer it: commands are run from them.
func (d *diagnosis) permissions() {
	c := &d.config
	files := []string{c.File}
	for _, m := range c.Mirrors {
		if m.TriggersDir != "" {
			files = append(files, m.TriggersDir)
		}
	}
	for _, file := range files {
		if info, err := os.Stat(file); err == nil && info.Mode().Perm()&0o022 != 0 {
			d.fail("permissions", "chmod go-w "+file, "others than its owner can write %s (mode %04o), and so choose what the agent runs", file, info.Mode().Perm())
		}
	}
	if info, err := os.Stat(c.API.Socket); err == nil && info.Mode().Perm()&0o002 != 0 {
		d.warn("permissions", "set api.socket_mode to 0660 and api.socket_group to who may", "every user of this host can act as this agent by %s (mode %04o)",
			c.API.Socket, info.Mode().Perm())
	}
}

// freeBytes tells how much is free on the disk of a directory; unknown is false.
func freeBytes(dir string) (uint64, bool) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, false
	}
	return s.Bavail * uint64(s.Bsize), true
}

func (d *diagnosis) disk(free uint64, known bool) {
	const mib = 1 << 20
	least := uint64(d.config.Store.MinFree)
	switch {
	case !known:
		d.warn("disk", "run doctor as the agent's user", "%s cannot be looked at", d.config.DataDir)
	case free < least:
		d.fail("disk", "free space, or lower store.min_free", "%d MiB free on the disk of %s, less than store.min_free (%s): writes are refused",
			free/mib, d.config.DataDir, d.config.Store.MinFree)
	case free < 2*least:
		d.warn("disk", "free space before writes are refused", "%d MiB free on the disk of %s; writes stop at %s",
			free/mib, d.config.DataDir, d.config.Store.MinFree)
	default:
		d.ok("disk", "%d MiB free on the disk of %s", free/mib, d.config.DataDir)
	}
}
