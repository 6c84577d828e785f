// Command bench measures the program and prints one table: each figure beside its goal. Goals were set for one machine;
// the raw figures of this one come first, so that others can be read against them. Best of several runs counts.
//
//	go run ./test/bench -only 'catch-up|heal' -repeat 3
package main

import (
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
	repeat  = flag.Int("repeat", 3, "measure each figure so often and print the best")
	profile = flag.String("cpuprofile", "", "write a CPU profile of the measured part to this file")
)

// figure is a line of the table.
type figure struct {
	name, goal string
	unit       string // of the value that measure gives; "s" is the only one of which less is better
	measure    func(dir string) (value float64, note string, err error)
}

func main() {
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
	defer removeProgram()
	fmt.Printf("%s, %d CPUs, %s\n\n", time.Now().Format("2006-01-02 15:04"), runtime.NumCPU(), runtime.Version())
	fmt.Printf("| %-52s | %14s | %-28s | %s\n|%s|\n", "figure", "measured", "goal", "note", "---|---|---|---")
	for _, f := range slices.Concat(storeFigures(), readFigures(), backupFigures(), networkFigures(), agentFigures()) {
		if !wanted.MatchString(f.name) {
			continue
		}
		value, note, err := best(f)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		fmt.Printf("| %-52s | %14s | %-28s | %s\n", f.name, show(value, f.unit), f.goal, strings.TrimPrefix(note, "; "))
	}
	return nil
}

// best measures a figure some times, each in a fresh directory.
func best(f figure) (value float64, note string, err error) {
	for i := range *repeat {
		dir, err := os.MkdirTemp("", "bench")
		if err != nil {
			return 0, "", err
		}
		used = 0
		v, n, err := f.measure(dir)
		if err := os.RemoveAll(dir); err != nil {
			return 0, "", err
		}
		if err != nil {
			return 0, "", err
		}
		if i == 0 || (f.unit == "/s" && v > value) || (f.unit != "/s" && v < value) {
			value, note = v, n
			if used > 0 {
				note = fmt.Sprintf("%s; processor %s", n, used.Round(time.Millisecond))
			}
		}
		runtime.GC()
	}
	return value, note, nil
}

func show(v float64, unit string) string {
	switch unit {
	case "s":
		return time.Duration(v * float64(time.Second)).Round(10 * time.Microsecond).String()
	case "/s":
		return fmt.Sprintf("%.0f/s", v)
	default:
		return fmt.Sprintf("%.0f %s", v, unit)
	}
}

// used is the processor time of the measured part. On a busy machine it says more than the time by the clock.
var used time.Duration

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
