package agent

import (
	"fmt"
	"net"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"syncagent/crdtstore/record"
	"syncagent/p2p"
)

// minHistory is how long superseded entries are kept in any case: the view's rules depend on it.
const minHistory = Duration(7 * 24 * time.Hour)

// maxValue is the most that limits.value can be; the format would hold twice that.
const maxValue = 1 << 30

// maxSocketPath is what a unix socket address holds on Linux, without the final zero byte.
const maxSocketPath = 107

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// check collects faults.
type check struct{ faults Faults }

func (k *check) add(key, format string, args ...any) {
	k.faults = append(k.faults, Fault{Key: key, Message: fmt.Sprintf(format, args...)})
}

func (k *check) oneOf(key, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		k.add(key, "want %s, not %q", strings.Join(allowed, " or "), value)
	}
}

// Check tells everything wrong with the settings. It looks at nothing but them and the names of users and groups.
// Network and admins may be missing: a host that is not initialised yet has a valid configuration; New refuses it.
func (c *Config) Check() Faults {
	var k check
	if c.Name != "" && !namePattern.MatchString(c.Name) {
		k.add("name", "want 1 to 63 letters, digits, dots, dashes and underscores, not %q", c.Name)
	}
	if c.DataDir == "" {
		k.add("data_dir", "missing")
	}
	c.checkTrust(&k)
	c.checkAddresses(&k)
	c.checkAPI(&k)
	c.checkLocalRules(&k)
	if c.Store.MinFree < 16<<20 {
		k.add("store.min_free", "%s is too little to stop in time; the least is 16MiB", c.Store.MinFree)
	}
	if c.Store.History < minHistory {
		k.add("store.history", "%s is too short; the least is %s", c.Store.History, minHistory)
	}
	checkRange(&k, "limits.requests", c.Limits.Requests, 1, 1<<20)
	checkRange(&k, "limits.watches", c.Limits.Watches, 1, 1<<20)
	if c.Limits.PeerBytes < 64<<10 || c.Limits.PeerBytes > 1<<40 {
		k.add("limits.peer_bytes", "want 64KiB to 1TiB, not %s", c.Limits.PeerBytes)
	}
	checkRange(&k, "limits.peer_origins", c.Limits.PeerOrigins, 1, 1<<20)
	if c.Limits.Value < record.MaxInlineValue || c.Limits.Value > maxValue {
		k.add("limits.value", "want 256KiB to 1GiB, not %s", c.Limits.Value)
	}
	c.checkMirrors(&k)
	c.checkTriggers(&k)
	c.checkIndexes(&k)
	k.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	c.Log.Levels.each(func(part, level string) { k.oneOf("log.levels."+part, level, "debug", "info", "warn", "error") })
	k.oneOf("log.format", c.Log.Format, "auto", "text", "json")
	return k.faults
}

func checkRange(k *check, key string, value, least, most int) {
	if value < least || value > most {
		k.add(key, "want %d to %d, not %d", least, most, value)
	}
}

func (c *Config) checkTrust(k *check) {
	if c.Network != "" {
		if _, err := record.ParseNetworkID(c.Network); err != nil {
			k.add("network", "%v", err)
		}
		if len(c.Admins) == 0 {
			k.add("admins", "missing: a network needs at least one admin key")
		}
	}
	if len(c.Admins) > record.MaxAdmins {
		k.add("admins", "%d keys, the limit is %d", len(c.Admins), record.MaxAdmins)
	}
	for i, admin := range c.Admins {
		key := fmt.Sprintf("admins[%d]", i)
		if _, err := record.ParsePublicKey(admin); err != nil {
			k.add(key, "%v", err)
		} else if slices.Index(c.Admins, admin) < i {
			k.add(key, "%s is here twice", admin)
		}
	}
}

const wantAddress = "want HOST:PORT or a multiaddress such as /dns4/db1/tcp/7424, with or without /p2p/ID (QUIC only with), not %q"

func (c *Config) checkAddresses(k *check) {
	if len(c.Listen) == 0 {
		k.add("listen", "missing: other agents could not reach this one")
	}
	for i, a := range c.Listen {
		if err := p2p.CheckListen(a); err != nil {
			k.add(fmt.Sprintf("listen[%d]", i), "want /ip4/ADDRESS/tcp/PORT or /ip4/ADDRESS/udp/PORT/quic-v1 (or ip6), not %q", a)
		}
	}
	for i, a := range c.Announce {
		if err := p2p.CheckAddr(a); err != nil {
			k.add(fmt.Sprintf("announce[%d]", i), wantAddress, a)
		}
	}
	for i, a := range c.Bootstrap {
		if err := p2p.CheckAddr(a); err != nil {
			k.add(fmt.Sprintf("bootstrap[%d]", i), wantAddress, a)
		}
	}
}

func (c *Config) checkAPI(k *check) {
	switch {
	case c.API.Socket == "":
		k.add("api.socket", "missing")
	case len(c.API.Socket) > maxSocketPath:
		k.add("api.socket", "%d bytes, the system's limit for a socket's path is %d", len(c.API.Socket), maxSocketPath)
	}
	if c.API.SocketMode == 0 {
		k.add("api.socket_mode", "missing")
	}
	if c.API.SocketGroup != "" {
		if _, err := lookupGroup(c.API.SocketGroup); err != nil {
			k.add("api.socket_group", "%v", err)
		}
	}
	checkListen(k, "api.http", c.API.HTTP, "127.0.0.1:7425")
	checkListen(k, "api.tls.listen", c.API.TLS.Listen, "0.0.0.0:7426")
	for _, f := range []struct{ key, file string }{{"api.tls.cert", c.API.TLS.Cert}, {"api.tls.key", c.API.TLS.Key}} {
		if c.API.TLS.Listen != "" && f.file == "" {
			k.add(f.key, "missing: api.tls.listen needs it")
		}
	}
}

func checkListen(k *check, key, address, example string) {
	if address == "" {
		return
	}
	_, port, err := net.SplitHostPort(address)
	n, perr := strconv.Atoi(port)
	if err != nil || perr != nil || n < 0 || n > 65535 {
		k.add(key, "want ADDRESS:PORT such as %s, not %q", example, address)
	}
}

// below tells whether path is dir or lies in it, by their names alone.
func below(path, dir string) bool {
	relative, err := filepath.Rel(dir, path)
	return err == nil && relative != ".." && !strings.HasPrefix(relative, "../")
}

func overlap(a, b string) bool { return below(a, b) || below(b, a) }

// lookupGroup gives the number of a group named by name or number.
func lookupGroup(name string) (int, error) {
	if n, err := strconv.Atoi(name); err == nil && n >= 0 {
		return n, nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("no group %q on this host", name)
	}
	return strconv.Atoi(g.Gid)
}

// lookupUser gives the number of a user named by name or number.
func lookupUser(name string) (int, error) {
	if n, err := strconv.Atoi(name); err == nil && n >= 0 {
		return n, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return 0, fmt.Errorf("no user %q on this host", name)
	}
	return strconv.Atoi(u.Uid)
}
