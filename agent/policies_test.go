package agent

import (
	"crypto/ed25519"
	"fmt"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"syncagent/acl"
	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
)

func clientKey(name byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed([]byte{31: name})
}

func TestLog(t *testing.T) {
	s := startServer(t)
	admin := clientKey(1)
	var network record.NetworkID
	network[0] = 7
	s.fake.text = acl.Sign(fmt.Appendf(nil, "syncagent-policy 1\nnetwork %s\nserial 9\nrevoke %s\n", network, record.KeyOf(clientKey(2))), network, admin)
	r, err := s.client.Policy.Log(t.Context(), connect.NewRequest(&apiv1.LogRequest{}))
	if err != nil || len(r.Msg.GetTexts()) != 1 {
		t.Fatalf("%v, %v", r, err)
	}
	got := r.Msg.GetTexts()[0]
	if got.GetSerial() != 9 || got.GetRevokes() != 1 || got.GetInForce() || len(got.GetHash()) != 64 ||
		len(got.GetSigners()) != 1 || got.GetSigners()[0] != record.KeyOf(admin).String() || string(got.GetSigned()) != string(s.fake.text) {
		t.Errorf("%v", got)
	}
}

func TestPreviewAndWritten(t *testing.T) {
	s := startServer(t)
	const paths = streamEntries + 1 // more than a message holds
	for i := range paths {
		if _, err := s.fake.Write(t.Context(), []crdtstore.Op{{Path: fmt.Sprintf("/p/%d", i), Value: []byte("x")}}); err != nil {
			t.Fatal(err)
		}
	}
	preview, err := s.client.Policy.Preview(t.Context(), connect.NewRequest(&apiv1.PreviewRequest{Text: []byte("syncagent-policy 1\n")}))
	if err != nil {
		t.Fatal(err)
	}
	messages, lost := 0, 0
	for ; preview.Receive(); messages++ {
		for _, c := range preview.Msg().GetChanges() {
			if c.GetLost() == c.GetNow().GetVersion() && c.GetNow().GetPath() == c.GetPath() && c.Then == nil && c.GetNow().Value == nil {
				lost++
			}
		}
	}
	if preview.Err() != nil || messages < 2 || lost != paths {
		t.Errorf("preview: %v, %d messages, %d lost", preview.Err(), messages, lost)
	}
	written, err := s.client.Policy.Written(t.Context(), connect.NewRequest(&apiv1.WrittenRequest{
		Author: s.fake.self.String(), Since: timestamppb.New(record.HLC(5).Time()),
	}))
	if err != nil {
		t.Fatal(err)
	}
	shown := 0
	for written.Receive() {
		for _, e := range written.Msg().GetEntries() {
			if e.GetShown() && e.GetEntry().Value == nil {
				shown++
			}
		}
	}
	if written.Err() != nil || shown != paths {
		t.Errorf("written: %v, %d", written.Err(), shown)
	}
	bad, err := s.client.Policy.Preview(t.Context(), connect.NewRequest(&apiv1.PreviewRequest{Text: []byte("nonsense\n")}))
	if err == nil {
		bad.Receive()
		err = bad.Err()
	}
	if e := ErrorOf(err); e == nil || e.Code != CodeBadPolicy {
		t.Errorf("a bad text: %v", err)
	}
}

func TestRelay(t *testing.T) {
	s := startServer(t)
	var network record.NetworkID
	network[0] = 7
	s.kv.network = network
	clock, err := s.client.KV.Clock(t.Context(), connect.NewRequest(&apiv1.ClockRequest{Paths: []string{"/a"}}))
	if err != nil || clock.Msg.GetNetwork() != network.String() {
		t.Fatalf("clock: %v, %v", clock, err)
	}
	hlc, err := record.ParseHLC(clock.Msg.GetHlc())
	if err != nil {
		t.Fatal(err)
	}
	request := func(path string, sign bool) *apiv1.RelayRequest {
		e := &record.Entry{Kind: record.KindPut, Path: path}
		w := &record.Write{Author: record.KeyOf(clientKey(1)), HLC: hlc, Slots: []record.Slot{{Entry: e.ID(), Tags: network.Tags(path)}}}
		if sign {
			w.Sign(clientKey(1), network)
		}
		return &apiv1.RelayRequest{Write: w.Append(nil), Entries: [][]byte{e.Encode()}}
	}
	r, err := s.client.KV.Relay(t.Context(), connect.NewRequest(request("/a", true)))
	if err != nil || r.Msg.GetPaths() != 1 || len(s.fake.relayed) != 1 || s.fake.relayed[0].Author != record.KeyOf(clientKey(1)) {
		t.Fatalf("relay: %v, %v", r, err)
	}
	s.fake.fail = fmt.Errorf("%w: the signature does not fit", record.ErrFormat)
	for name, c := range map[string]struct {
		request *apiv1.RelayRequest
		code    Code
	}{
		"unsigned":         {request("/a", false), CodeBadRequest},
		"reserved":         {request("/.sys/a", true), CodeDenied},
		"garbage":          {&apiv1.RelayRequest{Write: []byte("x")}, CodeBadRequest},
		"garbage entry":    {&apiv1.RelayRequest{Write: request("/a", true).Write, Entries: [][]byte{{1}}}, CodeBadRequest},
		"the store's word": {request("/a", true), CodeBadRequest},
	} {
		_, err := s.client.KV.Relay(t.Context(), connect.NewRequest(c.request))
		if e := ErrorOf(err); e == nil || e.Code != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, paths := range [][]string{nil, {"/.sys/x"}, {"no path"}} {
		if _, err := s.client.KV.Clock(t.Context(), connect.NewRequest(&apiv1.ClockRequest{Paths: paths})); err == nil {
			t.Errorf("a time for %q", paths)
		}
	}
	if len(s.fake.relayed) != 1 {
		t.Error("a bad write reached the store")
	}
}
