package trigger

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const orphanEnv = "SYNCAGENT_TEST_TRIGGER_CHILD" // where the command of a child of the test writes its process ID

func TestMain(m *testing.M) {
	if file := os.Getenv(orphanEnv); file != "" {
		Command{Args: []string{"sh", "-c", "echo $$ > '" + file + "'; exec sleep 600"}, Timeout: time.Hour}.Run(context.Background(), nil)
		return
	}
	os.Exit(m.Run())
}

// A command does not outlive an agent that was killed: the next one runs it again, and not beside the first.
func TestCommandDiesWithAKilledAgent(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	agent := exec.Command(os.Args[0])
	agent.Env = append(os.Environ(), orphanEnv+"="+file)
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	var pid string
	waitFor(t, "the command", func() bool {
		text, _ := os.ReadFile(file)
		pid = strings.TrimSpace(string(text))
		return strings.HasSuffix(string(text), "\n")
	})
	if err := agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = agent.Wait() // killed
	waitFor(t, "its end", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%s/stat", pid))
		return err != nil || strings.Contains(string(stat), ") Z ") // or nobody has asked how it ended
	})
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline, tick := time.After(20*time.Second), time.NewTicker(2*time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("never came: %s", what)
		case <-tick.C:
		}
	}
}
