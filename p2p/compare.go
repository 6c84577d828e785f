package p2p

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"syncagent/crdtstore/record"
)

// A comparison goes over what two members show and both may read. Paths fall into buckets by their path keys; each side
// says of every bucket how many entries it holds and a sum over their versions, and of the buckets that differ it then
// tells paths and versions. So it costs two round trips and a look at every entry, however they differ.
const (
	buckets        = 4096
	bucketSize     = 4 + 16
	compareTimeout = 30 * time.Second // for the other side to go over its entries
	maxListed      = 200_000          // entries told of the buckets that differ, about
	listedTarget   = 256 << 10        // bytes in a frame, before compression
	comparedBytes  = 64               // that an entry counts for in a peer's budget
)

// Shown is an entry that an agent shows.
type Shown struct {
	Path    string
	Version record.Version
}

// Difference is a path at which two agents show different versions; zero: nothing is shown there.
type Difference struct {
	Path        string
	Here, There record.Version
}

// Comparison is what a comparison with a peer came to.
type Comparison struct {
	SameBlocks, SamePolicy bool
	Settled                bool         // on both sides: nothing is missing, or waits to be judged
	Here, There            int64        // entries that were compared
	Withheld               int64        // entries shown here that the peer may not read
	Paths                  []Difference // in order
	More                   bool         // there are more
}

// bucket sums up some entries.
type bucket struct {
	count uint32
	sum   [16]byte
}

// shownBuckets sums up what is shown here and reader may read.
type shownBuckets struct {
	note     viewNote
	of       [buckets]bucket
	withheld int64
}

func (n *Node) bucketOf(path string) (i int, k record.Tag) {
	k = n.o.Network.PathKey(path)
	return int(binary.BigEndian.Uint16(k[:]) >> 4), k
}

func (n *Node) sumUp(reader record.PublicKey) (b *shownBuckets, err error) {
	b = &shownBuckets{note: n.viewNote()}
	b.withheld, err = n.o.Listing(reader, func(e Shown) error {
		i, k := n.bucketOf(e.Path)
		h := sha256.Sum256(e.Version.Append(k[:]))
		b.of[i].count++
		for j := range b.of[i].sum {
			b.of[i].sum[j] ^= h[j]
		}
		return nil
	})
	return b, err
}

func (b *shownBuckets) encode() []byte {
	out := b.note.encode()
	for i := range b.of {
		out = append(be.AppendUint32(out, b.of[i].count), b.of[i].sum[:]...)
	}
	return compress(out)
}

func parseBuckets(payload []byte) (*shownBuckets, error) {
	raw, err := decompress(payload)
	if err != nil {
		return nil, err
	}
	if len(raw) < buckets*bucketSize {
		return nil, frameError("buckets of %d bytes", len(raw))
	}
	split := len(raw) - buckets*bucketSize
	b := &shownBuckets{}
	if b.note, err = parseViewNote(raw[:split]); err != nil {
		return nil, err
	}
	r := wireReader{b: raw[split:]}
	for i := range b.of {
		b.of[i].count = be.Uint32(r.bytes(4))
		copy(b.of[i].sum[:], r.bytes(16))
	}
	return b, r.end()
}

// serveCompare answers one step of a comparison, the buckets or what is in some of them: one of a peer at a time.
func (n *Node) serveCompare(ctx context.Context, s *session, f *frames, payload []byte) error {
	seen := 0
	err := oneAtATime(ctx, s.comparing, func() (err error) {
		seen, err = n.answerCompare(s, f, payload)
		return err
	})
	n.spend(ctx, s, seen*comparedBytes) // it has its answer, and is held up before it asks again
	return err
}

// answerCompare tells how many entries it went over. Nobody else's comparison goes over them meanwhile, but while this one
// waits for its reader.
func (n *Node) answerCompare(s *session, f *frames, payload []byte) (seen int, err error) {
	n.comparing <- struct{}{}
	defer func() { <-n.comparing }()
	write := func(kind byte, payload []byte) error {
		<-n.comparing
		defer func() { n.comparing <- struct{}{} }()
		return f.write(kind, payload)
	}
	if len(payload) == 0 {
		b, err := n.sumUp(s.key)
		if err != nil {
			return 0, err
		}
		seen = int(b.withheld)
		for i := range b.of {
			seen += int(b.of[i].count)
		}
		return seen, write(frameCompare, b.encode())
	}
	if len(payload) != buckets/8 {
		return 0, frameError("choice of buckets of %d bytes", len(payload))
	}
	var part []byte
	flush := func() error {
		err := write(frameListed, compress(part))
		part = part[:0]
		return err
	}
	withheld, err := n.o.Listing(s.key, func(e Shown) error {
		seen++
		if i, _ := n.bucketOf(e.Path); payload[i/8]&(1<<(i%8)) == 0 {
			return nil
		}
		part = appendBlob(e.Version.Append(part), []byte(e.Path))
		if len(part) < listedTarget {
			return nil
		}
		return flush()
	})
	seen += int(withheld)
	if err == nil {
		err = flush()
	}
	if err != nil {
		return seen, err
	}
	return seen, write(frameDone, nil)
}

func parseListed(payload []byte) (list []Shown, err error) {
	raw, err := decompress(payload)
	if err != nil {
		return nil, err
	}
	r := wireReader{b: raw}
	for len(r.b) > 0 && r.err == nil {
		e := Shown{Version: r.version(), Path: string(r.blob(record.MaxPath))}
		if r.err == nil && record.CheckPath(e.Path) != nil {
			r.fail("invalid path")
		}
		list = append(list, e)
	}
	return list, r.end()
}

// Compare tells where a connected peer shows something else than this agent, among what both may read by the policies of
// both sides. What changes meanwhile may be told as a difference.
func (n *Node) Compare(ctx context.Context, peer record.PublicKey) (c Comparison, err error) {
	s := n.session(peer.PeerID())
	if s == nil || s.standing != member {
		return c, errNotConnected
	}
	ours, err := n.sumUp(peer)
	if err != nil {
		return c, err
	}
	f, done, err := n.openStream(ctx, s, protoSync)
	if err != nil {
		return c, err
	}
	defer done()
	defer func() { n.blame(s, err) }()
	if err := f.write(frameCompare, nil); err != nil {
		return c, err
	}
	payload, err := readCompared(f, frameCompare)
	if err != nil {
		return c, err
	}
	theirs, err := parseBuckets(payload)
	if err != nil {
		return c, err
	}
	c = Comparison{SameBlocks: ours.note.Blocks == theirs.note.Blocks, SamePolicy: ours.note.Policy == theirs.note.Policy,
		Settled: ours.note.Settled && theirs.note.Settled, Withheld: ours.withheld}
	choice := make([]byte, buckets/8)
	listed := 0
	for i := range ours.of {
		c.Here, c.There = c.Here+int64(ours.of[i].count), c.There+int64(theirs.of[i].count)
		switch {
		case ours.of[i] == theirs.of[i]:
		case listed > maxListed:
			c.More = true
		default:
			choice[i/8] |= 1 << (i % 8)
			listed += int(max(ours.of[i].count, theirs.of[i].count))
		}
	}
	if listed > 0 {
		c.Paths, err = n.listDifferences(f, peer, choice)
	}
	return c, err
}

// listDifferences compares the chosen buckets path by path.
func (n *Node) listDifferences(f *frames, peer record.PublicKey, choice []byte) (found []Difference, err error) {
	chosen := func(path string) bool { i, _ := n.bucketOf(path); return choice[i/8]&(1<<(i%8)) != 0 }
	if err := f.write(frameCompare, choice); err != nil {
		return nil, err
	}
	here := map[string]record.Version{}
	if _, err := n.o.Listing(peer, func(e Shown) error {
		if chosen(e.Path) {
			here[e.Path] = e.Version
		}
		return nil
	}); err != nil {
		return nil, err
	}
	for total := 0; ; {
		payload, err := readCompared(f, frameListed)
		if err != nil {
			return nil, err
		}
		if payload == nil {
			break
		}
		list, err := parseListed(payload)
		if err != nil {
			return nil, err
		}
		if total += len(list); total > 4*maxListed {
			return nil, frameError("more entries than were asked for")
		}
		for _, e := range list {
			if v, ok := here[e.Path]; !ok || v != e.Version {
				found = append(found, Difference{Path: e.Path, Here: v, There: e.Version})
			}
			delete(here, e.Path)
		}
	}
	for path, v := range here {
		found = append(found, Difference{Path: path, Here: v})
	}
	slices.SortFunc(found, func(a, b Difference) int { return strings.Compare(a.Path, b.Path) })
	return found, nil
}

// readCompared waits for a frame of a comparison, nil at its end.
func readCompared(f *frames, want byte) ([]byte, error) {
	for {
		kind, payload, err := f.read(compareTimeout)
		switch {
		case errors.Is(err, errFrame):
			return nil, err
		case err != nil:
			return nil, errNoAnswer
		case kind == frameRefuse:
			return nil, fmt.Errorf("%w: %s", errRefused, visible(payload[:min(len(payload), 200)]))
		case kind == frameDone:
			return nil, nil
		case kind == want:
			return bytes.Clone(payload), nil
		}
	}
}
