package agent

import (
	"fmt"
	"testing"

	"connectrpc.com/connect"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore/record"
)

// An agent knows of what it shows, of what came before, of what was deleted, and of what the policy does not allow any
// more; it does not know of what it never got.
func TestKnown(t *testing.T) {
	n := newTestNetwork(t)
	a := newTestAgent(t, n)
	a.start()
	apply := func(policy []byte) {
		t.Helper()
		if _, err := a.client.Policy.Apply(t.Context(), connect.NewRequest(&apiv1.ApplyRequest{Signed: policy})); err != nil {
			t.Fatal(err)
		}
	}
	apply(n.policy(1, map[string]record.PublicKey{"a": a.key}))
	before := a.mustPut("/f/a", "1")
	shown, gone, revoked := a.mustPut("/f/a", "2"), a.mustPut("/f/gone", "1"), a.mustPut("/g", "1")
	a.remove("/f/gone")
	apply(n.policy(2, nil, fmt.Sprintf("identity a %s", a.key), "a peer", "a / read", "a /f write"))
	eventually(t, "the policy is applied", func() bool { return a.version("/g") == "" })

	var asked []*apiv1.KnownRequest_Version
	for _, v := range [][2]string{
		{"/f/a", before}, {"/f/a", shown}, {"/f/gone", gone}, {"/g", revoked}, {"/.sys/x", gone},
		{"/f/a", "f" + shown[1:]}, {"/f/gone", "f" + gone[1:]}, {"/f/new", gone}, {"/g", "f" + revoked[1:]},
	} {
		asked = append(asked, &apiv1.KnownRequest_Version{Path: v[0], Version: v[1]})
	}
	for len(asked) <= maxKnown { // so that one request is not enough
		asked = append(asked, asked[0])
	}
	answers, err := a.client.Known(t.Context(), asked)
	if err != nil || len(answers) != len(asked) {
		t.Fatalf("%d answers, %v", len(answers), err)
	}
	for i, answer := range answers {
		if v := asked[i]; answer.GetKnown() != (i < 5 || i > 8) {
			t.Errorf("%s of %s: known is %v", v.GetVersion(), v.GetPath(), answer.GetKnown())
		}
		if d := answer.GetDeleted(); (d != nil) != (i == 2) || d != nil && (!d.GetDeleted() || d.GetVersion() <= gone || d.GetAlias() != "a") {
			t.Errorf("of %s: deleted is %v", asked[i].GetPath(), d)
		}
	}
	for what, faulty := range map[string][]*apiv1.KnownRequest_Version{
		"too many": asked, "no path": {{Version: shown}}, "no index": {{Path: "/f/a", Version: shown[:len(shown)-4]}}, "no version": {{Path: "/f/a"}},
	} {
		_, err := a.client.KV.Known(t.Context(), connect.NewRequest(&apiv1.KnownRequest{Versions: faulty}))
		if e := ErrorOf(err); e == nil || e.Code != CodeBadRequest && e.Code != CodeBadPath {
			t.Errorf("%s: %v", what, err)
		}
	}
}
