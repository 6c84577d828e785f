// Package p2p connects agents: it finds peers, admits members, and moves blocks, entries and policies between replicas.
// It is the only importer of libp2p beyond its key and peer ID types, and knows the store only as a Replica.
//
// # The data's way
//
//	New         host on TCP and QUIC; everybody is refused until Run brings the replica and with it the policy
//	gater       members, and pinned bootstrap peers, who while they are no members get hello and policies only
//	dial        every known member and bootstrap address that is not connected is dialled, for ever, full jitter
//	session     one per connected peer: policies are swapped, then one control stream stays open: digests, addresses, pings
//	sync        another digest than ours -> our vector goes to one such peer at a time, which streams what we lack in
//	            ascending height -> Replica.Ingest, batch by batch. What it lacks, it pulls from us in the same way
//	entry       Replica.Wants -> one of the peers that may have them -> Replica.Answered; and pushes of fresh entries
//	topic       own fresh blocks with the entries that every member may read -> gossipsub -> Replica.Ingest
//
// Gossip and pushes are hints that save time: they may be lost, doubled, reordered. Sync is the guarantee.
//
// # Streams
//
// A stream is frames: type(u8) length(u32, at most 1 MiB) payload. Both sides begin with hello: network, highest format
// known, agent time, store, version, name, signed address record. Frames of unknown type are skipped. Whoever opens a
// stream asks, the other answers:
//
//	policy   have (hashes)          -> policies that the asker lacks, have; then the asker gives what the other lacks
//	sync     peers, digest, ping    -> digest, pong                        control, kept open
//	sync     vector*, pull          -> vector*, parcels*, done (digest)    what the asker lacks
//	sync     ask (block digests)    -> parcels*, done                      these blocks and some ancestors
//	sync     stored                 -> stored (1 or 0)                     whether a write is there as a whole, repeated
//	sync     heads                  -> heads, done (with a count: how many of the asker's heads are unknown)
//	entry    wants                  -> answers*, in order
//	entry    push (parcels)         -> nothing
//
// A parcel is a block with the entries that the receiver may read, or entries alone. Parcels, vectors, answers and
// policies are compressed by zstd. A message on the topic is nonce[8] and uncompressed parcels, each with its block.
//
// # Bounds
//
// Every queue, frame, list, wait and number of streams has a limit. Over the limit means slower: the stream or the
// message is dropped and sync brings later what it held. Bytes from outside can end a stream, never more.
// No method of Node blocks on the network except New, Run and Close.
package p2p
