package p2p

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	envelope "github.com/libp2p/go-libp2p/core/record"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	maxBook       = 2048 // peers
	maxAddrs      = 16   // addresses of one peer
	maxBookOnDisk = maxBook * maxAddrRecord * 2
)

// book holds the newest signed address record of each known peer, ours too. It is kept in a file.
type book struct {
	mu    sync.Mutex
	peers map[peer.ID]addrRecord
	dirty bool
	file  string // empty: memory only
}

// addrRecord is a verified address record.
type addrRecord struct {
	signed []byte
	seq    uint64
	addrs  []ma.Multiaddr
}

// bookFile is the layout of the file. The records prove themselves.
type bookFile struct {
	Records [][]byte `json:"records"`
}

// openBook reads the file. One that is missing or damaged is an empty book: addresses can be learned again.
func openBook(file string) (*book, error) {
	b := &book{peers: map[peer.ID]addrRecord{}, file: file}
	if file == "" {
		return b, nil
	}
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return b, fmt.Errorf("read known peers: %w", err)
	}
	var f bookFile
	if len(raw) > maxBookOnDisk {
		return b, fmt.Errorf("read known peers: %s is too large", file)
	}
	if err := json.Unmarshal(raw, &f); err != nil {
		return b, fmt.Errorf("read known peers: %s: %w", file, err)
	}
	for _, r := range f.Records {
		_, _, _ = b.add(r) // one bad record does not spoil the others
	}
	b.dirty = false
	return b, nil
}

// openRecord verifies a signed address record.
func openRecord(signed []byte) (peer.ID, addrRecord, error) {
	if len(signed) > maxAddrRecord {
		return "", addrRecord{}, frameError("address record of %d bytes", len(signed))
	}
	var r peer.PeerRecord
	env, err := envelope.ConsumeTypedEnvelope(signed, &r)
	if err != nil {
		return "", addrRecord{}, frameError("address record: %v", err)
	}
	if !r.PeerID.MatchesPublicKey(env.PublicKey) {
		return "", addrRecord{}, frameError("address record is signed by another key")
	}
	if len(r.Addrs) > maxAddrs {
		r.Addrs = r.Addrs[:maxAddrs]
	}
	return r.PeerID, addrRecord{signed: bytes.Clone(signed), seq: r.Seq, addrs: r.Addrs}, nil
}

// add takes a record if it is newer than the one held. New tells whether it was.
func (b *book) add(signed []byte) (id peer.ID, isNew bool, err error) {
	id, r, err := openRecord(signed)
	if err != nil {
		return "", false, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	old, known := b.peers[id]
	if known && old.seq >= r.seq || !known && len(b.peers) >= maxBook {
		return id, false, nil
	}
	b.peers[id] = r
	b.dirty = true
	return id, true, nil
}

func (b *book) get(id peer.ID) (addrRecord, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r, ok := b.peers[id]
	return r, ok
}

// signOwn makes and keeps a record of our own addresses, newer than the one before even if the clock was set back.
func (b *book) signOwn(key ed25519.PrivateKey, self peer.ID, addrs []ma.Multiaddr) error {
	if len(addrs) > maxAddrs {
		addrs = addrs[:maxAddrs]
	}
	old, known := b.get(self)
	if known && sameAddrs(old.addrs, addrs) {
		return nil
	}
	priv, err := crypto.UnmarshalEd25519PrivateKey(key)
	if err != nil {
		return fmt.Errorf("sign address record: %w", err)
	}
	r := &peer.PeerRecord{PeerID: self, Addrs: addrs, Seq: max(uint64(time.Now().UnixNano()), old.seq+1)}
	env, err := envelope.Seal(r, priv)
	if err != nil {
		return fmt.Errorf("sign address record: %w", err)
	}
	signed, err := env.Marshal()
	if err != nil {
		return fmt.Errorf("sign address record: %w", err)
	}
	_, _, err = b.add(signed)
	return err
}

func sameAddrs(a, b []ma.Multiaddr) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !a[i].Equal(b[i]) {
			return false
		}
	}
	return true
}

// forget drops all peers but those to keep.
func (b *book) forget(keep func(peer.ID) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id := range b.peers {
		if !keep(id) {
			delete(b.peers, id)
			b.dirty = true
		}
	}
}

// save writes the file if anything changed: a temporary file, renamed, so that a crash leaves the old one. It is not
// fsynced: what is lost can be learned again.
func (b *book) save() error {
	b.mu.Lock()
	if !b.dirty || b.file == "" {
		b.mu.Unlock()
		return nil
	}
	b.dirty = false
	f := bookFile{Records: make([][]byte, 0, len(b.peers))}
	for _, r := range b.peers {
		f.Records = append(f.Records, r.signed)
	}
	b.mu.Unlock()

	err := writeFile(b.file, f)
	if err != nil {
		b.mu.Lock()
		b.dirty = true
		b.mu.Unlock()
		return fmt.Errorf("write known peers: %w", err)
	}
	return nil
}

func writeFile(name string, f bookFile) error {
	raw, err := json.MarshalIndent(f, "", " ")
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*") // mode 0600
	if err != nil {
		return err
	}
	_, err = tmp.Write(raw)
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}
