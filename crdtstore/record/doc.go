// Package record holds the formats of syncagent: entries, writes, bundles, blocks, paths and clocks.
//
// Everything here is pure: strict parsers, writers and checks over bytes, without clock, randomness, disk or network.
// What is signed is what is sent, so no parser accepts two encodings of one value: minimal varints, no trailing bytes,
// unknown magic, kind or flag is an error. A value that Parse accepted encodes to the same bytes.
//
// The layouts are described in ARCHITECTURE.md, "Formats". They are frozen: two agents that disagree about what is
// valid would split the fleet for good.
package record

// Format is the highest number of these layouts that this program reads and writes. A policy says which one a network
// writes.
const Format = 1
