// Package process builds the program and runs agents as processes, for tests and measurements of whole agents.
package process

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Build builds the program, as users get it but for the build tags, into a directory.
func Build(dir, tags string) (file string, err error) {
	file = filepath.Join(dir, "syncagent")
	cmd := exec.Command("go", "build", "-tags", tags, "-o", file, "syncagent/cmd/syncagent")
	cmd.Env, cmd.Stderr = append(os.Environ(), "CGO_ENABLED=0"), os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build the program: %w", err)
	}
	return file, nil
}

// Agent is a process of `syncagent agent`, in a process group of its own with the commands that it runs.
type Agent struct {
	*exec.Cmd
	Exited chan struct{} // closed when it has ended, in whatever way

	ready *os.File
}

// Launch starts a command that ends in `agent --ready-fd 3`. What it prints goes to the end of a file. It dies with who
// launched it.
func Launch(cmd *exec.Cmd, log string) (*Agent, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()                                         //nolint:errcheck // the agent has its own
	if _, err := fmt.Fprintln(out, "--- start"); err != nil { // a file may have the logs of many
		return nil, err
	}
	ready, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close() //nolint:errcheck // as above
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = out, out, []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	a := &Agent{Cmd: cmd, Exited: make(chan struct{}), ready: ready}
	if err := cmd.Start(); err != nil {
		_ = ready.Close()
		return nil, err
	}
	go func() {
		defer close(a.Exited)
		_ = cmd.Wait() // ProcessState tells how it ended
	}()
	return a, nil
}

// Ready waits until the agent says that it is ready. One that does not is killed. It may be called once.
func (a *Agent) Ready(limit time.Duration) error {
	defer a.ready.Close() //nolint:errcheck // it is only read
	if err := a.ready.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	if line, err := bufio.NewReader(a.ready).ReadString('\n'); err != nil {
		a.Kill()
		return fmt.Errorf("not ready: %q %w, %s", line, err, a.ProcessState)
	}
	return nil
}

// Alive tells whether it still runs.
func (a *Agent) Alive() bool {
	select {
	case <-a.Exited:
		return false
	default:
		return true
	}
}

// Kill ends it and the commands of its triggers as a crash does, and waits until it has.
func (a *Agent) Kill() {
	_ = syscall.Kill(-a.Process.Pid, syscall.SIGKILL) // it may have ended
	<-a.Exited
}

// Tail gives the last bytes of a log, or why there are none.
func Tail(log string, n int) string {
	b, err := os.ReadFile(log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-n):])
}
