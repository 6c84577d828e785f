//go:build race

package crdtstore

const raceEnabled = true
