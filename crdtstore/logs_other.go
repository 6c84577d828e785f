//go:build !linux

package crdtstore

import "os"

func datasync(f *os.File) error { return f.Sync() }
