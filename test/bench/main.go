// Command bench measures the program and prints one table: each figure beside its goal. Goals were set for one machine;
// the raw figures of this one come first, so that others can be read against them, and what other programs do at the
// same work in the same run comes with them. Figures are medians of several runs. docs/performance.md says how to read
// them.
//
//	go run ./test/bench -only 'catch-up|heal' -repeat 3
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"syscall"
	"time"
)

var (
	only    = flag.String("only", "", "measure the figures that match this expression")
	repeat  = flag.Int("repeat", 5, "measure each figure so often and print the median; the long ones once")
	scale   = flag.Float64("scale", 1, "so much of the work of each figure: 0.01 tells whether all of them run")
	profile = flag.String("cpuprofile", "", "write a CPU profile of the measured part to this file")
)

// figure is a line of the table.
type figure struct {
	name, goal string
	unit       string // of the value that measure gives
	measure    func(dir string) (value float64, note string, err error)
	long       bool // measured once
}

// errAbsent says that a figure cannot be measured here.
var errAbsent = errors.New("not measured")

func main() {
	if attack := os.Getenv(attackVariable); attack != "" {
		if err := hostile(attack); err != nil {
			fmt.Fprintln(os.Stderr, "hostile member:", err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	wanted, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	defer removeBuilt()
	fmt.Printf("%s, %d CPUs, %s, median of %d\n\n", time.Now().Format("2006-01-02 15:04"), runtime.NumCPU(), runtime.Version(), *repeat)
	fmt.Printf("| %-54s | %17s | %-22s | %s\n|---|---|---|---\n", "figure", "measured", "goal", "note")
	for _, f := range slices.Concat(storeFigures(), readFigures(), backupFigures(), networkFigures(), floodFigures(), agentFigures(), etcdFigures(), libraryFigures()) {
		if !wanted.MatchString(f.name) {
			continue
		}
		shown, note, err := f.median()
		if errors.Is(err, errAbsent) {
			shown, note, err = "-", err.Error(), nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		fmt.Printf("| %-54s | %17s | %-22s | %s\n", f.name, shown, f.goal, note)
	}
	return nil
}

// sample is what one run of a figure gave.
type sample struct {
	value float64
	slow  time.Duration // the 99th percentile of a latency
	used  time.Duration
	note  string
}

// median measures a figure some times, each in a fresh directory.
func (f *figure) median() (shown, note string, err error) {
	var all []sample
	for range max(*repeat, 1) {
		s, err := f.once()
		if err != nil {
			return "", "", err
		}
		all = append(all, s)
		if f.long {
			break
		}
	}
	slices.SortFunc(all, func(a, b sample) int { return int(a.slow - b.slow) })
	slow := all[len(all)/2].slow
	slices.SortFunc(all, func(a, b sample) int { return int(a.used - b.used) })
	busy := all[len(all)/2].used
	slices.SortFunc(all, func(a, b sample) int {
		if a.value < b.value {
			return -1
		}
		return 1
	})
	mid := all[len(all)/2]
	shown, note = show(mid.value, f.unit), mid.note
	if slow > 0 {
		shown += " / " + rounded(slow)
	}
	if len(all) > 1 {
		note = join(note, show(all[0].value, f.unit)+" to "+show(all[len(all)-1].value, f.unit))
	}
	if busy > 0 {
		note = join(note, "processor "+busy.Round(time.Millisecond).String())
	}
	return shown, note, nil
}

func join(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), "; ")
}

func (f *figure) once() (s sample, err error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return s, err
	}
	defer runtime.GC()
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	used, slow = 0, 0
	s.value, s.note, err = f.measure(dir)
	s.used, s.slow = used, slow
	return s, err
}

func show(v float64, unit string) string {
	switch unit {
	case "s":
		return rounded(time.Duration(v * float64(time.Second)))
	case "/s":
		return fmt.Sprintf("%.0f/s", v)
	case "x fewer":
		return fmt.Sprintf("%.2f %s", v, unit)
	default:
		return fmt.Sprintf("%.0f %s", v, unit)
	}
}

func rounded(d time.Duration) string { return d.Round(10 * time.Microsecond).String() }

// scaled gives a part of a count of puts, as asked for.
func scaled(count int) int { return max(int(float64(count)**scale), 10) }

// used is the processor time of the measured part. On a busy machine it says more than the time by the clock.
var used time.Duration

// slow is the 99th percentile beside a median.
var slow time.Duration

func processorTime() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// profiled runs the measured part, under the profiler if one was asked for.
func profiled(do func() error) error {
	before := processorTime()
	defer func() { used = processorTime() - before }()
	if *profile == "" {
		return do()
	}
	f, err := os.Create(*profile)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // a profile that cannot be read shows itself
	if err := pprof.StartCPUProfile(f); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	return do()
}
