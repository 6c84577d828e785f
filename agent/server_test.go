package agent

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	apiv1 "syncagent/agent/api/v1"
)

// Every kind of refusal comes through the wire with its code, a message and where there should be one a hint.

// A list of more than one message gives every entry once, in order, with its own value.

// events reads a watch until it has n events.

// Open watches do not hold up a stop; they are told that the agent stops.

// A watch ends when its caller leaves, even if nothing happens that would have to be told.

// A caller that never reads cannot hold up a stop either.

// waitUntil polls a condition for up to a minute.

func waitUntil(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !done() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain: %s", what)
		case <-ticker.C:
		}
	}
}

// A request that does not arrive in time loses its connection; a stream may stay open for as long as it likes.

func TestRequestTimeout(t *testing.T) {
	s := startServer(t, func(s *server) { s.timeout = 100 * time.Millisecond })
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := s.client.http.Transport.(*failover).all[0].transport.(*http.Transport).Clone()
	transport.Protocols = protocols
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var streams []*connect.ServerStreamForClient[apiv1.WatchResponse]
	for _, client := range []interface {
		Watch(context.Context, *connect.Request[apiv1.WatchRequest]) (*connect.ServerStreamForClient[apiv1.WatchResponse], error)
	}{s.client.KV, newKVClient(&http.Client{Transport: transport}, connect.WithGRPC())} {
		stream, err := client.Watch(ctx, connect.NewRequest(&apiv1.WatchRequest{Prefixes: []string{"/"}}))
		if err != nil {
			t.Fatal(err)
		}
		events(t, stream, 1)
		streams = append(streams, stream)
	}
	conn, err := net.Dial("unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // broken by then
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprint(conn, "PUT /v1/kv/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf")
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 400 ") {
		t.Errorf("half a request: %q %v", line, err)
	}
	<-time.After(300 * time.Millisecond) // more than the timeout: the streams' time is up, if they had one
	if _, err := s.client.KV.Put(ctx, put("/late", "1")); err != nil {
		t.Fatal(err)
	}
	for _, stream := range streams {
		if list, _ := events(t, stream, 1); list[0].GetEntry().GetPath() != "/late" {
			t.Errorf("%v", list)
		}
	}
	if len(s.fake.items) != 1 {
		t.Error("half a value was stored")
	}
}

func TestRequestLimit(t *testing.T) {
	s := startServer(t, func(s *server) { s.watches.set(1) })
	first, err := s.client.KV.Watch(t.Context(), connect.NewRequest(&apiv1.WatchRequest{Prefixes: []string{"/"}}))
	if err != nil {
		t.Fatal(err)
	}
	events(t, first, 1)
	err = s.watchError(t.Context(), &apiv1.WatchRequest{Prefixes: []string{"/"}})
	if e := ErrorOf(err); e.Code != CodeBusy || e.Hint == "" {
		t.Errorf("%+v", e)
	}
	if _, err := s.client.KV.Put(t.Context(), put("/a", "")); err != nil {
		t.Errorf("other requests: %v", err)
	}
}

// What a raw request line may look like, byte by byte. Nothing is cleaned, nothing redirects, and what is refused leaves

// nothing behind.

// JSON by hand, as curl sends it.

func TestConnectJSON(t *testing.T) {
	s := startServer(t)
	r, body := s.do(t, "POST", "/syncagent.v1.KV/Put", `{"path":"/j","value":"aGk="}`, "Content-Type", "application/json")
	if r.StatusCode != 200 || !strings.Contains(body, `"paths"`) {
		t.Errorf("%v %s", r.Status, body)
	}
	if got := s.fake.items["/j"]; string(got.Value) != "hi" {
		t.Errorf("%q", got.Value)
	}
	r, body = s.do(t, "POST", "/syncagent.v1.KV/Get", `{"path":"/none"}`, "Content-Type", "application/json")
	if r.StatusCode != 404 || !strings.Contains(body, "not_found") {
		t.Errorf("%v %s", r.Status, body)
	}
	r, _ = s.do(t, "POST", "/syncagent.v1.KV/Nope", `{}`, "Content-Type", "application/json")
	if r.StatusCode != 404 && r.StatusCode != 501 {
		t.Errorf("unknown method: %v", r.Status)
	}
	r, body = s.do(t, "POST", "/syncagent.v1.KV/Put", `{"path":"/j","valeu":"aGk="}`, "Content-Type", "application/json")
	if r.StatusCode != 400 || string(s.fake.items["/j"].Value) != "hi" {
		t.Errorf("misspelt field: %v %s", r.Status, body)
	}
	r, body = s.do(t, "POST", "/syncagent.v1.Agent/Status", `{}`, "Content-Type", "application/json; charset=utf-8")
	if r.StatusCode != 200 || !strings.Contains(body, `"peer_id"`) {
		t.Errorf("%v %s", r.Status, body)
	}
}

// A field from a newer caller is refused, wherever it stands, and never ignored.

func TestUnknownFieldsAreRefused(t *testing.T) {
	s, ctx := startServer(t), t.Context()
	newer := func(m proto.Message) {
		m.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 1))
	}
	one := &apiv1.PutRequest{Path: "/a"}
	newer(one)
	_, err := s.client.KV.Put(ctx, connect.NewRequest(one))
	if e := ErrorOf(err); e == nil || e.Code != CodeBadRequest || e.Hint == "" {
		t.Errorf("put: %v", err)
	}
	_, err = s.client.KV.Batch(ctx, connect.NewRequest(&apiv1.BatchRequest{Ops: []*apiv1.Op{{Op: &apiv1.Op_Put{Put: one}}}}))
	if e := ErrorOf(err); e == nil || e.Code != CodeBadRequest {
		t.Errorf("batch: %v", err)
	}
	list := &apiv1.ListRequest{}
	newer(list)
	stream, err := s.client.KV.List(ctx, connect.NewRequest(list))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close() //nolint:errcheck // its error is in Err
	if stream.Receive() || ErrorOf(stream.Err()).Code != CodeBadRequest {
		t.Errorf("list: %v", stream.Err())
	}
	if len(s.fake.items) != 0 {
		t.Error("something was written")
	}
}

// The three protocols of Connect work on the socket, gRPC over HTTP/2 without TLS among them.

func TestProtocols(t *testing.T) {
	s := startServer(t)
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := s.client.http.Transport.(*failover).all[0].transport.(*http.Transport).Clone()
	transport.Protocols = protocols
	defer transport.CloseIdleConnections()
	for name, option := range map[string]connect.ClientOption{"grpc": connect.WithGRPC(), "grpc-web": connect.WithGRPCWeb()} {
		client := newKVClient(&http.Client{Transport: transport}, option)
		if _, err := client.Put(t.Context(), put("/p/"+name, name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		_, err := client.Get(t.Context(), connect.NewRequest(&apiv1.GetRequest{Path: "/none"}))
		if e := ErrorOf(err); e.Code != CodeNotFound {
			t.Errorf("%s: %+v", name, e)
		}
		stream, err := client.Watch(t.Context(), connect.NewRequest(&apiv1.WatchRequest{Prefixes: []string{"/p/" + name}}))
		if err != nil {
			t.Fatal(err)
		}
		events(t, stream, 2)
		_ = stream.Close()
	}
}

func TestServices(t *testing.T) {
	s, ctx := startServer(t), t.Context()
	s.service.alarms.Raise(alarmClock, "", "off")
	status, err := s.client.Agent.Status(ctx, connect.NewRequest(&apiv1.StatusRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	m := status.Msg
	if !m.GetReady() || m.GetBlocks() != 7 || m.GetPolicySerial() != 1 || len(m.GetPeers()) != 2 || len(m.GetAlarms()) != 1 ||
		m.GetAlarms()[0].GetHint() == "" || m.GetName() != "test" {
		t.Errorf("%v", m)
	}
	if _, err := s.client.Agent.PausePeers(ctx, connect.NewRequest(&apiv1.PausePeersRequest{})); err != nil {
		t.Error(err)
	}
	peers, err := s.client.Agent.Peers(ctx, connect.NewRequest(&apiv1.PeersRequest{}))
	if err != nil || !peers.Msg.GetPaused() {
		t.Errorf("%v %v", peers, err)
	}
	if _, err := s.client.Agent.ResumePeers(ctx, connect.NewRequest(&apiv1.ResumePeersRequest{})); err != nil || s.service.peers.Paused() {
		t.Error(err)
	}
	if id, err := s.client.Agent.ID(ctx, connect.NewRequest(&apiv1.IDRequest{})); err != nil || len(id.Msg.GetAddrs()) != 1 {
		t.Errorf("%v %v", id, err)
	}
	if _, err := s.client.Policy.Show(ctx, connect.NewRequest(&apiv1.ShowRequest{})); ErrorOf(err).Code != CodeNoPolicy {
		t.Errorf("%v", err)
	}
	applied, err := s.client.Policy.Apply(ctx, connect.NewRequest(&apiv1.ApplyRequest{Signed: []byte("serial 3")}))
	if err != nil || applied.Msg.GetSerial() != 3 {
		t.Errorf("%v %v", applied, err)
	}
	shown, err := s.client.Policy.Show(ctx, connect.NewRequest(&apiv1.ShowRequest{}))
	if err != nil || string(shown.Msg.GetSigned()) != "serial 3" || shown.Msg.GetHash() != applied.Msg.GetHash() {
		t.Errorf("%v %v", shown, err)
	}
}

// The TCP port has health and metrics, and nothing that leads to a key.

func TestPlainHandler(t *testing.T) {
	s := startServer(t)
	if _, err := s.client.KV.Put(t.Context(), put("/hush/name", "hush-value")); err != nil {
		t.Fatal(err)
	}
	l, err := listenTCP("api.http", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serve(ctx, l, s.plainHandler(), quiet()) }()
	defer func() { cancel(); <-done }()
	base := "http://" + l.Addr().String()
	fetch := func(method, path string) (int, string) {
		r, err := http.NewRequest(method, base+path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close() //nolint:errcheck // read only
		var b strings.Builder
		if _, err := bufio.NewReader(response.Body).WriteTo(&b); err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, b.String()
	}
	for path, want := range map[string]int{
		"/healthz": 200, "/readyz": 200, "/metrics": 200, "/": 200, "/index.html": 404, "/v1/kv/hush/name": 404, "/syncagent.v1.KV/Get": 404,
		"/debug/pprof/": 404, "/healthz/../v1/kv/hush/name": 404,
	} {
		if code, body := fetch("GET", path); code != want || strings.Contains(body, "hush") || code == 404 && !strings.Contains(body, "by the unix socket") {
			t.Errorf("GET %s: %d %.80s", path, code, body)
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE"} {
		for _, path := range []string{"/syncagent.v1.KV/Put", "/v1/kv/hush/name", "/syncagent.v1.Agent/PausePeers"} {
			if code, _ := fetch(method, path); code != 405 {
				t.Errorf("%s %s: %d", method, path, code)
			}
		}
	}
	_, text := fetch("GET", "/metrics")
	for _, want := range []string{
		`syncagent_api_requests_total{code="ok",method="KV/Put"} 1`, "syncagent_keys 1", "syncagent_ready 1", "syncagent_peers_known 2",
		"syncagent_build_info{", `syncagent_peer_clock_skew_seconds{peer="12D3x"} 0.0015`, "process_resident_memory_bytes", "syncagent_watches 0",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	s.stop()
	if code, _ := fetch("GET", "/readyz"); code != 503 {
		t.Errorf("readyz after the stop: %d", code)
	}
	if code, _ := fetch("GET", "/healthz"); code != 200 {
		t.Errorf("healthz after the stop: %d", code)
	}
}
