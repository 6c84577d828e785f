package agent_test

import (
	"testing"

	"go.uber.org/goleak"

	"syncagent/agent"
)

// A program that runs an agent for a while is afterwards as it was: nothing goes on.
func TestAgentLeavesNothingBehind(t *testing.T) {
	before := goleak.IgnoreCurrent()
	config, err := newNetwork(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		stop, err := runAgent(config)
		if err != nil {
			t.Fatal(err)
		}
		client, err := agent.Dial(config.API.Socket)
		if err != nil {
			t.Fatal(err)
		}
		client.Close()
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	}
	goleak.VerifyNone(t, before)
}
