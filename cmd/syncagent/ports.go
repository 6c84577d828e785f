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
	portTries = 200
)

// freePort gives a port number that is free for TCP and UDP on all addresses, and none of taken.
func freePort(taken ...int) (int, error) {
	for range portTries {
		port := firstPort + rand.IntN(lastPort-firstPort)
		if !slices.Contains(taken, port) && isFree(port) {
			return port, nil
		}
	}
	return 0, errors.New("no free port found: name addresses with --listen")
}

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
			if port, err = freePort(); err != nil {
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
	port, err := freePort(taken...)
	return fmt.Sprintf("127.0.0.1:%d", port), err
}

// dialable gives the addresses under which others reach an agent that listens on listen: an unspecified IP address
// stands for all of this host's, loopback ones only if it has no others.
func dialable(listen []string, peerID string) []string {
	var out []string
	for _, a := range listen {
		family, rest, ok := cutUnspecified(a)
		if !ok {
			out = append(out, a+"/p2p/"+peerID)
			continue
		}
		for _, ip := range hostIPs(family == "/ip4/") {
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

// hostIPs gives the IP addresses of this host that others can dial.
func hostIPs(v4 bool) (ips []string) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var loopback []string
	for _, a := range addresses {
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
