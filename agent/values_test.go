package agent

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore/record"
)

func randomBytes(seed uint64, n int) []byte {
	var key [32]byte
	key[0] = byte(seed)
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(b)
	return b
}

// largeAgent is an agent that takes values of up to 4 MiB, and a client's key with rights of its own.
func largeAgent(t *testing.T) (*testAgent, ed25519.PrivateKey) {
	t.Helper()
	n := newTestNetwork(t)
	a := newTestAgent(t, n)
	a.config.Limits.Value = 4 << 20
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	a.start()
	text := n.policy(1, map[string]record.PublicKey{"a": a.key}, "identity client "+record.KeyOf(key).String(), "client /of write")
	if _, err := a.client.Policy.Apply(t.Context(), connect.NewRequest(&apiv1.ApplyRequest{Signed: text})); err != nil {
		t.Fatal(err)
	}
	return a, key
}

func (a *testAgent) raw(method, path string, body io.Reader) (int, []byte) {
	a.t.Helper()
	r, err := http.NewRequestWithContext(a.t.Context(), method, "http://agent"+rawPrefix+path, body)
	if err != nil {
		a.t.Fatal(err)
	}
	answer, err := a.client.http.Do(r)
	if err != nil {
		a.t.Fatal(err)
	}
	defer answer.Body.Close() //nolint:errcheck // read only
	got, err := io.ReadAll(answer.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	return answer.StatusCode, got
}

func (a *testAgent) chunkFiles() int {
	files, err := filepath.Glob(filepath.Join(a.config.DataDir, "chunks", "*", "*"))
	if err != nil {
		a.t.Fatal(err)
	}
	return len(files)
}

func TestLargeValuesByRawRequests(t *testing.T) {
	a, _ := largeAgent(t)
	value := randomBytes(1, 3<<20+5)
	if status, body := a.raw("PUT", "/big", bytes.NewReader(value)); status != http.StatusNoContent {
		t.Fatalf("put: %d %s", status, body)
	}
	if status, got := a.raw("GET", "/big", nil); status != http.StatusOK || !bytes.Equal(got, value) {
		t.Errorf("get: %d, %d bytes", status, len(got))
	}
	status, body := a.raw("PUT", "/big", bytes.NewReader(randomBytes(2, 4<<20+1)))
	if status != http.StatusRequestEntityTooLarge || !strings.Contains(string(body), "limits.value") {
		t.Errorf("over the limit: %d %s", status, body)
	}
	if status, body := a.raw("PUT", "/.sys/x", bytes.NewReader(value)); status != http.StatusForbidden {
		t.Errorf("reserved: %d %s", status, body)
	}
	if _, got := a.raw("GET", "/big", nil); !bytes.Equal(got, value) {
		t.Error("a refused write changed the value")
	}
	waitUntil(t, "only the chunks of the value are left", func() bool { return a.chunkFiles() == 13 })
	// A chunk is lost: no wrong byte is sent, and the caller sees that the value is cut off.
	files, _ := filepath.Glob(filepath.Join(a.config.DataDir, "chunks", "*", record.ChunkID(value[5*record.ChunkSize:6*record.ChunkSize]).String()+"*"))
	if len(files) != 1 {
		t.Fatalf("%d files of the sixth chunk", len(files))
	}
	if err := os.WriteFile(files[0], []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := a.client.http.Get("http://agent" + rawPrefix + "/big")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close() //nolint:errcheck // read only
	if got, err := io.ReadAll(r.Body); err == nil || !bytes.HasPrefix(value, got) {
		t.Errorf("with a damaged chunk: %d bytes, %v", len(got), err)
	}
	if !a.hasAlarm("corrupt") {
		t.Error("no alarm")
	}
}

func TestLargeValuesByStreams(t *testing.T) {
	a, key := largeAgent(t)
	ctx := t.Context()
	value := randomBytes(3, 1<<20+1)
	if _, err := a.client.Upload(ctx, &apiv1.PutRequest{Path: "/big"}, bytes.NewReader(value)); err != nil {
		t.Fatal(err)
	}
	download := func(path, version string) []byte {
		t.Helper()
		e, body, err := a.client.Download(ctx, path, version)
		if err != nil {
			t.Fatal(err)
		}
		defer body.Close() //nolint:errcheck // read only
		got, err := io.ReadAll(body)
		if err != nil || e.GetSize() != int64(len(got)) {
			t.Fatalf("%d bytes of %d, %v", len(got), e.GetSize(), err)
		}
		return got
	}
	if !bytes.Equal(download("/big", ""), value) {
		t.Error("the value comes back as another")
	}
	_, err := a.client.KV.Get(ctx, connect.NewRequest(&apiv1.GetRequest{Path: "/big"}))
	if e := ErrorOf(err); e == nil || e.Code != CodeTooLarge {
		t.Errorf("get with the value: %v", err)
	}
	r, err := a.client.KV.Get(ctx, connect.NewRequest(&apiv1.GetRequest{Path: "/big", WithoutValue: true}))
	if err != nil || !r.Msg.GetEntry().GetLarge() || r.Msg.GetEntry().GetSize() != int64(len(value)) {
		t.Errorf("get without the value: %v, %v", r, err)
	}
	first := r.Msg.GetEntry().GetVersion()
	for _, small := range []int{0, 10, record.MaxInlineValue} {
		if _, err := a.client.Upload(ctx, &apiv1.PutRequest{Path: "/big"}, bytes.NewReader(value[:small])); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(download("/big", ""), value[:small]) {
			t.Errorf("%d bytes come back as others", small)
		}
	}
	if !bytes.Equal(download("/big", first), value) {
		t.Error("the first version is another")
	}
	if _, err := a.client.KV.Restore(ctx, connect.NewRequest(&apiv1.RestoreRequest{Path: "/big", Version: first})); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(download("/big", ""), value) {
		t.Error("the restored value is another")
	}
	signed := randomBytes(4, 2<<20)
	if _, err := a.client.UploadSigned(ctx, key, record.NetworkID{}, &apiv1.PutRequest{Path: "/of/client"}, bytes.NewReader(signed)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(download("/of/client", ""), signed) {
		t.Error("the signed value is another")
	}
	_, err = a.client.UploadSigned(ctx, key, record.NetworkID{}, &apiv1.PutRequest{Path: "/big"}, bytes.NewReader(signed))
	if e := ErrorOf(err); e == nil || e.Code != CodeDenied {
		t.Errorf("signed by who may not write: %v", err)
	}
	_, err = a.client.Upload(ctx, &apiv1.PutRequest{Path: "/big"}, bytes.NewReader(randomBytes(5, 5<<20)))
	if e := ErrorOf(err); e == nil || e.Code != CodeTooLarge {
		t.Errorf("over the limit: %v", err)
	}
	broken := io.MultiReader(bytes.NewReader(signed), &failing{})
	if _, err = a.client.Upload(ctx, &apiv1.PutRequest{Path: "/big"}, broken); err == nil {
		t.Error("a value that breaks off was written")
	}
	if !bytes.Equal(download("/big", ""), value) {
		t.Error("a refused write changed the value")
	}
	waitUntil(t, "only the chunks of the two values are left", func() bool { return a.chunkFiles() == 5+8 })
}

// failing is a source that breaks off as a body does.
type failing struct{}

func (*failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestUploadsThatMakeNoSense(t *testing.T) {
	a, key := largeAgent(t)
	put, signed := &apiv1.PutRequest{Path: "/x"}, &apiv1.PutRequest{Path: "/of/x"}
	permit := func(path string) *apiv1.UploadPermit {
		network, hlc, err := a.client.clock(t.Context(), record.NetworkID{}, path)
		if err != nil {
			t.Fatal(err)
		}
		return permitFor(key, network, path, hlc)
	}
	for name, messages := range map[string][]*apiv1.UploadRequest{
		"nothing":             {},
		"no put":              {{Data: []byte("x")}},
		"value in put":        {{Put: &apiv1.PutRequest{Path: "/x", Value: []byte("x")}}},
		"bad path":            {{Put: &apiv1.PutRequest{Path: "x"}}},
		"put twice":           {{Put: put}, {Put: put}},
		"write first":         {{Put: put, Relay: &apiv1.RelayRequest{}}},
		"permit second":       {{Put: put}, {Permit: permit("/x")}},
		"permit of no author": {{Put: put, Permit: &apiv1.UploadPermit{}}},
		"of another path":     {{Put: signed, Permit: permit("/of/y")}, {Data: []byte("x")}},
		"signed, no write":    {{Put: signed, Permit: permit("/of/x")}, {Data: []byte("x")}},
		"write, not signed":   {{Put: put}, {Relay: &apiv1.RelayRequest{}}},
		"data after the last": {{Put: signed, Permit: permit("/of/x")}, {Relay: &apiv1.RelayRequest{}}, {Data: []byte("x")}},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		stream := a.client.KV.Upload(ctx)
		for _, m := range messages {
			if err := stream.Send(m); err != nil {
				break
			}
		}
		_, err := stream.CloseAndReceive()
		if e := ErrorOf(err); e == nil || e.Code != CodeBadRequest && e.Code != CodeBadPath {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
	}
}

// A client that signs for itself is judged before its value comes.
func TestUploadsThatNobodyPermits(t *testing.T) {
	a, key := largeAgent(t)
	network, now, err := a.client.clock(t.Context(), record.NetworkID{}, "/of/x")
	if err != nil {
		t.Fatal(err)
	}
	_, other, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	at := func(d time.Duration) record.HLC { return record.NewHLC(now.Time().Add(d)) }
	old := permitFor(key, network, "/of/x", at(-time.Minute))
	old.Hlc = now.String()
	foreign := permitFor(other, network, "/of/x", now)
	forged := permitFor(other, network, "/of/x", now)
	forged.Author = record.KeyOf(key).String()
	for _, test := range []struct {
		name, path string
		permit     *apiv1.UploadPermit
		want       string
	}{
		{"outside of the author's paths", "/big", permitFor(key, network, "/big", now), "write /big by "},
		{"by a key that nobody knows", "/of/x", foreign, "write /of/x by "},
		{"under the name of another", "/of/x", forged, "does not fit"},
		{"for another path", "/of/x", permitFor(key, network, "/of/y", now), "does not fit"},
		{"for another network", "/of/x", permitFor(key, record.NetworkID{1}, "/of/x", now), "does not fit"},
		{"with another time", "/of/x", old, "does not fit"},
		{"of an hour ago", "/of/x", permitFor(key, network, "/of/x", at(-time.Hour)), "ask Clock"},
		{"of an hour ahead", "/of/x", permitFor(key, network, "/of/x", at(time.Hour)), "ask Clock"},
		{"for a reserved path", "/.sys/x", permitFor(key, network, "/.sys/x", now), "reserved"},
	} {
		stream := a.client.KV.Upload(t.Context())
		if err := stream.Send(&apiv1.UploadRequest{Put: &apiv1.PutRequest{Path: test.path}, Permit: test.permit}); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		_, err := stream.CloseAndReceive()
		if e := ErrorOf(err); e == nil || !strings.Contains(e.Message, test.want) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

// An upload that does not go on is given up.
func TestUploadThatStopsHalfWay(t *testing.T) {
	s := startServer(t, func(s *server) { s.timeout = 100 * time.Millisecond })
	stream := s.client.KV.Upload(t.Context())
	if err := stream.Send(&apiv1.UploadRequest{Put: &apiv1.PutRequest{Path: "/x"}, Data: []byte("half")}); err != nil {
		t.Fatal(err)
	}
	conn, err := stream.Conn()
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Receive(&apiv1.WriteResponse{}); err == nil || len(s.fake.items) != 0 {
		t.Errorf("half a value was taken for a whole: %v, %v", err, s.fake.items)
	}
}

// TestUploadThatDrips: a client sends a byte at a time and never pauses for long. It does not hold its place for ever.
func TestUploadThatDrips(t *testing.T) {
	s := startServer(t, func(s *server) { s.timeout = 500 * time.Millisecond })
	conn, err := net.Dial("unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // broken by then
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprint(conn, "PUT /v1/kv/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
	answer := make(chan string)
	go func() {
		b, err := io.ReadAll(conn)
		answer <- fmt.Sprint(string(b), err)
	}()
	drip := time.NewTicker(20 * time.Millisecond)
	defer drip.Stop()
	for {
		select {
		case <-drip.C:
			_, _ = conn.Write([]byte("x")) // an error, when it was cut off
		case got := <-answer:
			if !strings.HasPrefix(got, "HTTP/1.1 400 ") || !strings.Contains(got, "too slowly") {
				t.Errorf("it ended with %q", got)
			}
			if len(s.fake.items) > 0 {
				t.Error("part of a value was stored")
			}
			return
		}
	}
}

// TestTimeForPieces: what comes gives time back, a pause takes it, and none is saved up.
func TestTimeForPieces(t *testing.T) {
	const much = 1000 * time.Hour // so that no slow machine matters
	c := &controller{http.NewResponseController(httptest.NewRecorder()), much, much}
	ctx := context.WithValue(t.Context(), controllerKey{}, c)
	hours := func(n int) int { return n * 3600 * slowest } // bytes
	awaitPiece(ctx)(hours(2000))
	if c.left != much {
		t.Errorf("after bytes for 2000 h %v are left", c.left)
	}
	c.left = much / 2
	if awaitPiece(ctx)(0); c.left >= much/2 {
		t.Errorf("after a piece of nothing %v are left", c.left)
	}
	if awaitPiece(ctx)(hours(100)); c.left < much/2 {
		t.Errorf("after bytes for 100 h %v are left", c.left)
	}
}
