// Package chaos tests five real agents, each in a network namespace of its own, some on file systems of their own, while
// clients write to all of them and faults befall them: kills, stalls, partitions, loss, full, read-only and damaged
// disks, power cuts. A run has rounds of two phases. First faults, then everything is healed, and then: no acknowledged
// write is lost, nobody saw a version go back, all agents are equal. A round with too little traffic is void, which is a
// failure.
//
// It needs root, iproute2, nftables and util-linux, and xfsprogs and e2fsprogs for faults of disks. What cannot be done
// on a machine is named. No library stands between Go and the kernel that could give a process a wrong clock, so the
// agents are built with the seam for faults, which can.
//
//	go test ./test/chaos -rounds=7 -seed=N -v
package chaos

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"syncagent/test/process"
)

var (
	rounds = flag.Int("rounds", 0, "of faults; 0: the test is left out")
	seed   = flag.Uint64("seed", 0, "of the faults; 0: another one each time")
	only   = flag.String("faults", "", "names of faults, by commas; empty: all in turn")
	limit  = flag.Duration("within", 10*time.Second, "of the heal all agents have to be equal")
)

// program is the file that all agents run. CHAOS_BINARY names one, else it is built.
var program string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if program = os.Getenv("CHAOS_BINARY"); program != "" || *rounds == 0 {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "chaos")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir) //nolint:errcheck // what is left of a temporary directory harms nobody
	if program, err = process.Build(dir, "faults"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// need skips the test unless this machine can do what every fault stands on.
func need(t *testing.T) {
	t.Helper()
	if *rounds == 0 {
		t.Skip("it takes minutes and root: make chaos runs it")
	}
	if os.Getuid() != 0 {
		t.Skip("only root may make network namespaces")
	}
	for _, tool := range []string{"ip", "nft", "nsenter", "mount"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
}

// command runs a tool of the system to its end.
func command(stdin string, args ...string) error {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}
