package crdtstore

import "syncagent/crdtstore/record"

// pathIndex tells which paths have no slots yet, so that a put to a new path reads nothing: looking for rows that are
// not there is the dearest read of the store. It holds 8 bytes of each path key in memory, some 15 MB for a million
// paths. Two paths that share them cost a needless read, nothing else.
//
// It is filled in the background at start. Until then every path may have slots.
type pathIndex struct {
	known   map[uint64]struct{} // nil until filled
	pending []uint64            // added before it was filled
	filled  chan map[uint64]struct{}
}

func newPathIndex() *pathIndex { return &pathIndex{filled: make(chan map[uint64]struct{}, 1)} }

// fill reads all path keys from a view and hands them over. It runs beside the owner.
func (x *pathIndex) fill(v view, stop <-chan struct{}) error {
	defer v.Close()
	known := make(map[uint64]struct{})
	n := 0
	err := v.Scan([]byte{'s'}, nil, false, func(k, _ []byte) (bool, error) {
		known[be.Uint64(k[1:])] = struct{}{}
		if n++; n%1024 == 0 {
			select {
			case <-stop:
				return false, nil
			default:
			}
		}
		return true, nil
	})
	if err == nil {
		x.filled <- known
	}
	return err
}

func (x *pathIndex) add(path record.Tag) {
	h := be.Uint64(path[:])
	if x.known == nil {
		x.pending = append(x.pending, h)
		return
	}
	x.known[h] = struct{}{}
}

// isNew tells whether the path certainly has no slots.
func (x *pathIndex) isNew(path record.Tag) bool {
	if x.known == nil {
		select {
		case x.known = <-x.filled:
			for _, h := range x.pending {
				x.known[h] = struct{}{}
			}
			x.pending = nil
		default:
			return false
		}
	}
	_, ok := x.known[be.Uint64(path[:])]
	return !ok
}
