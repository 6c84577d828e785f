package agent

import (
	"context"
	"slices"

	"connectrpc.com/connect"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
)

// maxKnown is how many versions one request asks for.
const maxKnown = 1000

// knows tells whether a version of a path, or a later one, is here and ready. Shown is what decides the path.
func knows(s snapshot, network record.NetworkID, path string, v record.Version) (known bool, shown record.Version, err error) {
	if known, err = s.Holds(network.PathKey(path), v); err != nil {
		return false, shown, err
	}
	shown, _, err = s.Shown(path) // the version may be lost for good, and a later one be here
	return known || shown.Compare(v) >= 0, shown, err
}

// Known tells whether versions have been heard of. What a caller may not read went with the right to.
func (k *kv) Known(ctx context.Context, r *connect.Request[apiv1.KnownRequest]) (*connect.Response[apiv1.KnownResponse], error) {
	asked := r.Msg.GetVersions()
	if len(asked) > maxKnown {
		return nil, badRequest("versions: want at most %d, not %d", maxKnown, len(asked))
	}
	p := k.store.Policy()
	if p == nil {
		return nil, crdtstore.ErrNoPolicy
	}
	snap, err := k.store.Snapshot()
	if err != nil {
		return nil, err
	}
	defer snap.Close()
	out, l := &apiv1.KnownResponse{}, labels{policy: p}
	for _, a := range asked {
		path := a.GetPath()
		if err := record.CheckPath(path); err != nil {
			return nil, err
		}
		v, noIndex, err := record.ParseVersion(a.GetVersion())
		if err != nil || noIndex {
			return nil, badRequest("version of %s: want one with its index", path)
		}
		answer := &apiv1.KnownResponse_Answer{Known: true}
		if !record.Reserved(path) && k.reads(ctx, p, path) {
			if answer, err = k.answer(snap, &l, path, v); err != nil {
				return nil, err
			}
		}
		out.Answers = append(out.Answers, answer)
	}
	return connect.NewResponse(out), ctx.Err()
}

func (k *kv) answer(snap snapshot, l *labels, path string, v record.Version) (*apiv1.KnownResponse_Answer, error) {
	known, shown, err := knows(snap, k.network, path, v)
	answer := &apiv1.KnownResponse_Answer{Known: known}
	if err != nil || !known || shown.IsZero() {
		return answer, err
	}
	past, err := snap.History(path, false)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(past, func(i crdtstore.Item) bool { return i.Version == shown })
	if i >= 0 && past[i].Deleted {
		answer.Deleted = l.entry(&past[i])
	}
	return answer, nil
}

// Known asks the agent for any number of versions.
func (c *Client) Known(ctx context.Context, versions []*apiv1.KnownRequest_Version) ([]*apiv1.KnownResponse_Answer, error) {
	answers := make([]*apiv1.KnownResponse_Answer, 0, len(versions))
	for some := range slices.Chunk(versions, maxKnown) {
		r, err := c.KV.Known(ctx, connect.NewRequest(&apiv1.KnownRequest{Versions: some}))
		if err != nil {
			return nil, err
		}
		answers = append(answers, r.Msg.GetAnswers()...)
	}
	return answers, nil
}
