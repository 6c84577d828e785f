package main

import (
	"fmt"
	"net"
	"slices"
	"testing"
)

func TestFreePortAvoidsTaken(t *testing.T) {
	free := func(port int) bool { return port == 21000 || port == 22000 }
	if port, err := freePort(free, 21000); port != 22000 || err != nil {
		t.Errorf("freePort = %d, %v, want 22000", port, err)
	}
	if port, err := freePort(free, 21000, 22000); err == nil {
		t.Errorf("freePort = %d, want an error", port)
	}
}

func TestIsFree(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	for _, port := range []int{l.Addr().(*net.TCPAddr).Port, u.LocalAddr().(*net.UDPAddr).Port} {
		if isFree(port) {
			t.Errorf("port %d is free, though somebody listens on loopback", port)
		}
	}
}

func TestCutPort(t *testing.T) {
	for _, row := range []struct{ address, port, want string }{
		{"/ip4/1.2.3.4/tcp/0", "/0", "/ip4/1.2.3.4/tcp|"},
		{"/ip4/1.2.3.4/udp/0/quic-v1", "/0", "/ip4/1.2.3.4/udp|/quic-v1"},
		{"/ip4/1.2.3.4/tcp/7424", "/7424", "/ip4/1.2.3.4/tcp|"},
		{"/ip4/1.2.3.4/tcp/74240", "/7424", "none"},
		{"/ip4/1.2.3.4/tcp/4001", "/0", "none"},
	} {
		head, tail, found := cutPort(row.address, row.port)
		got := head + "|" + tail
		if !found {
			got = "none"
		}
		if got != row.want {
			t.Errorf("cutPort(%s, %s) = %s, want %s", row.address, row.port, got, row.want)
		}
	}
}

func TestDialable(t *testing.T) {
	host := func(cidrs ...string) (addresses []net.Addr) {
		for _, c := range cidrs {
			ip, n, err := net.ParseCIDR(c)
			if err != nil {
				t.Fatal(err)
			}
			addresses = append(addresses, &net.IPNet{IP: ip, Mask: n.Mask})
		}
		return addresses
	}
	all := []string{"/ip4/0.0.0.0/tcp/1", "/ip6/::/udp/1/quic-v1"}
	for _, row := range []struct {
		listen []string
		host   []net.Addr
		want   []string
	}{
		{all, host("127.0.0.1/8", "192.0.2.2/24", "::1/128", "fe80::1/64", "fd00::2/64"),
			[]string{"/ip4/192.0.2.2/tcp/1/p2p/ID", "/ip6/fd00::2/udp/1/quic-v1/p2p/ID"}},
		{all, host("127.0.0.1/8", "::1/128"), []string{"/ip4/127.0.0.1/tcp/1/p2p/ID"}},
		{[]string{"/ip4/127.0.0.1/tcp/1"}, host("192.0.2.2/24"), []string{"/ip4/127.0.0.1/tcp/1/p2p/ID"}},
		{all, nil, nil},
	} {
		if got := dialable(row.listen, "ID", row.host); !slices.Equal(got, row.want) {
			t.Errorf("dialable(%s, %s) = %s, want %s", row.listen, row.host, got, row.want)
		}
	}
}

func TestMergePeers(t *testing.T) {
	known := []string{"/ip4/1.1.1.1/tcp/1/p2p/A", "/ip4/1.1.1.2/tcp/1/p2p/A", "/ip4/2.2.2.2/tcp/1/p2p/B", "db1:7424"}
	for _, row := range []struct{ added, want []string }{
		{nil, known},
		{[]string{"db1:7424"}, []string{"db1:7424", known[0], known[1], known[2]}},
		{[]string{"/dns4/a/tcp/1/p2p/A"}, []string{"/dns4/a/tcp/1/p2p/A", known[2], known[3]}},
	} {
		if got := mergePeers(known, row.added); !slices.Equal(got, row.want) {
			t.Errorf("mergePeers(%s) = %s, want %s", row.added, got, row.want)
		}
	}
}

func TestListenAddressesShareOnePort(t *testing.T) {
	got, err := listenAddresses([]string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"}, false)
	if err != nil {
		t.Fatal(err)
	}
	var tcp, udp int
	if _, err := fmt.Sscanf(got[0]+" "+got[1], "/ip4/127.0.0.1/tcp/%d /ip4/127.0.0.1/udp/%d/quic-v1", &tcp, &udp); err != nil || tcp != udp || tcp == 0 {
		t.Errorf("listenAddresses = %s: %v", got, err)
	}
}
