package agent

import (
	"context"
	"encoding/hex"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
)

// service serves the Agent and Policy services.
type service struct {
	self    record.PublicKey
	name    string
	network record.NetworkID
	version string
	started time.Time
	ready   func() bool

	store   store
	peers   network
	mirrors mirrorState
	alarms  *Alarms

	tokenFile   string
	indexes     func() []*apiv1.Index
	parsePolicy func(signed []byte) (policyInfo, error)
	reload      func() (applied, waiting []string, err error)
}

// policyInfo names a policy text.
type policyInfo struct {
	serial uint64
	hash   [32]byte
}

// Status tells how the agent is: to who may steer it with the names of paths, to others without.
func (s *service) Status(ctx context.Context, _ *connect.Request[apiv1.StatusRequest]) (*connect.Response[apiv1.StatusResponse], error) {
	r := s.status()
	if !callerOf(ctx).control {
		withoutNames(r)
	}
	return connect.NewResponse(r), nil
}

func (s *service) status() *apiv1.StatusResponse {
	stats := s.store.Stats()
	r := &apiv1.StatusResponse{
		Name:            s.name,
		PeerId:          s.self.String(),
		Network:         s.network.String(),
		Version:         s.version,
		UptimeS:         time.Since(s.started).Seconds(),
		Ready:           s.ready(),
		Entries:         stats.Entries,
		ViewDigest:      hex.EncodeToString(stats.ViewDigest[:]),
		BlockDigest:     hex.EncodeToString(stats.BlockDigest[:]),
		Blocks:          stats.Blocks,
		Heads:           int64(stats.Heads),
		Pending:         int64(stats.Parked),
		MissingEntries:  int64(stats.Missing),
		WithheldEntries: stats.Withheld,
		DiskFree:        stats.DiskFree,
		Peers:           s.peers.Peers(),
		Paused:          s.peers.Paused(),
	}
	if p := s.store.Policy(); p != nil {
		r.PolicySerial, r.PolicyHash = p.Serial(), hashOf(p)
	}
	for _, a := range s.alarms.List() {
		r.Alarms = append(r.Alarms, &apiv1.Alarm{Code: a.Code, Subject: a.Subject, Since: timestamppb.New(a.Since), Message: a.Message, Hint: a.Hint})
	}
	r.Mirrors, r.Triggers = s.mirrors.Status()
	r.Indexes = s.indexes()
	return r
}

// withoutNames takes out of a status what names paths, or can: messages of alarms and what commands said among it.
func withoutNames(r *apiv1.StatusResponse) {
	for _, a := range r.GetAlarms() {
		a.Message, a.Subject = "", ""
	}
	for i, m := range r.GetMirrors() {
		m.Name = publicName(m, i)
		m.Prefix, m.Dir, m.LastError, m.LastOutput = "", "", "", ""
	}
	for _, t := range r.GetTriggers() {
		t.Path, t.Command, t.LastOutput = "", "", ""
	}
}

// publicName is what the ith mirror is called where names of paths do not belong: without a name of its own it is called
// by its prefix elsewhere.
func publicName(m *apiv1.Mirror, i int) string {
	if m.GetName() == m.GetPrefix() {
		return fmt.Sprintf("mirrors[%d]", i)
	}
	return m.GetName()
}

func (s *service) Peers(context.Context, *connect.Request[apiv1.PeersRequest]) (*connect.Response[apiv1.PeersResponse], error) {
	return connect.NewResponse(&apiv1.PeersResponse{Peers: s.peers.Peers(), Paused: s.peers.Paused()}), nil
}

func (s *service) PausePeers(ctx context.Context, _ *connect.Request[apiv1.PausePeersRequest]) (*connect.Response[apiv1.PausePeersResponse], error) {
	if err := callerOf(ctx).mayControl("pausing peers"); err != nil {
		return nil, err
	}
	s.peers.Pause()
	s.alarms.Raise("paused", "", "all connections to peers are closed until syncagent peers resume")
	return connect.NewResponse(&apiv1.PausePeersResponse{}), nil
}

func (s *service) ResumePeers(ctx context.Context, _ *connect.Request[apiv1.ResumePeersRequest]) (*connect.Response[apiv1.ResumePeersResponse], error) {
	if err := callerOf(ctx).mayControl("resuming peers"); err != nil {
		return nil, err
	}
	s.peers.Resume()
	s.alarms.Clear("paused", "")
	return connect.NewResponse(&apiv1.ResumePeersResponse{}), nil
}

func (s *service) ID(context.Context, *connect.Request[apiv1.IDRequest]) (*connect.Response[apiv1.IDResponse], error) {
	return connect.NewResponse(&apiv1.IDResponse{Name: s.name, PeerId: s.self.String(), Addrs: s.peers.Addrs()}), nil
}

func (s *service) ConfirmMirror(ctx context.Context, r *connect.Request[apiv1.ConfirmMirrorRequest]) (*connect.Response[apiv1.ConfirmMirrorResponse], error) {
	if err := callerOf(ctx).mayControl("confirming removals"); err != nil {
		return nil, err
	}
	n, err := s.mirrors.Confirm(r.Msg.GetName())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&apiv1.ConfirmMirrorResponse{Removals: int64(n)}), nil
}

func (s *service) Scrub(ctx context.Context, _ *connect.Request[apiv1.ScrubRequest]) (*connect.Response[apiv1.ScrubResponse], error) {
	if err := callerOf(ctx).mayControl("rewriting the store"); err != nil {
		return nil, err
	}
	if err := s.store.RequestScrub(); err != nil {
		return nil, err
	}
	return connect.NewResponse(&apiv1.ScrubResponse{}), nil
}

func (s *service) ResetClock(ctx context.Context, _ *connect.Request[apiv1.ResetClockRequest]) (*connect.Response[apiv1.ResetClockResponse], error) {
	if err := callerOf(ctx).mayControl("setting agent time back"); err != nil {
		return nil, err
	}
	back, err := s.store.ResetClock(ctx)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&apiv1.ResetClockResponse{BackS: back.Seconds()}), nil
}

func (s *service) Reload(ctx context.Context, _ *connect.Request[apiv1.ReloadRequest]) (*connect.Response[apiv1.ReloadResponse], error) {
	if err := callerOf(ctx).mayControl("a reload"); err != nil {
		return nil, err
	}
	applied, waiting, err := s.reload()
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&apiv1.ReloadResponse{Applied: applied, Waiting: waiting}), nil
}

func (s *service) Show(ctx context.Context, _ *connect.Request[apiv1.ShowRequest]) (*connect.Response[apiv1.ShowResponse], error) {
	if err := callerOf(ctx).mayKnowPolicy(); err != nil {
		return nil, err
	}
	text, p := s.store.PolicyText(), s.store.Policy()
	if p == nil || len(text) == 0 {
		return nil, crdtstore.ErrNoPolicy
	}
	return connect.NewResponse(&apiv1.ShowResponse{Signed: text, Serial: p.Serial(), Hash: hashOf(p)}), nil
}

func (s *service) Apply(ctx context.Context, r *connect.Request[apiv1.ApplyRequest]) (*connect.Response[apiv1.ApplyResponse], error) {
	if err := callerOf(ctx).mayKnowPolicy(); err != nil {
		return nil, err
	}
	signed, err := s.parsePolicy(r.Msg.GetSigned())
	if err != nil {
		return nil, err
	}
	if err := s.store.SetPolicy(ctx, r.Msg.GetSigned()); err != nil {
		return nil, err
	}
	// The store keeps a valid text that another one outranks; the caller asked for it to be in force.
	p := s.store.Policy()
	if p == nil || p.Hash() != signed.hash {
		serial := uint64(0)
		if p != nil {
			serial = p.Serial()
		}
		return nil, &Error{
			Code:    CodePrecondition,
			Message: fmt.Sprintf("policy with serial %d is not in force: the one with serial %d outranks it", signed.serial, serial),
			Hint:    "start from the text in force (syncagent acl show) and raise the serial",
		}
	}
	return connect.NewResponse(&apiv1.ApplyResponse{Serial: p.Serial(), Hash: hashOf(p)}), nil
}

func hashOf(p policy) string {
	h := p.Hash()
	return hex.EncodeToString(h[:])
}
