package agent

import (
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore/record"
)

// TestWait holds what is refused, and what is said when not all have a write in time.
func TestWait(t *testing.T) {
	s := startServer(t, func(s *server) { s.kv.peers = &sampleNetwork{} })
	version := record.Version{HLC: 1}.String()
	wait := func(r *apiv1.WaitRequest) (*apiv1.WaitResponse, error) {
		answer, err := s.client.KV.Wait(t.Context(), connect.NewRequest(r))
		if err != nil {
			return nil, err
		}
		return answer.Msg, nil
	}
	for want, r := range map[Code][]*apiv1.WaitRequest{
		CodeBadPath:      {{Path: "x", Version: version}},
		CodeDenied:       {{Path: "/.sys/x", Version: version}},
		CodePrecondition: {{Path: "/p", Version: version, Agents: 5}},
		CodeBadRequest: {
			{Path: "/p"}, {Path: "/p", Version: "1"}, {Path: "/p", Version: version, Agents: -1},
			{Path: "/p", Version: version, Timeout: durationpb.New(time.Hour)}, {Path: "/p", Version: version, Timeout: durationpb.New(-1)},
		},
	} {
		for _, r := range r {
			if _, err := wait(r); err == nil || ErrorOf(err).Code != want {
				t.Errorf("%v: %v, want %s", r, err, want)
			}
		}
	}
	if got, err := wait(&apiv1.WaitRequest{Path: "/p", Version: version, Agents: 1}); err != nil || !got.GetDone() || !slices.Equal(got.GetStored(), []string{"test"}) {
		t.Errorf("this agent alone: %v, %v", got, err)
	}
	got, err := wait(&apiv1.WaitRequest{Path: "/p", Version: version, Timeout: durationpb.New(50 * time.Millisecond)})
	if err != nil || got.GetDone() || strings.Join(got.GetLacking(), " ") != "db1 db2 web2" {
		t.Errorf("all: %v, %v", got, err)
	}
}
