package agent

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"syncagent/acl"
	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
	"syncagent/p2p"
)

// Options are what an agent is given besides its configuration.
type Options struct {
	Version string       // of the program, for status, peers and metrics
	Log     *slog.Logger // nil: nothing is logged
	Levels  *Levels      // of Log; nil: a reload leaves them alone
	OnReady func()       // called once when the agent serves
	// Load reads the configuration again, for reloads by the API and by ReloadFile; nil: there are none.
	Load func() (Config, error)
}

// Agent is one agent. Make it with New; its methods are safe for concurrent use.
type Agent struct {
	options Options
	log     *slog.Logger
	alarms  *Alarms
	key     ed25519.PrivateKey
	network record.NetworkID
	admins  []record.PublicKey
	ready   atomic.Bool

	mu      sync.Mutex
	config  Config
	running *running // while Run serves
}

// New checks the configuration and reads the identity. It touches nothing else; errors are an *Error.
func New(c Config, o Options) (*Agent, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if err := faultsError(c.File, c.Check()); err != nil {
		return nil, err
	}
	if c.Network == "" {
		return nil, &Error{
			Code: CodeBadConfig, Message: "this host belongs to no network yet: the configuration names none",
			Hint: "syncagent init makes a network, syncagent join TOKEN makes this host part of one",
		}
	}
	a := &Agent{options: o, log: o.Log, alarms: NewAlarms(o.Log), config: c}
	var err error
	if a.network, a.admins, err = c.pins(); err != nil {
		return nil, err
	}
	if a.key, err = LoadKey(c.IdentityFile()); err != nil {
		return nil, err
	}
	return a, nil
}

// Alarms is the list of what is wrong with this agent.
func (a *Agent) Alarms() *Alarms { return a.alarms }

// Run opens the store, listens and serves until ctx ends; then it stops within 5 seconds and returns nil. What keeps it
// from starting is an *Error. It may be called once.
func (a *Agent) Run(ctx context.Context) error {
	limitMemory()
	bridgeLibraries(a.log.Handler())
	c := a.currentConfig()
	r := &running{agent: a, config: c, metrics: newMetrics(a.options.Version), caughtUp: make(chan struct{})}
	if err := r.open(); err != nil {
		return errors.Join(err, r.close())
	}
	a.mu.Lock()
	a.running = r
	a.mu.Unlock()
	err := r.serve(ctx)
	return errors.Join(err, r.close())
}

func (a *Agent) currentConfig() Config {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.config
}

// running is what Run has opened.
type running struct {
	agent   *Agent
	config  Config
	metrics *metrics
	store   *crdtstore.Store
	node    *p2p.Node
	mirrors *mirrorSet
	indexes *indexSet
	server  *server // while it serves
	doors   *doors
	http    net.Listener // nil: api.http is empty

	caughtUp chan struct{} // closed when it is known what others wrote while the agent was down
}

// open takes hold of everything that another process could have: data directory, ports, socket. Nothing is served yet.
func (r *running) open() error {
	a, c := r.agent, &r.config
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		return &Error{Code: CodeBadConfig, Message: fmt.Sprintf("make data_dir: %v", err), Err: err,
			Hint: "the agent's user must be able to write " + filepath.Dir(c.DataDir)}
	}
	if err := r.openStore(); err != nil {
		return err
	}
	if err := r.openNode(); err != nil {
		return err
	}
	var err error
	r.mirrors, err = newMirrorSet(c, a.alarms, func(c *Config) (*mirrors, error) {
		return newMirrors(c, ownStore{r.store}, a.alarms, r.caughtUp, a.log.With("part", "mirrors"))
	})
	if err != nil {
		return err
	}
	r.indexes = newIndexSet(c.Indexes, ownStore{r.store}, a.log)
	if c.API.HTTP != "" {
		if r.http, err = listenTCP("api.http", c.API.HTTP); err != nil {
			return err
		}
	}
	log := a.log.With("part", "api")
	r.doors, err = openDoors(c, &papers{log: log, alarms: a.alarms, policy: ownStore{r.store}.Policy, now: time.Now}, r.metrics.turnedAway, log)
	return err
}

func (r *running) openStore() error {
	a, c := r.agent, &r.config
	minSerial, minHash, err := policyFloor(c)
	if err != nil {
		return err
	}
	r.store, err = crdtstore.Open(crdtstore.Options{
		Dir: c.DataDir, Network: a.network, Key: a.key, Admins: a.admins, MinSerial: minSerial, MinHash: minHash,
		History: time.Duration(c.Store.History), MinFree: uint64(c.Store.MinFree), PeerOrigins: c.Limits.PeerOrigins,
		Log: a.log.With("part", "store"), Alarm: a.alarms.Set,
		// The store calls these while Run serves, when node is set.
		OnCommit: func(blocks []record.Outgoing) {
			for _, b := range blocks {
				r.node.Publish(b)
			}
		},
		OnForeign: func(age time.Duration) { r.metrics.replication.Observe(max(0, age.Seconds())) },
		OnPolicy: func() {
			a.judgeSelf(r.store.Policy())
			r.node.PolicyChanged()
			r.doors.ring()
		},
		OnWants: func() { r.node.WantsChanged() },
	})
	if err != nil {
		return openError(err, c)
	}
	r.store.LimitValues(int64(c.Limits.Value))
	return nil
}

func (r *running) openNode() error {
	a, c := r.agent, &r.config
	p2p.SetLibraryLog(libraryLog{a.log.With("part", "libp2p").Handler(), slog.LevelWarn})
	var err error
	r.node, err = p2p.New(p2p.Options{
		Key: a.key, Network: a.network, Name: c.AgentName(), Version: a.options.Version,
		Listen: c.Listen, Announce: c.Announce, Bootstrap: c.Bootstrap, PeersFile: filepath.Join(c.DataDir, "peers"),
		PeerBytes: int64(c.Limits.PeerBytes),
		Log:       a.log.With("part", "network"), Registerer: r.metrics.registry, Libp2pMetrics: c.Metrics.Libp2p, Alarm: a.alarms.Set,
		Progress: func(asker record.PublicKey, of []p2p.Placed, want p2p.Stage) p2p.Progress { // asked while Run serves
			p := r.progress()
			return p.of(asker, of, want)
		},
		Listing: func(reader record.PublicKey, fn func(p2p.Shown) error) (int64, error) {
			return listFor(ownStore{r.store}, reader, fn)
		},
	})
	if err != nil {
		return openError(err, c)
	}
	return nil
}

// policyFloor reads from the join token which policy was in force when this host joined. A host without the file, set
// up by hand, has no floor.
func policyFloor(c *Config) (serial uint64, hash [32]byte, err error) {
	text, err := os.ReadFile(c.TokenFile())
	if errors.Is(err, fs.ErrNotExist) {
		return 0, hash, nil
	}
	var t *acl.Token
	if err == nil {
		t, err = acl.ParseToken(strings.TrimSpace(string(text)))
	}
	if err == nil && t.Network.String() != c.Network {
		err = fmt.Errorf("it is of network %s, the configuration of %s", t.Network, c.Network)
	}
	if err != nil {
		return 0, hash, &Error{Code: CodeBadConfig, Message: fmt.Sprintf("join token %s: %v", c.TokenFile(), err), Err: err,
			Hint: "put the token back by which this host joined; syncagent join wrote it"}
	}
	return t.PolicySerial, t.PolicyHash, nil
}

// close releases what open took. Listeners that were served are closed already.
func (r *running) close() error {
	var errs []error
	if r.http != nil {
		_ = r.http.Close()
	}
	if r.doors != nil {
		r.doors.close()
	}
	if r.node != nil {
		errs = append(errs, r.node.Close())
	}
	if r.store != nil {
		errs = append(errs, r.store.Close())
	}
	return errors.Join(errs...)
}

// serve runs all parts. They stop in order: first what takes requests, then the network, then the store, so that a
// write that was begun is finished and announced. If one part fails all others stop too.
func (r *running) serve(ctx context.Context) error {
	a := r.agent
	group, ctx := errgroup.WithContext(ctx)
	storeCtx, stopStore := context.WithCancel(context.WithoutCancel(ctx))
	nodeCtx, stopNode := context.WithCancel(context.WithoutCancel(ctx))
	nodeDone, frontDone := make(chan struct{}), make(chan struct{})

	group.Go(func() error { return r.store.Run(storeCtx) })
	group.Go(func() error {
		defer close(nodeDone)
		err := r.node.Run(nodeCtx, r.store)
		if nodeCtx.Err() != nil && errors.Is(err, context.Canceled) {
			return nil // stopped while it was still starting
		}
		return err
	})
	group.Go(func() error {
		defer close(frontDone)
		return r.serveFront(ctx)
	})
	group.Go(func() error {
		<-ctx.Done()
		a.ready.Store(false)
		notifySystemd("STOPPING=1")
		a.log.Info("agent stops")
		<-frontDone
		stopNode()
		<-nodeDone
		stopStore()
		return nil
	})
	return group.Wait()
}

// serveFront serves the API and keeps the mirrors until ctx ends.
func (r *running) serveFront(ctx context.Context) error {
	a := r.agent
	r.takeFirstPolicy(ctx)
	s := r.newServer(ctx)
	group, ctx := errgroup.WithContext(ctx)
	api := s.asCaller(s.fullHandler())
	group.Go(func() error { return serve(ctx, r.doors.socket, api, a.log) })
	if r.doors.tls != nil {
		group.Go(func() error { return serve(ctx, r.doors.tls, api, a.log) })
	}
	group.Go(func() error { return r.doors.run(ctx) })
	if r.http != nil {
		group.Go(func() error { return serve(ctx, r.http, s.plainHandler(), a.log) })
	}
	group.Go(func() error {
		catchUp(ctx, func() []record.PublicKey { return r.store.Policy().Members() }, r.node.Peers, catchUpAtMost)
		close(r.caughtUp)
		return nil
	})
	group.Go(func() error { return r.mirrors.run(ctx) })
	group.Go(func() error { return r.indexes.run(ctx) })
	clock := clockGuard{peers: ownNetwork{r.node}.Peers, alarms: a.alarms, refuse: r.store.RefuseWrites}
	group.Go(func() error { return repeat(ctx, guardInterval, clock.look) })
	policies := policyGuard{peers: clock.peers, serial: r.policySerial, alarms: a.alarms}
	group.Go(func() error { return repeat(ctx, guardInterval, policies.look) })
	group.Go(func() error { return runTidy(ctx, debug.FreeOSMemory) })
	if interval := watchdogInterval(); interval > 0 {
		group.Go(func() error { return runWatchdog(ctx, interval, func() { r.store.Stats() }) })
	}
	a.ready.Store(true)
	notifySystemd("READY=1")
	a.log.Info("agent ready", "name", r.config.AgentName(), "peer_id", record.KeyOf(a.key).String(), "network", a.network.String(),
		"version", a.options.Version, "socket", r.config.API.Socket, "listen", r.node.Addrs(), "tls", r.doors.tlsAddr())
	if a.options.OnReady != nil {
		a.options.OnReady()
	}
	return group.Wait()
}

func (r *running) newServer(ctx context.Context) *server {
	a, c := r.agent, &r.config
	self, own := record.KeyOf(a.key), ownStore{r.store}
	s := &server{
		log: a.log.With("part", "api"), metrics: r.metrics, timeout: requestTimeout,
		kv: &kv{self: self, network: a.network, store: own, stop: ctx, now: r.store.AgentTime,
			name: c.AgentName(), peers: ownNetwork{r.node}, progress: r.progress(), indexes: r.indexes},
		service: &service{
			self: self, name: c.AgentName(), network: a.network, version: a.options.Version, started: time.Now(),
			ready: a.ready.Load, store: own, peers: ownNetwork{r.node}, mirrors: r.mirrors, alarms: a.alarms, parsePolicy: parsePolicy,
			reload: a.reload, tokenFile: c.TokenFile(), indexes: r.indexes.Status,
		},
	}
	a.mu.Lock()
	r.server = s
	s.limit(a.config.Limits) // a reload may have come since the start
	s.logRequests.Store(a.config.Log.Requests)
	a.mu.Unlock()
	s.page = newStatusPage(ctx, s.service, c.API.Socket, c.DataDir, func() string { return *r.doors.token.Load() })
	r.metrics.registry.MustRegister(collector{s.service})
	return s
}

// progress is what peers and waiters ask how far this agent is.
func (r *running) progress() progress {
	return progress{self: record.KeyOf(r.agent.key), network: r.agent.network, store: ownStore{r.store}, mirrors: r.mirrors}
}
