package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"

	"syncagent/agent"
)

// Free ports are looked for below the range from which Linux takes ports for outgoing connections: there a port that
// is free now is so when the agent starts.
const (
	firstPort = 20000
	lastPort  = 32000
)

// freePort gives a port number that is free, and none of taken. It begins at a random one: hosts that are set up at the
// same time should not get the same.
func freePort(free func(port int) bool, taken ...int) (int, error) {
	const span = lastPort - firstPort
	start := rand.IntN(span)
	for i := range span {
		port := firstPort + (start+i)%span
		if !slices.Contains(taken, port) && free(port) {
			return port, nil
		}
	}
	return 0, errors.New("no free port found: name addresses with --listen")
}

// isFree tells whether nobody has the port, for TCP or UDP, on any address.
func isFree(port int) bool {
	address := ":" + strconv.Itoa(port)
	l, err := net.Listen("tcp", address)
	if err != nil {
		return false
	}
	defer l.Close() //nolint:errcheck // nothing was sent
	u, err := net.ListenPacket("udp", address)
	if err != nil {
		return false
	}
	_ = u.Close()
	return true
}

// listenAddresses gives the addresses to write into the configuration: the user's, else the defaults. Port 0, and in a
// private folder the default port, becomes a free one.
func listenAddresses(given []string, private bool) ([]string, error) {
	addresses, replace := given, "/0"
	if len(given) == 0 {
		addresses, replace = agent.DefaultConfig().Listen, "/7424"
		if !private {
			return addresses, nil
		}
	}
	port := 0
	out := slices.Clone(addresses)
	for i, a := range out {
		head, tail, found := cutPort(a, replace)
		if !found {
			continue
		}
		if port == 0 {
			var err error
			if port, err = freePort(isFree); err != nil {
				return nil, err
			}
		}
		out[i] = head + "/" + strconv.Itoa(port) + tail
	}
	return out, nil
}

// cutPort splits a multiaddress around its port if that is the one given as "/PORT".
func cutPort(address, port string) (head, tail string, found bool) {
	for _, transport := range []string{"/tcp", "/udp"} {
		head, tail, found = strings.Cut(address, transport+port)
		if found && (tail == "" || tail[0] == '/') {
			return head + transport, tail, true
		}
	}
	return "", "", false
}

// httpAddress gives a free address for health and metrics in a private folder, else the default.
func httpAddress(private bool, listen []string) (string, error) {
	if !private {
		return agent.DefaultConfig().API.HTTP, nil
	}
	var taken []int
	for _, a := range listen {
		for _, part := range strings.Split(a, "/") {
			if n, err := strconv.Atoi(part); err == nil {
				taken = append(taken, n)
			}
		}
	}
	port, err := freePort(isFree, taken...)
	return fmt.Sprintf("127.0.0.1:%d", port), err
}

// dialable gives the addresses under which others reach an agent that listens on listen: an unspecified IP address
// stands for all of this host's, loopback ones only if it has no others.
func dialable(listen []string, peerID string, host []net.Addr) []string {
	var out []string
	for _, a := range listen {
		family, rest, ok := cutUnspecified(a)
		if !ok {
			out = append(out, a+"/p2p/"+peerID)
			continue
		}
		for _, ip := range hostIPs(host, family == "/ip4/") {
			out = append(out, family+ip+rest+"/p2p/"+peerID)
		}
	}
	return out
}

func cutUnspecified(address string) (family, rest string, ok bool) {
	if rest, ok := strings.CutPrefix(address, "/ip4/0.0.0.0/"); ok {
		return "/ip4/", "/" + rest, true
	}
	if rest, ok := strings.CutPrefix(address, "/ip6/::/"); ok {
		return "/ip6/", "/" + rest, true
	}
	return "", "", false
}

// hostIPs gives those of a host's IP addresses that others can dial.
func hostIPs(host []net.Addr, v4 bool) (ips []string) {
	var loopback []string
	for _, a := range host {
		n, ok := a.(*net.IPNet)
		if !ok || (n.IP.To4() != nil) != v4 {
			continue
		}
		switch {
		case n.IP.IsLoopback():
			loopback = append(loopback, n.IP.String())
		case n.IP.IsGlobalUnicast():
			ips = append(ips, n.IP.String())
		}
	}
	if len(ips) == 0 && v4 {
		return loopback
	}
	return ips
}
