//go:build !faults

package crdtstore

// fail marks a step of the store at which a test lets the process die. In normal builds it does nothing.
func fail(string) {}

// planted tells whether a fault was planted, for the tests of the tests. In normal builds there is none.
func planted(string) bool { return false }

// plantedCommit stands where a fault tears a turn's commit apart.
func (t *turn) plantedCommit() error { return nil }
