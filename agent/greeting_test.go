package agent

import (
	"testing"

	"connectrpc.com/connect"

	apiv1 "syncagent/agent/api/v1"
)

// TestRefusedCertificateIsSaid holds that a client whose certificate is refused is told so, however quickly the agent
// closes the connection, and never that there is no agent.
func TestRefusedCertificateIsSaid(t *testing.T) {
	a := newTLSAgent(t)
	stranger := a.dir + "/stranger.key"
	if _, err := CreateKey(stranger); err != nil {
		t.Fatal(err)
	}
	for n := range 100 {
		c, err := DialTargets(Target{Address: a.url, Key: stranger, CA: a.config.API.TLS.ClientCA})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.KV.Put(t.Context(), connect.NewRequest(&apiv1.PutRequest{Path: "/certs/web", Value: make([]byte, 100<<10)}))
		if e := ErrorOf(err); e == nil || e.Code != CodeDenied {
			t.Errorf("try %d: %v", n, err)
		}
		c.Close()
	}
}
