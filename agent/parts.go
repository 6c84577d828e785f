package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"syncagent/acl"
	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore"
	"syncagent/p2p"
)

// ownStore fits crdtstore.Store to what the API needs.
type ownStore struct{ *crdtstore.Store }

func (s ownStore) Snapshot() (snapshot, error) {
	n, err := s.Store.Snapshot()
	if err != nil {
		return nil, err
	}
	return n, nil
}

func (s ownStore) Watch(ctx context.Context, o watchOptions, fn func(crdtstore.Event) error) error {
	return s.Store.Watch(ctx, crdtstore.WatchOptions{
		Prefixes: o.prefixes, Since: o.since, Values: o.values, Durable: o.durable, Reached: o.reached,
	}, fn)
}

func (s ownStore) Policy() policy {
	if p := s.Store.Policy(); p != nil {
		return p
	}
	return nil // not an interface that holds a nil pointer
}

func (s ownStore) PolicyText() []byte {
	if texts := s.Policies(); len(texts) > 0 {
		return texts[0]
	}
	return nil
}

// parsePolicy reads a signed policy text, so that its faults are told before anything else happens.
func parsePolicy(signed []byte) (policyInfo, error) {
	p, err := acl.ParseSigned(signed)
	if err != nil {
		return policyInfo{}, &Error{Code: CodeBadPolicy, Message: err.Error(), Hint: rowOf(CodeBadPolicy).hint, Err: err}
	}
	return policyInfo{serial: p.Serial, hash: p.Hash}, nil
}

// ownNetwork fits p2p.Node to what the API needs.
type ownNetwork struct{ *p2p.Node }

func (n ownNetwork) Peers() []*apiv1.Peer {
	list := n.Node.Peers()
	peers := make([]*apiv1.Peer, len(list))
	for i, p := range list {
		peers[i] = &apiv1.Peer{
			PeerId:       p.Peer.String(),
			Alias:        p.Alias,
			Name:         p.Name,
			Version:      p.Version,
			Connected:    p.Connected,
			Addr:         p.Addr,
			LagBlocks:    int64(p.Lag),
			Equal:        p.Equal,
			PolicySerial: p.Serial,
			Error:        p.Fault,
		}
		if !p.LastSync.IsZero() {
			s := time.Since(p.LastSync).Seconds()
			peers[i].LastSyncS = &s
		}
		if p.RTT > 0 {
			ms := milliseconds(p.RTT)
			peers[i].RttMs = &ms
		}
		if p.Connected && p.Incarnation != 0 { // it has said hello, and so the time
			ms := milliseconds(p.Skew)
			peers[i].ClockSkewMs = &ms
		}
	}
	return peers
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// openError gives what failed at the start a code and a hint.
func openError(err error, c *Config) error {
	e := &Error{Code: CodeInternal, Message: err.Error(), Err: err}
	switch {
	case errors.Is(err, crdtstore.ErrLocked):
		e.Code, e.Hint = CodeInUse, "another agent runs with data_dir "+c.DataDir+"; one agent only may use it"
	case errors.Is(err, p2p.ErrPortInUse):
		e.Code, e.Hint = CodeInUse, "stop what listens there, or change listen"
	case errors.Is(err, crdtstore.ErrNetwork):
		e.Code, e.Hint = CodeInternal, "network and data_dir of the configuration do not belong together: name another data_dir"
	case errors.Is(err, crdtstore.ErrDiskFull):
		e.Code, e.Hint = CodeDiskFull, rowOf(CodeDiskFull).hint
	case errors.Is(err, crdtstore.ErrCorrupt):
		e.Code, e.Hint = CodeCorrupt, "move "+c.DataDir+"/store away and start again: the other agents fill it"
	default:
		return fmt.Errorf("start agent: %w", err)
	}
	return e
}
