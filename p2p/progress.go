package p2p

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"syncagent/crdtstore/record"
)

// Stage is how far an agent is with a version of a path.
type Stage byte

// The stages, each of which includes those before it.
const (
	StageNone      Stage = iota
	StageStored          // the write is on its disk, with all its entries that the agent may read
	StageMirrored        // and in every mirror of its configuration that holds the path, the version or a later one
	StageTriggered       // and every trigger of these mirrors has seen it in a run that succeeded
)

// Placed names a version of a path.
type Placed struct {
	Path    string
	Version record.Version
}

// Reached tells how far an agent is with one Placed.
type Reached struct {
	Stage      Stage
	Unmirrored bool           // no mirror of its configuration holds the path
	Shown      record.Version // that decides what the agent shows at the path; zero: nothing does
}

// Progress tells how far an agent is with several.
type Progress struct {
	Of    []Reached
	Fault string // why it does not go on with one of them, such as a trigger that failed; empty: nothing holds it up
}

// Done tells whether all have reached the stage, as far as there are mirrors that could take part.
func (p Progress) Done(want Stage) bool {
	return !slices.ContainsFunc(p.Of, func(r Reached) bool {
		return r.Stage < want && !(r.Unmirrored && r.Stage >= StageStored)
	})
}

// decided tells whether waiting any longer could not change the answer, or not for the better.
func (p Progress) decided(want Stage) bool { return p.Fault != "" || p.Done(want) }

const (
	progressAsks  = 2 // streams to one peer at a time; sync needs the others
	maxPlaced     = 256
	maxFault      = 300
	progressHold  = 500 * time.Millisecond // a question is held open, then asked again: others may wait for the stream
	progressLeast = 2 * time.Millisecond
	progressMost  = 250 * time.Millisecond

	flagUnmirrored = 0x10
)

var (
	errNotConnected = errors.New("not connected")
	// errNoAnswer is all that there is to say of a peer that stays silent; it may not know the question.
	errNoAnswer = errors.New("no answer in time")
)

// Follow asks a peer how far it is with at most 256 versions, again and again, until all have reached want, the peer
// tells of a fault, or ctx ends. Then it gives the last answer, or why there is none. A peer that is not connected is
// dialled and asked when it comes. With StageNone the first answer is enough.
func (n *Node) Follow(ctx context.Context, peer record.PublicKey, of []Placed, want Stage) (last Progress, err error) {
	defer n.need(peer)()
	question := encodeQuestion(want, of)
	err = errNotConnected
	for pause := progressLeast; ; pause = min(2*pause, progressMost) {
		if s := n.session(peer.PeerID()); s != nil && s.standing == member {
			p, failed := n.askProgress(ctx, s, question, len(of))
			if failed == nil {
				if last, err = p, nil; p.decided(want) {
					return last, nil
				}
				pause = progressLeast // it held the question open
			} else if err != nil {
				err = failed
			}
		}
		if !wait(ctx, pause) {
			return last, n.whyNot(peer, err)
		}
	}
}

// whyNot adds to the error of a peer that is not connected why it could not be reached.
func (n *Node) whyNot(peer record.PublicKey, err error) error {
	n.mu.Lock()
	fault := n.faults[peer.PeerID()]
	n.mu.Unlock()
	if !errors.Is(err, errNotConnected) || fault == "" {
		return err
	}
	return fmt.Errorf("%w: %s", err, fault)
}

// askProgress puts one question.
func (n *Node) askProgress(ctx context.Context, s *session, question []byte, count int) (Progress, error) {
	select {
	case s.progressAsks <- struct{}{}:
		defer func() { <-s.progressAsks }()
	case <-ctx.Done():
		return Progress{}, errNoAnswer
	}
	f, done, err := n.openStream(ctx, s, protoSync)
	if err != nil {
		return Progress{}, err
	}
	defer done()
	if err := f.write(frameProgress, question); err != nil {
		return Progress{}, err
	}
	for {
		kind, payload, err := f.read(helloTimeout)
		if err != nil {
			return Progress{}, errNoAnswer
		}
		if kind == frameProgress {
			p, err := parseAnswer(payload, count)
			n.blame(s, err)
			return p, err
		}
	}
}

// serveProgress answers a question, when all has come about or cannot, or after a while as it stands. The pauses grow
// with the time that has passed, so that what is quick is told at once and what is slow costs little.
func (n *Node) serveProgress(ctx context.Context, s *session, f *frames, payload []byte) error {
	want, of, err := parseQuestion(payload)
	if err != nil {
		return err
	}
	began := time.Now()
	for {
		p := n.o.Progress(s.key, of, want)
		passed := time.Since(began)
		if p.decided(want) || passed >= progressHold || !wait(ctx, max(passed/10, progressLeast)) {
			return f.write(frameProgress, encodeAnswer(p))
		}
	}
}

// need has a peer dialled until release is called, even if there are too many members to dial all of them.
func (n *Node) need(peer record.PublicKey) (release func()) {
	n.mu.Lock()
	n.needed[peer]++
	n.mu.Unlock()
	ring(n.dialBell)
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.needed[peer]--; n.needed[peer] == 0 {
			delete(n.needed, peer)
		}
	}
}

func encodeQuestion(want Stage, of []Placed) []byte {
	b := []byte{byte(want)}
	for _, p := range of {
		b = appendBlob(p.Version.Append(b), []byte(p.Path))
	}
	return b
}

func parseQuestion(b []byte) (want Stage, of []Placed, err error) {
	r := wireReader{b: b}
	if want = Stage(r.u8()); want > StageTriggered {
		r.fail("unknown stage %d", want)
	}
	for len(r.b) > 0 && r.err == nil {
		p := Placed{Version: r.version(), Path: string(r.blob(record.MaxPath))}
		if r.err == nil && record.CheckPath(p.Path) != nil {
			r.fail("invalid path")
		}
		if of = append(of, p); len(of) > maxPlaced {
			r.fail("more than %d versions", maxPlaced)
		}
	}
	return want, of, r.end()
}

func encodeAnswer(p Progress) []byte {
	b := appendBlob(nil, []byte(p.Fault[:min(len(p.Fault), maxFault)]))
	for _, r := range p.Of {
		flags := byte(r.Stage)
		if r.Unmirrored {
			flags |= flagUnmirrored
		}
		b = r.Shown.Append(append(b, flags))
	}
	return b
}

// parseAnswer reads the answer to a question about so many versions.
func parseAnswer(b []byte, count int) (p Progress, err error) {
	r := wireReader{b: b}
	p.Fault = visible(r.blob(maxFault))
	for range count {
		flags := r.u8()
		if flags&^flagUnmirrored > byte(StageTriggered) {
			r.fail("unknown flags %#x", flags)
		}
		p.Of = append(p.Of, Reached{Stage: Stage(flags &^ flagUnmirrored), Unmirrored: flags&flagUnmirrored != 0, Shown: r.version()})
	}
	return p, r.end()
}
