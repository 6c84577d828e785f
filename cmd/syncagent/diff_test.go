package main

import (
	"strings"
	"testing"

	apiv1 "syncagent/agent/api/v1"
)

// TestDifferences holds each reason that diff can name.
func TestDifferences(t *testing.T) {
	skew := -400_000.0
	connected := &apiv1.Peer{Connected: true, Equal: true, PolicySerial: 1}
	for _, tc := range []struct {
		name   string
		status *apiv1.StatusResponse
		peer   *apiv1.Peer
		paths  *apiv1.CompareResponse
		want   string
	}{
		{"equal", &apiv1.StatusResponse{PolicySerial: 1, WithheldEntries: 5}, connected, nil, ""},
		{"away", &apiv1.StatusResponse{PolicySerial: 1}, &apiv1.Peer{}, nil, "away"},
		{"behind", &apiv1.StatusResponse{}, &apiv1.Peer{Connected: true, LagBlocks: 3}, nil, "behind"},
		{"ahead", &apiv1.StatusResponse{}, &apiv1.Peer{Connected: true}, nil, "ahead"},
		{"policy", &apiv1.StatusResponse{PolicySerial: 2}, connected, nil, "policy"},
		{"much", &apiv1.StatusResponse{MissingEntries: 1, Pending: 1}, &apiv1.Peer{Connected: true, Equal: true, ClockSkewMs: &skew}, nil, "missing pending clock"},
		{"equal now", &apiv1.StatusResponse{PolicySerial: 2}, &apiv1.Peer{Connected: true, LagBlocks: 3}, &apiv1.CompareResponse{SameBlocks: true, SamePolicy: true}, ""},
		{"equal before", &apiv1.StatusResponse{PolicySerial: 1}, connected, &apiv1.CompareResponse{}, "ahead policy"},
	} {
		var codes []string
		for _, l := range differences(tc.status, tc.peer, tc.paths) {
			codes = append(codes, l.Code)
		}
		if got := strings.Join(codes, " "); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

// TestDifferenceNamesTheSide holds that each difference is explained for the side that is behind.
func TestDifferenceNamesTheSide(t *testing.T) {
	for kind, side := range map[apiv1.DifferenceKind]string{
		apiv1.DifferenceKind_DIFFERENCE_KIND_MISSING_HERE: "here", apiv1.DifferenceKind_DIFFERENCE_KIND_NEWER_THERE: "here",
		apiv1.DifferenceKind_DIFFERENCE_KIND_MISSING_THERE: "there", apiv1.DifferenceKind_DIFFERENCE_KIND_NEWER_HERE: "there",
	} {
		for reason, want := range map[apiv1.DifferenceReason]string{
			apiv1.DifferenceReason_DIFFERENCE_REASON_NOT_ARRIVED: "it has not arrived whole " + side,
			apiv1.DifferenceReason_DIFFERENCE_REASON_NOT_SHOWN:   "it is " + side + ", but the policy or the clock keeps it from being shown",
			apiv1.DifferenceReason_DIFFERENCE_REASON_PASSED:      "it is shown " + side + " by now",
			apiv1.DifferenceReason_DIFFERENCE_REASON_UNSPECIFIED: "not known",
		} {
			if got := why(&apiv1.PathDifference{Kind: kind, Reason: reason}); got != want {
				t.Errorf("%s, %s: %q", kind, reason, got)
			}
		}
	}
}

// TestFindPeer holds how a peer can be named.
func TestFindPeer(t *testing.T) {
	peers := []*apiv1.Peer{{PeerId: "12D3KooWaaaa", Alias: "web1", Name: "web2"}, {PeerId: "12D3KooWbbbb", Alias: "web2"}, {PeerId: "12D3KooWxbbbb", Name: "n"}, {PeerId: "12D3KooWcccc", Name: "n"}}
	for word, want := range map[string]string{
		"web1": "12D3KooWaaaa", "web2": "12D3KooWbbbb", "12D3KooWcccc": "12D3KooWcccc", "cccc": "12D3KooWcccc",
		"n": "", "bbbb": "", "ccc": "", "web3": "",
	} {
		p, err := findPeer(peers, word)
		if p.GetPeerId() != want || (err == nil) != (want != "") {
			t.Errorf("%s: %s, %v", word, p.GetPeerId(), err)
		}
	}
}
