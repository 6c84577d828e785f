package p2p

import (
	"context"
	"time"

	"syncagent/crdtstore/record"
)

// Replica is what the network layer needs of the store. crdtstore.Store is one; tests have a map.
// All methods are safe for concurrent use. Byte slices that come back are read only.
type Replica interface {
	// BlockDigest is the SHA-256 of the heads' digests in ascending order: equal means the same blocks.
	BlockDigest() [32]byte
	// View is a digest of all that the replica shows; settled if nothing of it is still missing or to be judged.
	View() (digest [32]byte, settled bool)
	// Heads gives the blocks that no held block links to, ascending.
	Heads() []record.Digest
	// Vector says which blocks are held, one position per origin and incarnation.
	Vector() []record.Position
	// Lacks gives those of the blocks that are not held.
	Lacks(blocks []record.Digest) ([]record.Digest, error)
	// Missing calls send for every held block that the vector lacks, in ascending height, each with the entries it
	// holds and reader may read. Parcels may be reused after send returns. An error of send ends it and is returned.
	Missing(ctx context.Context, have []record.Position, reader record.PublicKey, send func(record.Parcel) error) error
	// Ancestors does the same for the named blocks and up to 64 ancestors of each, as far as they are held.
	Ancestors(ctx context.Context, of []record.Digest, reader record.PublicKey, send func(record.Parcel) error) error
	// Ingest takes blocks and entries that from delivered and waits until they are committed, parked or refused.
	// Parcels without a block bring entries alone.
	Ingest(ctx context.Context, from record.PublicKey, parcels []record.Parcel) (Ingested, error)
	// Check is the first half of Ingest, and take the second, so that the one can be done while the other goes on for what
	// came before. It waits for nobody.
	Check(from record.PublicKey, parcels []record.Parcel) (take func(context.Context) (Ingested, error), err error)
	// Wants gives up to limit entries to ask this peer for now, best first: only such as the peer may read. What was
	// given is not given again before it was answered by Answered or a few seconds have passed.
	Wants(peer record.PublicKey, limit int) []record.Want
	// Answered brings a peer's answers to wants, in the same order.
	Answered(ctx context.Context, from record.PublicKey, wants []record.Want, answers []record.Answer) error
	// Serve answers another agent's wants. It checks the read right on the entry's own path.
	Serve(reader record.PublicKey, wants []record.Want) []record.Answer
	// ChunkWants gives up to limit chunks of large values to ask this peer for now. What was given is not given again
	// before it came back by TakeChunk or GiveBack, or half a minute has passed.
	ChunkWants(peer record.PublicKey, limit int) []record.ChunkWant
	// TakeChunk brings a peer's answer to a chunk want and returns when the chunk is durable.
	TakeChunk(ctx context.Context, from record.PublicKey, want record.ChunkWant, answer record.Answer) error
	// GiveBack takes back wants that the peer did not answer: others may be asked at once.
	GiveBack(wants []record.ChunkWant)
	// ServeChunk answers another agent's chunk want. It checks the read right on the path of the entry that names it.
	ServeChunk(reader record.PublicKey, want record.ChunkWant) record.Answer
	// Policies gives the signed policy texts to hand on, the one in force first; none if there is no policy yet.
	Policies() [][]byte
	// OfferPolicy takes a signed text from outside. It returns nil for one that is known already or now kept.
	OfferPolicy(ctx context.Context, from record.PublicKey, text []byte) error
	// Rights judges by the policy in force.
	Rights() Rights
	// AgentTime is the clock that the replica stamps with.
	AgentTime() time.Time
	// Incarnation names the store; it changes when a store is lost.
	Incarnation() uint64
}

// Types of the seam that live in record, because the store below fills them too.
type (
	// Ingested says what became of delivered parcels.
	Ingested = record.Ingested
	// Rights are the questions that the network layer asks the policy.
	Rights = record.Rights
	// Outgoing is a durable block of our own.
	Outgoing = record.Outgoing
	// OutgoingEntry is an entry with the tags that say who may read it.
	OutgoingEntry = record.OutgoingEntry
)
