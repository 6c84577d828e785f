package agent

import (
	"fmt"
	"testing"
	"time"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
)

func TestWriteSigned(t *testing.T) {
	s := startServer(t)
	var network, other record.NetworkID
	network[0], other[0] = 7, 8
	s.kv.network = network
	key := clientKey(1)
	put := &apiv1.Op{Op: &apiv1.Op_Put{Put: &apiv1.PutRequest{Path: "/a", Value: []byte("x")}}}
	remove := &apiv1.Op{Op: &apiv1.Op_Delete{Delete: &apiv1.DeleteRequest{Path: "/b"}}}
	s.fake.clock = record.NewHLC(time.Now())
	r, err := s.client.WriteSigned(t.Context(), key, network, []*apiv1.Op{put, remove})
	if err != nil || r.GetPaths() != 2 || len(s.fake.relayed) != 1 {
		t.Fatalf("%v, %v", r, err)
	}
	if w := s.fake.relayed[0]; w.Author != record.KeyOf(key) || !w.Verify(network) || w.HLC != s.fake.clock+1 || !w.Slots[0].Matches(network, "/a") {
		t.Errorf("%+v", w)
	}
	if _, err := s.client.WriteSigned(t.Context(), key, record.NetworkID{}, []*apiv1.Op{put}); err != nil {
		t.Errorf("without a network: %v", err)
	}
	for name, c := range map[string]struct {
		change func()
		op     *apiv1.Op
		net    record.NetworkID
		code   Code
	}{
		"another network": {nil, put, other, CodeBadRequest},
		"a condition": {nil, &apiv1.Op{Op: &apiv1.Op_Put{Put: &apiv1.PutRequest{Path: "/a", IfAbsent: true}}}, network,
			CodeBadRequest},
		"a bad path":        {nil, &apiv1.Op{Op: &apiv1.Op_Put{Put: &apiv1.PutRequest{Path: "a"}}}, network, CodeBadPath},
		"a time far ahead":  {func() { s.fake.clock = record.NewHLC(time.Now().Add(time.Hour)) }, put, network, CodeClock},
		"never the winner":  {func() { s.fake.fail = fmt.Errorf("sign again: %w", crdtstore.ErrPrecondition) }, put, network, CodePrecondition},
		"denied, once only": {func() { s.fake.fail = crdtstore.ErrDenied }, put, network, CodeDenied},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(s.fake.relayed)
			s.fake.clock, s.fake.fail = record.NewHLC(time.Now()), nil
			if c.change != nil {
				c.change()
			}
			_, err := s.client.WriteSigned(t.Context(), key, c.net, []*apiv1.Op{c.op})
			if e := ErrorOf(err); e == nil || e.Code != c.code {
				t.Errorf("%v, want %s", err, c.code)
			}
			if len(s.fake.relayed) != before {
				t.Error("something was relayed")
			}
		})
	}
}
