package chaos

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// lan is a switch with one cable to each host. Faults are rules of the receiving host's packet filter.
type lan struct {
	t     testing.TB
	name  string // of the switch's namespace; those of hosts begin with it
	hosts int
	cut   map[link]bool
	loss  []int // percent of packets that a host does not get
}

type link struct{ from, to int }

func newLAN(t testing.TB, hosts int) *lan {
	t.Helper()
	l := &lan{t: t, name: fmt.Sprintf("chaos%d", os.Getpid()), hosts: hosts, cut: map[link]bool{}, loss: make([]int, hosts)}
	l.must("ip", "netns", "add", l.name)
	t.Cleanup(func() { l.must("ip", "netns", "del", l.name) })
	l.must("ip", "-n", l.name, "link", "add", "br0", "type", "bridge")
	l.must("ip", "-n", l.name, "link", "set", "br0", "up")
	for i := range hosts {
		ns := l.namespace(i)
		l.must("ip", "netns", "add", ns)
		t.Cleanup(func() { l.must("ip", "netns", "del", ns) })
		l.must("ip", "-n", l.name, "link", "add", l.port(i), "type", "veth", "peer", "name", "eth0", "netns", ns)
		l.must("ip", "-n", l.name, "link", "set", l.port(i), "master", "br0", "up")
		l.must("ip", "-n", ns, "addr", "add", address(i)+"/24", "dev", "eth0")
		l.must("ip", "-n", ns, "link", "set", "lo", "up")
		l.must("ip", "-n", ns, "link", "set", "eth0", "up")
	}
	return l
}

func (l *lan) must(args ...string) {
	l.t.Helper()
	if err := command("", args...); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lan) namespace(i int) string { return fmt.Sprintf("%s-%d", l.name, i) }
func (l *lan) port(i int) string      { return fmt.Sprintf("port%d", i) }
func address(i int) string            { return fmt.Sprintf("10.77.0.%d", i+1) }

// unplug pulls a host's cable, or puts it back.
func (l *lan) unplug(i int, out bool) error {
	state := "up"
	if out {
		state = "down"
	}
	return command("", "ip", "-n", l.name, "link", "set", l.port(i), state)
}

// apply puts cuts and losses in force.
func (l *lan) apply() error {
	for i := range l.hosts {
		var rules []string
		var deaf []string
		for c := range l.cut {
			if c.to == i {
				deaf = append(deaf, address(c.from))
			}
		}
		if slices.Sort(deaf); len(deaf) > 0 {
			rules = append(rules, `iifname "eth0" ip saddr { `+strings.Join(deaf, ", ")+" } drop")
		}
		if l.loss[i] > 0 {
			rules = append(rules, fmt.Sprintf(`iifname "eth0" numgen random mod 100 < %d drop`, l.loss[i]))
		}
		script := "table inet chaos\ndelete table inet chaos\ntable inet chaos {\n chain in {\n  type filter hook input priority 0;\n  " +
			strings.Join(rules, "\n  ") + "\n }\n}\n"
		if err := command(script, "nsenter", "--net=/run/netns/"+l.namespace(i), "nft", "-f", "-"); err != nil {
			return err
		}
	}
	return nil
}

// heal ends all faults of the network.
func (l *lan) heal() error {
	clear(l.cut)
	clear(l.loss)
	for i := range l.hosts {
		if err := l.unplug(i, false); err != nil {
			return err
		}
	}
	return l.apply()
}
