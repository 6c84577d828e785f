package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protowire"
)

// etcdFigures are etcd's, of the same machine and run, at the same work: puts of 100 bytes that are on disk when they
// return, and the way from a put to a watch on another node. It is spoken to by its own gRPC API.
func etcdFigures() []figure {
	var fs []figure
	for _, nodes := range []int{1, 3} {
		for _, clients := range []int{1, 64, 512} {
			name := fmt.Sprintf("etcd of %d: durable put, %d clients", nodes, clients)
			fs = append(fs, figure{name: name, unit: "/s", measure: etcdRate(nodes, clients)})
		}
		fs = append(fs, figure{name: fmt.Sprintf("etcd of %d: put -> watch, 20/s", nodes), unit: "s", measure: etcdLatency(nodes)})
	}
	return fs
}

// etcd is some nodes of one cluster, each a process.
type etcd struct {
	processes []*exec.Cmd
	clients   []*etcdClient
}

// startEtcd runs a cluster. It gives errAbsent when the program is not there.
func startEtcd(dir string, nodes int) (*etcd, error) {
	path, err := exec.LookPath("etcd")
	if err != nil {
		return nil, fmt.Errorf("%w: etcd is not installed (Debian: etcd-server)", errAbsent)
	}
	ports, err := freePorts(2 * nodes)
	if err != nil {
		return nil, err
	}
	var cluster []string
	for i := range nodes {
		cluster = append(cluster, fmt.Sprintf("n%d=http://127.0.0.1:%d", i, ports[2*i]))
	}
	e := &etcd{}
	for i := range nodes {
		peer, client := fmt.Sprintf("http://127.0.0.1:%d", ports[2*i]), fmt.Sprintf("http://127.0.0.1:%d", ports[2*i+1])
		log, err := os.Create(filepath.Join(dir, fmt.Sprintf("n%d.log", i)))
		if err != nil {
			return nil, errors.Join(err, e.stop())
		}
		cmd := exec.Command(path, "--name", fmt.Sprintf("n%d", i), "--data-dir", filepath.Join(dir, fmt.Sprintf("n%d", i)),
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--listen-client-urls", client,
			"--advertise-client-urls", client, "--initial-cluster", strings.Join(cluster, ","), "--initial-cluster-state", "new")
		cmd.Stdout, cmd.Stderr = log, log
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		err = cmd.Start()
		_ = log.Close()
		if err != nil {
			return nil, errors.Join(err, e.stop())
		}
		e.processes = append(e.processes, cmd)
		e.clients = append(e.clients, newEtcdClient(client))
	}
	for _, c := range e.clients {
		if err := wait(func() error { return c.put("/ready", nil) }); err != nil {
			return nil, errors.Join(err, e.stop())
		}
	}
	return e, nil
}

func (e *etcd) stop() error {
	for _, p := range e.processes {
		_ = p.Process.Kill()
		_ = p.Wait()
	}
	return nil
}

// freePorts gives ports that nobody listens on now.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() //nolint:errcheck // it only held the port
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// etcdClient speaks as much of etcd's gRPC API as is measured.
type etcdClient struct {
	puts    *connect.Client[message, message]
	watches *connect.Client[message, message]
}

func newEtcdClient(url string) *etcdClient {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	h := &http.Client{Transport: &http.Transport{Protocols: protocols}}
	options := connect.WithClientOptions(connect.WithGRPC(), connect.WithCodec(plainCodec{}))
	return &etcdClient{
		puts:    connect.NewClient[message, message](h, url+"/etcdserverpb.KV/Put", options),
		watches: connect.NewClient[message, message](h, url+"/etcdserverpb.Watch/Watch", options),
	}
}

// message is one in its encoded form: there are too few to generate code for them.
type message struct{ bytes []byte }

type plainCodec struct{}

func (plainCodec) Name() string                    { return "proto" }
func (plainCodec) Marshal(m any) ([]byte, error)   { return m.(*message).bytes, nil }
func (plainCodec) Unmarshal(b []byte, m any) error { m.(*message).bytes = b; return nil }

func appendField(b []byte, number protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), value)
}

// put sends a PutRequest: key = 1, value = 2.
func (c *etcdClient) put(key string, value []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	b := appendField(appendField(nil, 1, []byte(key)), 2, value)
	_, err := c.puts.CallUnary(ctx, connect.NewRequest(&message{b}))
	return err
}

// watch tells of every event below /p/ until ctx ends. A WatchRequest is create_request = 1 of key = 1, range_end = 2;
// a WatchResponse has created = 3 and events = 11.
func (c *etcdClient) watch(ctx context.Context, created, event func()) error {
	stream := c.watches.CallBidiStream(ctx)
	request := appendField(appendField(nil, 1, []byte("/p/")), 2, []byte("/p0"))
	if err := stream.Send(&message{appendField(nil, 1, request)}); err != nil {
		return err
	}
	for {
		m, err := stream.Receive()
		if err != nil {
			return err
		}
		for b := m.bytes; len(b) > 0; {
			number, kind, n := protowire.ConsumeTag(b)
			if n < 0 {
				return protowire.ParseError(n)
			}
			size := protowire.ConsumeFieldValue(number, kind, b[n:])
			if size < 0 {
				return protowire.ParseError(size)
			}
			b = b[n+size:]
			switch number {
			case 3:
				created()
			case 11:
				event()
			}
		}
	}
}

func etcdRate(nodes, clients int) func(string) (float64, string, error) {
	return func(dir string) (float64, string, error) {
		e, err := startEtcd(dir, nodes)
		if err != nil {
			return 0, "", err
		}
		defer e.stop() //nolint:errcheck // it is killed
		value := make([]byte, 100)
		rate, err := loadRate(clients, func(path string) error { return e.clients[0].put(path, value) })
		return rate, "", err
	}
}

func etcdLatency(nodes int) func(string) (float64, string, error) {
	return func(dir string) (float64, string, error) {
		e, err := startEtcd(dir, nodes)
		if err != nil {
			return 0, "", err
		}
		defer e.stop() //nolint:errcheck // it is killed
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		ready, seen, ended := make(chan struct{}, 1), make(chan time.Time, 1), make(chan error, 1)
		go func() {
			ended <- e.clients[nodes-1].watch(ctx, func() { ready <- struct{}{} }, func() { seen <- time.Now() })
		}()
		select {
		case <-ready:
		case err := <-ended:
			return 0, "", err
		}
		return delays(seen, ended, func(i int) error { return e.clients[0].put("/p/"+strconv.Itoa(i), make([]byte, 100)) })
	}
}
