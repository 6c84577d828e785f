package agent

import (
	"cmp"
	"context"

	"connectrpc.com/connect"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
	"syncagent/p2p"
)

const (
	defaultDifferences = 1000
	maxDifferences     = 10_000
)

// listFor calls fn for what this agent shows and a member may read, and counts the rest.
func listFor(s store, reader record.PublicKey, fn func(p2p.Shown) error) (withheld int64, err error) {
	rights := s.Policy()
	snap, err := s.Snapshot()
	if err != nil || rights == nil {
		return 0, err
	}
	defer snap.Close()
	err = snap.List("/", false, func(i crdtstore.Item) error {
		switch {
		case record.Reserved(i.Path):
			return nil
		case !rights.MayReadPath(reader, i.Path):
			withheld++
			return nil
		}
		return fn(p2p.Shown{Path: i.Path, Version: i.Version})
	})
	return withheld, err
}

// Compare tells where a peer shows something else.
func (s *service) Compare(ctx context.Context, r *connect.Request[apiv1.CompareRequest]) (*connect.Response[apiv1.CompareResponse], error) {
	if err := callerOf(ctx).mayKnowAll(s.store.Policy(), "a comparison"); err != nil {
		return nil, err
	}
	peer, err := record.ParsePublicKey(r.Msg.GetPeerId())
	if err != nil {
		return nil, badRequest("peer_id: %v", err)
	}
	limit := int(r.Msg.GetLimit())
	if limit == 0 {
		limit = defaultDifferences
	}
	if limit < 0 || limit > maxDifferences {
		return nil, badRequest("limit: want at most %d", maxDifferences)
	}
	c, err := s.peers.Compare(ctx, peer)
	if err != nil {
		names := labels{policy: s.store.Policy()}
		who := names.of(peer)
		return nil, &Error{Code: CodeUnreachable, Err: err, Message: "compare with " + cmp.Or(who.alias, who.id) + ": " + err.Error(), Hint: "syncagent peers tells who is connected"}
	}
	out := &apiv1.CompareResponse{SameBlocks: c.SameBlocks, SamePolicy: c.SamePolicy, Settled: c.Settled, Here: c.Here, There: c.There,
		Withheld: c.Withheld, Differences: int64(len(c.Paths))}
	list := c.Paths[:min(limit, len(c.Paths))]
	reasons, err := s.explain(ctx, peer, list)
	if err != nil {
		return nil, err
	}
	for i, d := range list {
		out.Paths = append(out.Paths, &apiv1.PathDifference{
			Path: d.Path, Here: versionText(d.Here), There: versionText(d.There), Kind: differenceOf(d), Reason: reasons[i],
		})
	}
	return connect.NewResponse(out), nil
}

func versionText(v record.Version) string {
	if v.IsZero() {
		return ""
	}
	return v.String()
}

func differenceOf(d p2p.Difference) apiv1.DifferenceKind {
	switch {
	case d.Here.IsZero():
		return apiv1.DifferenceKind_DIFFERENCE_KIND_MISSING_HERE
	case d.There.IsZero():
		return apiv1.DifferenceKind_DIFFERENCE_KIND_MISSING_THERE
	case d.Here.Compare(d.There) > 0:
		return apiv1.DifferenceKind_DIFFERENCE_KIND_NEWER_HERE
	}
	return apiv1.DifferenceKind_DIFFERENCE_KIND_NEWER_THERE
}

// explain says of each difference why the side that lacks the higher version does not show it.
func (s *service) explain(ctx context.Context, peer record.PublicKey, list []p2p.Difference) ([]apiv1.DifferenceReason, error) {
	reasons := make([]apiv1.DifferenceReason, len(list))
	var here, there []p2p.Placed // what to ask this agent, and the peer
	var hereAt, thereAt []int
	for i, d := range list {
		if d.Here.Compare(d.There) > 0 {
			there, thereAt = append(there, p2p.Placed{Path: d.Path, Version: d.Here}), append(thereAt, i)
		} else {
			here, hereAt = append(here, p2p.Placed{Path: d.Path, Version: d.There}), append(hereAt, i)
		}
	}
	own := progress{self: s.self, network: s.network, store: s.store, mirrors: s.mirrors}
	for i, r := range own.of(s.self, here, p2p.StageNone).Of {
		reasons[hereAt[i]] = reasonOf(r, here[i].Version)
	}
	for len(there) > 0 {
		n := min(len(there), questionPaths)
		p, err := s.peers.Follow(ctx, peer, there[:n], p2p.StageNone)
		if err != nil {
			return reasons, ctx.Err() // it has gone away: what is known is told
		}
		for i, r := range p.Of {
			reasons[thereAt[i]] = reasonOf(r, there[i].Version)
		}
		there, thereAt = there[n:], thereAt[n:]
	}
	return reasons, nil
}

func reasonOf(r p2p.Reached, v record.Version) apiv1.DifferenceReason {
	switch {
	case r.Stage < p2p.StageStored:
		return apiv1.DifferenceReason_DIFFERENCE_REASON_NOT_ARRIVED
	case r.Shown.Compare(v) >= 0:
		return apiv1.DifferenceReason_DIFFERENCE_REASON_PASSED
	}
	return apiv1.DifferenceReason_DIFFERENCE_REASON_NOT_SHOWN
}
