package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"syncagent/crdtstore"
)

// A hostile member sits in a process of its own, of low priority, and is quiet or does its worst, by turns. Two honest
// agents measure what they can do meanwhile: puts by some clients without a pause, and how soon paced ones arrive.
const (
	floodRounds  = 3
	floodWindow  = 3 * time.Second
	floodClients = 8
	floodPaced   = 50 // puts a second
	floodOld     = 20_000
)

// floodFigures tell how many times fewer puts there are while one member attacks.
func floodFigures() []figure {
	var fs []figure
	for _, a := range attacks {
		fs = append(fs, figure{name: "puts beside a member that " + a.name, goal: "half as many", unit: "x fewer", measure: beside(a.name)})
	}
	return fs
}

// load is what the honest agents did in the windows of one kind.
type load struct {
	puts   int64
	took   time.Duration
	delays []time.Duration // until all of them show a paced put
	lost   int
}

func beside(attack string) func(string) (float64, string, error) {
	return func(dir string) (ratio float64, note string, err error) {
		f := newFleet(dir, 3)
		hostile := f.nodes[2]
		f.nodes = f.nodes[:2]
		if err := f.start(); err != nil {
			return 0, "", err
		}
		defer func() { err = errors.Join(err, f.stop()) }()
		if err := f.nodes[0].fill("/old", scaled(floodOld), 1, 64); err != nil {
			return 0, "", err
		}
		h, err := startHostile(attack, hostile.dir, append(f.nodes[0].net.Addrs(), f.nodes[1].net.Addrs()...))
		if err != nil {
			return 0, "", err
		}
		defer h.kill()
		if err := wait(f.sameView); err != nil {
			return 0, "", err
		}
		var quiet, flood load
		for range floodRounds {
			if err := f.work(&quiet); err != nil {
				return 0, "", err
			}
			if err := h.tell("go"); err != nil {
				return 0, "", err
			}
			if err := f.work(&flood); err != nil {
				return 0, "", err
			}
			if err := h.tell("stop"); err != nil {
				return 0, "", err
			}
			if err := wait(f.sameView); err != nil {
				return 0, "", err
			}
		}
		ratio = quiet.rate() / flood.rate()
		note = fmt.Sprintf("%.0f/s and %.0f/s; a paced put arrives after %s and %s, p99 %s and %s, %d lost", quiet.rate(), flood.rate(),
			quiet.after(50), flood.after(50), quiet.after(99), flood.after(99), flood.lost)
		return ratio, note, nil
	}
}

// sameView says whether all agents show the same. Blocks may differ: those that open too many chains are put off.
func (f *fleet) sameView() error {
	if f.nodes[0].Stats().ViewDigest != f.nodes[1].Stats().ViewDigest {
		return errors.New("the honest agents show different things")
	}
	return nil
}

// work has clients put as fast as they can, and others at their pace, for the time of one window.
func (f *fleet) work(l *load) error {
	window := time.Duration(float64(floodWindow) * min(10*(*scale), 1))
	count := max(int(window.Seconds()*floodPaced), 4)
	w := watchAll(f, count)
	var puts atomic.Int64
	var failed atomic.Pointer[error]
	var clients sync.WaitGroup
	began := time.Now()
	for range floodClients {
		clients.Go(func() {
			for time.Since(began) < window {
				op := crdtstore.Op{Path: fmt.Sprintf("/busy/%d", puts.Add(1)%1000), Value: make([]byte, 100)}
				if _, err := f.nodes[0].Write(context.Background(), []crdtstore.Op{op}); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	f.putAtRate(w, count, floodPaced)
	clients.Wait()
	l.took += time.Since(began)
	l.puts += puts.Load()
	l.lost += w.await(10 * time.Second)
	l.delays = append(l.delays, w.stop()...)
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

func (l *load) rate() float64 { return float64(l.puts) / l.took.Seconds() }

func (l *load) after(percent int) string {
	if len(l.delays) == 0 {
		return "never"
	}
	slices.Sort(l.delays)
	return rounded(l.delays[len(l.delays)*percent/100])
}

// hostileProcess is this program, started once more.
type hostileProcess struct {
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Reader
}

func startHostile(attack, dir string, addrs []string) (*hostileProcess, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("nice", append([]string{"-n", "5", exe}, addrs...)...)
	cmd.Env = append(os.Environ(), attackVariable+"="+attack, dirVariable+"="+dir)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	h := &hostileProcess{cmd, in, bufio.NewReader(out)}
	return h, h.heard("ready")
}

// tell has it begin or end, and waits until it did.
func (h *hostileProcess) tell(what string) error {
	if _, err := fmt.Fprintln(h.in, what); err != nil {
		return err
	}
	return h.heard(what)
}

func (h *hostileProcess) heard(what string) error {
	line, err := h.out.ReadString('\n')
	if err == nil && strings.TrimSpace(line) != what {
		err = fmt.Errorf("the hostile member says %q", line)
	}
	return err
}

func (h *hostileProcess) kill() {
	_ = h.cmd.Process.Kill()
	_ = h.cmd.Wait()
}
