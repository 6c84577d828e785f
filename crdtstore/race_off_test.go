//go:build !race

package crdtstore

// raceEnabled says that the race detector is on: everything takes some ten times as long.
const raceEnabled = false
