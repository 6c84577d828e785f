// Package crdtstore is one agent's replica: the blocks of the Merkle-CRDT, the entries that the agent may read, and the
// view of them. It is the only importer of go-ds-crdt, go-datastore and badger.
//
// # How to use it
//
// Open a store, run Run in a goroutine, Close it after Run returned. Write stores an atomic write and returns when it
// is on disk. Snapshot reads one consistent state, Watch tells of changes and resumes from a cursor. The methods named
// in p2p.Replica exchange blocks, entries and policies with other agents.
//
// # How it works
//
// One goroutine owns the store and works in turns (step.go): it takes what is waiting, finds what follows from it
// (turn.go, settle.go, and the pure core in resolve.go), commits everything at one go, and only then tells
// anybody. go-ds-crdt runs on an overlay in memory (engine.go, overlay.go) and is fed parents first. rows.go lists the rows.
//
// Values over 256 KiB lie in files beside the rows (chunkfiles.go). Their callers and a goroutine of their own
// (chunkturn.go) do all work with files; the owner only counts which chunks the slots use (chunks.go).
//
// # Guarantees
//
// G1 to G7, G10 and G12 of ARCHITECTURE.md. A write that returned survives a power cut. The view is a function of
// blocks, policy and time. Every value that is read is checked against its hash.
//
// # What may block
//
// Write, Ingest, Answered and SetPolicy wait for a turn and for the disk; all end with their context. Reads never wait
// for writes. Open takes a few seconds for millions of rows. When a turn cannot be committed, Run returns the error,
// and the store must be opened anew.
package crdtstore
