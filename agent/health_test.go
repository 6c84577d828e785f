package agent

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net/http"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"
	"connectrpc.com/grpcreflect"
	"google.golang.org/protobuf/proto"

	healthv1 "syncagent/agent/api/health/v1"
	"syncagent/agent/api/health/v1/healthv1connect"
	"syncagent/agent/api/v1/apiv1connect"
)

// overHTTP2 gives a client that speaks HTTP/2 without TLS on the socket, as gRPC does.
func (s *testServer) overHTTP2(t *testing.T) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := s.client.http.Transport.(*failover).all[0].transport.(*http.Transport).Clone()
	transport.Protocols = protocols
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// TestGRPCHealth holds the health protocol as a gRPC client speaks it.
func TestGRPCHealth(t *testing.T) {
	var ready atomic.Bool
	ready.Store(true)
	s := startServer(t, func(s *server) { s.service.ready = ready.Load })
	client := healthv1connect.NewHealthClient(s.overHTTP2(t), "http://agent", connect.WithGRPC())
	check := func(name string) (healthv1.HealthCheckResponse_ServingStatus, error) {
		r, err := client.Check(t.Context(), connect.NewRequest(&healthv1.HealthCheckRequest{Service: name}))
		if err != nil {
			return 0, err
		}
		return r.Msg.GetStatus(), nil
	}
	for _, name := range append([]string{""}, services...) {
		if got, err := check(name); got != healthv1.HealthCheckResponse_SERVING {
			t.Errorf("%q: %v, %v", name, got, err)
		}
	}
	if _, err := check("nope"); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("unknown service: %v", err)
	}
	watch := func(name string) *connect.ServerStreamForClient[healthv1.HealthCheckResponse] {
		stream, err := client.Watch(context.Background(), connect.NewRequest(&healthv1.HealthCheckRequest{Service: name}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { stream.Close() })
		return stream
	}
	next := func(stream *connect.ServerStreamForClient[healthv1.HealthCheckResponse], want healthv1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		if !stream.Receive() || stream.Msg().GetStatus() != want {
			t.Fatalf("%v, %v, want %v", stream.Msg(), stream.Err(), want)
		}
	}
	next(watch("nope"), healthv1.HealthCheckResponse_SERVICE_UNKNOWN)
	stream := watch(apiv1connect.KVName)
	next(stream, healthv1.HealthCheckResponse_SERVING)
	ready.Store(false)
	next(stream, healthv1.HealthCheckResponse_NOT_SERVING)
	ready.Store(true)
	next(stream, healthv1.HealthCheckResponse_SERVING)
	s.stop()
	next(stream, healthv1.HealthCheckResponse_NOT_SERVING)
	if stream.Receive() {
		t.Error("the watch outlives the agent")
	}
}

// TestGRPCWireFormat asks for health with frames made by hand: what any gRPC client sends is understood.
func TestGRPCWireFormat(t *testing.T) {
	s := startServer(t)
	message, err := proto.Marshal(&healthv1.HealthCheckRequest{Service: apiv1connect.KVName})
	if err != nil {
		t.Fatal(err)
	}
	frame := append([]byte{0}, binary.BigEndian.AppendUint32(nil, uint32(len(message)))...)
	r, err := http.NewRequest(http.MethodPost, "http://agent"+healthv1connect.HealthCheckProcedure, bytes.NewReader(append(frame, message...)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/grpc")
	r.Header.Set("TE", "trailers")
	response, err := s.overHTTP2(t).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close() //nolint:errcheck // read only
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if want := []byte{0, 0, 0, 0, 2, 8, 1}; !bytes.Equal(body, want) || response.Trailer.Get("Grpc-Status") != "0" {
		t.Errorf("%x, trailer %v", body, response.Trailer)
	}
}

// TestGRPCReflection holds that tools find all services and their methods without the .proto files.
func TestGRPCReflection(t *testing.T) {
	s := startServer(t)
	stream := grpcreflect.NewClient(s.overHTTP2(t), "http://agent", connect.WithGRPC()).NewStream(t.Context())
	defer stream.Close() //nolint:errcheck // the answers are read
	names, err := stream.ListServices()
	if err != nil || len(names) != len(services) {
		t.Fatalf("%v, %v", names, err)
	}
	for _, name := range names {
		files, err := stream.FileContainingSymbol(name)
		if err != nil || len(files) == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}
