package agent

import (
	"context"
	"net"
	"os"
	"strconv"
	"time"
)

// notifySystemd sends a state such as "READY=1" to the service manager, see sd_notify(3). Without one it does nothing.
// Errors are not reported: the service manager notices what it missed, and nobody else could do anything about them.
func notifySystemd(state string) {
	address := os.Getenv("NOTIFY_SOCKET")
	if address == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: address, Net: "unixgram"}) // "@": abstract
	if err != nil {
		return
	}
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = conn.Write([]byte(state))
	_ = conn.Close()
}

// watchdogInterval tells how often the service manager wants to hear of this process; 0 if it does not.
func watchdogInterval() time.Duration {
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec <= 0 {
		return 0
	}
	return time.Duration(usec) * time.Microsecond
}

// runWatchdog tells the service manager that the agent is alive, as long as alive returns: an agent whose store hangs
// falls silent and is restarted.
func runWatchdog(ctx context.Context, interval time.Duration, alive func()) error {
	ticker := time.NewTicker(interval / 3)
	defer ticker.Stop()
	for {
		alive()
		notifySystemd("WATCHDOG=1")
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}
