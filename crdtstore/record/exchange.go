package record

// Position is one line of a vector: the last block held of one origin's incarnation. Blocks are accepted in sequence,
// so it stands for all blocks before it too.
type Position struct {
	Origin      PublicKey
	Incarnation uint64
	Seq         uint64
	Mark        [8]byte // first bytes of the digest of block Seq; tells forks apart
}

// Want names an entry that an agent lacks: where it belongs and what it is. Whoever serves it checks the right on the
// entry's own path.
type Want struct {
	PathKey Tag
	Version Version
	Entry   ID
}

// ChunkWant names a chunk that an agent lacks, by a slot whose value it is a part of. Whoever serves it checks the right
// on that slot's entry. Its Answer has the chunk's bytes in place of an entry.
type ChunkWant struct {
	PathKey Tag
	Version Version
	Chunk   ID
}

// Parcel is a block on its way with the entries that its receiver may read.
type Parcel struct {
	Block   []byte
	Entries [][]byte // entries or stubs
}

// Answer says what became of a Want.
type Answer struct {
	Status AnswerStatus
	Entry  []byte // for Here: the entry; for HereStub: its stub
}

// AnswerStatus is the outcome of asking for an entry.
type AnswerStatus uint8

// The outcomes of asking for an entry. NotHere and Denied are both a back-off, nothing more.
const (
	NotHere  AnswerStatus = 0
	Here     AnswerStatus = 1
	HereStub AnswerStatus = 2
	Denied   AnswerStatus = 3
)

// Ingested says what became of delivered parcels.
type Ingested struct {
	New     int      // blocks that were new and are committed
	Missing []Digest // blocks to ask the sender for: others of its blocks name them
	Delayed int      // blocks left out because the sender opens too many chains: they are to be had again later
	Invalid error    // set if a block or entry was malformed or broke the block rule: the sender is faulty
}

// Rights are the questions that the network layer asks the policy.
type Rights interface {
	Member(k PublicKey) bool              // may replicate
	MayRead(k PublicKey, tags []Tag) bool // may be sent the entry of a slot with these tags
	MembersMayRead(tags []Tag) bool       // every member may: the entry can go on the topic
	Alias(k PublicKey) string             // empty if the policy does not name it
	Members() []PublicKey                 // all of them
	SameReads(a, b PublicKey) bool        // both may read the same
	Serial() uint64
	Hash() [32]byte // of the text
}

// Outgoing is a block of our own that was made durable, to be announced with its entries.
type Outgoing struct {
	Block   []byte
	Entries []OutgoingEntry
}

// OutgoingEntry is an entry with the tags that say who may read it.
type OutgoingEntry struct {
	Tags  []Tag
	Bytes []byte
}
