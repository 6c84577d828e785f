package crdtstore

import (
	"time"

	"syncagent/crdtstore/record"
)

// parcel is a record.Parcel whose block was parsed and whose signatures were checked, if it is new.
type parcel struct {
	from     record.PublicKey // who delivered it
	block    *record.Block    // nil: entries alone
	held     bool             // the block was committed already when it came
	verified bool             // its signatures are valid
	entries  [][]byte
	byID     map[record.ID][]byte // the same, for a block's slots
	bytes    int
}

// unsure tells whether signatures are left to check.
func (p *parcel) unsure() bool { return p.block != nil && !p.held && !p.verified }

func (p *parcel) size() int { return p.bytes }

// ingestRequest is a caller waiting for what it delivered. Done is nil for blocks that leave the parking.
type ingestRequest struct {
	from    record.PublicKey
	came    time.Duration // by the monotonic clock
	parcels []*parcel
	next    int
	lacks   []record.Digest // blocks that parked ones of the parcels name
	result  record.Ingested
	done    chan ingestResult
}

type ingestResult struct {
	record.Ingested
	err error
}

type answerRequest struct {
	from    record.PublicKey
	wants   []record.Want
	answers []record.Answer
	next    int
	result  error
	done    chan error
}

// queue is what the owner was asked to do and has not done yet.
type queue struct {
	policies []*policyRequest
	clocks   []*clockRequest
	ingests  []*ingestRequest
	answers  []*answerRequest
	chunks   []*chunkNews
	writes   []*writeRequest
}

// others tells whether anything but local writes waits.
func (q *queue) others() bool {
	return len(q.policies)+len(q.clocks)+len(q.ingests)+len(q.answers)+len(q.chunks) > 0
}

func (q *queue) add(r any) {
	switch r := r.(type) {
	case *policyRequest:
		q.policies = append(q.policies, r)
	case *clockRequest:
		q.clocks = append(q.clocks, r)
	case *ingestRequest:
		q.ingests = append(q.ingests, r)
	case *answerRequest:
		q.answers = append(q.answers, r)
	case *chunkNews:
		q.chunks = append(q.chunks, r)
	case *writeRequest:
		q.writes = append(q.writes, r)
	}
}

// fail answers everybody who waits.
func (q *queue) fail(err error) {
	for _, r := range q.policies {
		r.done <- err
	}
	for _, r := range q.clocks {
		r.done <- clockResult{err: err}
	}
	for _, r := range q.ingests {
		r.finish(err)
	}
	for _, r := range q.answers {
		r.done <- err
	}
	for _, r := range q.writes {
		r.answer(writeResult{err: err})
	}
	*q = queue{}
}

func (r *ingestRequest) finish(err error) {
	if r.done != nil {
		r.done <- ingestResult{r.result, err}
	}
}
