package agent

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
)

// A client that signs a large value itself sends its write last: that names the chunks of what it sent. Callers need no
// rights for that, the author does. So the client shows first whose key it has; without that any caller could hold the
// agent's disk, and its places for uploads, with values that are never written.

const (
	permitContext = "syncagent upload v1\n"
	permitFits    = 10 * time.Minute // between its time and the agent's
)

func permitFor(key ed25519.PrivateKey, network record.NetworkID, path string, hlc record.HLC) *apiv1.UploadPermit {
	return &apiv1.UploadPermit{
		Author: record.KeyOf(key).String(), Hlc: hlc.String(),
		Signature: record.Sign(key, permitContext, network, permitHash(path, hlc)),
	}
}

func permitHash(path string, hlc record.HLC) [32]byte {
	return sha256.Sum256(append(binary.BigEndian.AppendUint64(nil, uint64(hlc)), path...))
}

// permitted tells a client that signs for itself whether its value may come.
func (k *kv) permitted(path string, p *apiv1.UploadPermit) error {
	author, err := record.ParsePublicKey(p.GetAuthor())
	if err != nil {
		return badRequest("permit: author: %v", err)
	}
	hlc, err := record.ParseHLC(p.GetHlc())
	if err != nil {
		return badRequest("permit: hlc: %v", err)
	}
	if !author.Verify(permitContext, k.network, permitHash(path, hlc), p.GetSignature()) {
		return badRequest("permit: the author's signature does not fit")
	}
	inForce := k.store.Policy()
	if inForce == nil {
		return crdtstore.ErrNoPolicy
	}
	if !inForce.MayWritePath(author, path) {
		return fmt.Errorf("write %s by %s: %w", path, author, crdtstore.ErrDenied)
	}
	now, err := k.store.HLCFor([]string{path})
	if err == nil && now.Time().Sub(hlc.Time()).Abs() > permitFits {
		err = badRequest("permit: its time is not this agent's; ask Clock")
	}
	return err
}
