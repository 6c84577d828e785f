//go:build !faults

package crdtstore

// plantedCommit stands where a fault tears a turn's commit apart.
func (t *turn) plantedCommit() error { return nil }
