package mirror

import (
	"errors"
	"sync"
)

// syncers is how many files are synced at the same time: the file system commits them together.
const syncers = 8

// syncPool syncs and closes files, several at a time.
type syncPool struct {
	files chan file
	wg    sync.WaitGroup

	mu  sync.Mutex
	err error
}

func newSyncPool() *syncPool {
	p := &syncPool{files: make(chan file)}
	for range syncers {
		p.wg.Go(p.work)
	}
	return p
}

func (p *syncPool) work() {
	for f := range p.files {
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			p.mu.Lock()
			p.err = errors.Join(p.err, err)
			p.mu.Unlock()
		}
	}
}

func (p *syncPool) sync(f file) { p.files <- f }

// wait gives the joined errors of all files.
func (p *syncPool) wait() error {
	close(p.files)
	p.wg.Wait()
	return p.err
}
