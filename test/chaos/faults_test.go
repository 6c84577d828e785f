package chaos

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// world is what a fault may act on.
type world struct {
	r       *rand.Rand
	lan     *lan
	hosts   []*host
	history *history
}

// fault is something that befalls the fleet for a while. Begin says what it did; it must be over, or be ended by end,
// when the round is healed. The network is healed and agents that do not run are started without its doing.
type fault struct {
	name  string
	alone bool // no fault of the network beside it
	disk  string
	seam  bool // the program has to be built with the seam for faults
	anew  bool // it has a store built anew, and G11 says nothing of how soon that is equal
	begin func(w *world, h *host) error
	end   func(w *world, h *host) error
}

// networkFaults befall the links.
var networkFaults = []fault{
	{name: "two halves apart", begin: func(w *world, _ *host) error {
		order := w.r.Perm(len(w.hosts))
		for i, a := range order {
			for j, b := range order {
				if i < 2 != (j < 2) {
					w.lan.cut[link{a, b}] = true
				}
			}
		}
		return w.lan.apply()
	}},
	{name: "one way", begin: func(w *world, h *host) error {
		for i := range w.hosts {
			w.lan.cut[link{i, h.place}] = i != h.place // it sends and hears nothing
		}
		delete(w.lan.cut, link{h.place, h.place})
		return w.lan.apply()
	}},
	{name: "flapping cable", begin: func(w *world, h *host) error {
		for range 6 {
			if err := w.lan.unplug(h.place, true); err != nil {
				return err
			}
			time.Sleep(time.Duration(w.r.IntN(900)) * time.Millisecond)
			if err := w.lan.unplug(h.place, false); err != nil {
				return err
			}
			time.Sleep(time.Duration(w.r.IntN(500)) * time.Millisecond)
		}
		return nil
	}},
	{name: "a fifth of the packets lost", begin: func(w *world, _ *host) error {
		for i := range w.lan.loss {
			w.lan.loss[i] = 20
		}
		return w.lan.apply()
	}},
	{name: "each alone", begin: func(w *world, _ *host) error {
		for i := range w.hosts {
			for j := range w.hosts {
				if i != j {
					w.lan.cut[link{i, j}] = true
				}
			}
		}
		return w.lan.apply()
	}},
}

// hostFaults befall one host, or several.
var hostFaults = []fault{
	{name: "kill -9", begin: func(w *world, h *host) error {
		for range 3 {
			h.kill()
			if err := h.start(); err != nil {
				return err
			}
			time.Sleep(time.Duration(w.r.IntN(1000)) * time.Millisecond)
		}
		return nil
	}},
	{name: "pause", begin: func(_ *world, h *host) error { return h.signal(syscall.SIGSTOP) },
		end: func(_ *world, h *host) error { return h.signal(syscall.SIGCONT) }},
	{name: "full disk", disk: "tmpfs", begin: func(_ *world, h *host) error { return h.disk.fill(4 << 20) },
		end: func(_ *world, h *host) error { return os.Remove(h.disk.ballast()) }},
	{name: "read-only disk", disk: "ext4",
		begin: func(_ *world, h *host) error { return h.outage("mount", "-o", "remount,abort", h.disk.dir) },
		end:   reboot},
	{name: "power cut", disk: "ext4", begin: func(w *world, h *host) error {
		if err := h.outage("xfs_io", "-x", "-c", "shutdown", h.disk.dir); err != nil {
			return err
		}
		if err := reboot(w, h); err != nil {
			return err
		}
		return h.start()
	}},
	{name: "damaged store", alone: true, anew: true, begin: func(w *world, h *host) error {
		return damage(w, h, func(store string) error {
			manifest := filepath.Join(store, "MANIFEST")
			switch w.r.IntN(3) {
			case 0:
				return os.Remove(manifest)
			case 1:
				return os.Truncate(manifest, 8) // its head: it names no table
			}
			return os.WriteFile(manifest, []byte("not what was there"), 0o600)
		}, setAside)
	}},
	{name: "flipped bytes in the store", alone: true, anew: true, begin: func(w *world, h *host) error {
		return damage(w, h, func(store string) error { return flip(w.r, store) }, func(*host) error { return nil })
	}},
	{name: "wrong clock", seam: true, begin: func(w *world, h *host) error {
		h.kill()
		h.clock = time.Duration(w.r.IntN(240)-120) * time.Second // two hosts stay within the five minutes that are allowed
		return h.start()
	}, end: func(_ *world, h *host) error {
		h.kill()
		h.clock = 0
		return nil
	}},
	{name: "bootstrap peers gone", alone: true, begin: func(w *world, _ *host) error {
		if err := eventually(*limit, func() error { return acquainted(w.hosts) }); err != nil {
			return err
		}
		for _, h := range w.hosts {
			h.kill()
		}
		rest := w.hosts[1:] // all joined by the first
		for _, h := range rest {
			if err := h.start(); err != nil {
				return err
			}
		}
		return eventually(*limit, func() error {
			for _, h := range rest {
				s, err := h.status()
				if err != nil {
					return err
				}
				connected := 0
				for _, p := range s.Peers {
					if p.Connected {
						connected++
					}
				}
				if connected < len(rest)-1 {
					return fmt.Errorf("%s found %d of %d peers without its bootstrap peer", h.name, connected, len(rest)-1)
				}
			}
			return nil
		})
	}},
	{name: "all restarted at once", begin: func(w *world, _ *host) error {
		for _, h := range w.hosts {
			h.kill()
		}
		for _, h := range w.hosts {
			if err := h.start(); err != nil {
				return err
			}
		}
		return nil
	}},
}

// reboot gives a host the disk as it is after a restart of the machine. Its agent is started by the caller.
func reboot(w *world, h *host) error {
	h.kill()
	w.history.forget(h.name)
	if err := h.disk.again(); err != nil {
		return err
	}
	h.outages.Add(1)
	return nil
}

// damage spoils files at rest and says what is to be seen then. What only this host had would be lost with it, so its
// clients are kept away until all that they were told is on another host.
func damage(w *world, h *host, spoil func(store string) error, seen func(*host) error) error {
	h.quiet.Lock()
	defer h.quiet.Unlock()
	h.stop() // what it has lies in tables then, and not in its log alone
	if err := h.start(); err != nil {
		return err
	}
	// A host's blocks come in the order in which it made them: who has the last one has all.
	last := map[string]string{fmt.Sprintf("/own/%s/last", h.name): fmt.Sprint(w.r.Uint64())}
	version, err := h.write(last)
	if w.history.wrote(h.name, last, version, err); err != nil {
		return err
	}
	other := w.hosts[(h.place+1)%len(w.hosts)]
	if err := eventually(startLimit, func() error {
		all, err := other.list(startLimit, "/own/"+h.name+"/last")
		for path, value := range last {
			if all[path].value != value {
				return fmt.Errorf("%s does not have %s: %w", other.name, path, err)
			}
		}
		return nil
	}); err != nil {
		return err
	}
	h.kill()
	w.history.forget(h.name)
	if err := spoil(filepath.Join(h.dir, "data", "store")); err != nil {
		return err
	}
	if err := h.start(); err != nil {
		return err
	}
	return seen(h)
}

// setAside tells whether the host noticed that its store was damaged.
func setAside(h *host) error {
	if !h.alarmed("store-damaged") {
		return errors.New(h.name + " does not alarm that its store was damaged")
	}
	if len(h.asides()) == 0 {
		return errors.New(h.name + " did not set its damaged store aside")
	}
	return nil
}

// flip changes one bit here and there in every table and log of a store. Whether that shows at the start, at a read or
// never is up to what lies there; nothing may be lost or wrong by it.
func flip(r *rand.Rand, store string) error {
	tables, err := filepath.Glob(filepath.Join(store, "*.sst"))
	if err != nil {
		return err
	}
	logs, err := filepath.Glob(filepath.Join(store, "*.mem"))
	if err != nil {
		return err
	}
	for _, name := range append(tables, logs...) {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		f, err := os.OpenFile(name, os.O_WRONLY, 0) // the holes of a log stay holes
		if err != nil {
			return err
		}
		written := len(bytes.TrimRight(b, "\x00"))
		for range 3 {
			if written > 0 && err == nil {
				at := r.IntN(written)
				_, err = f.WriteAt([]byte{b[at] ^ 1<<r.IntN(8)}, int64(at))
			}
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// acquainted tells whether every host has the address of every other on its disk.
func acquainted(hosts []*host) error {
	for _, h := range hosts {
		raw, err := os.ReadFile(filepath.Join(h.dir, "data", "peers"))
		if err != nil {
			return err
		}
		var book struct{ Records [][]byte }
		if err := json.Unmarshal(raw, &book); err != nil {
			return err
		}
		if len(book.Records) < len(hosts) {
			return fmt.Errorf("%s knows %d addresses of %d", h.name, len(book.Records), len(hosts))
		}
	}
	return nil
}
