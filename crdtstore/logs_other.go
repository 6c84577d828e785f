//go:build !linux

package crdtstore

import "os"

func datasync(f *os.File) error { return f.Sync() }

// arrivals cannot tell on this system whether files have appeared in a directory.
type arrivals struct{}

func watchArrivals(string) *arrivals { return nil }

func (*arrivals) none() bool { return false }
func (*arrivals) close()     {}
