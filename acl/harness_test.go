package acl

import (
	"crypto/ed25519"
	"crypto/sha256"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"syncagent/crdtstore/record"
)

var seedFlag = flag.Uint64("seed", 0, "seed of random tests; 0 takes the time")

// newRand gives a source whose seed a failing test prints.
func newRand(t *testing.T) *rand.Rand {
	t.Helper()
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("run again with -seed %d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 0))
}

var keyPairs sync.Map // by name: making them takes most of the tests' time

// private makes the key pair that belongs to a name in tests.
func private(name string) ed25519.PrivateKey {
	if k, ok := keyPairs.Load(name); ok {
		return k.(ed25519.PrivateKey)
	}
	seed := sha256.Sum256([]byte(name))
	k := ed25519.NewKeyFromSeed(seed[:])
	keyPairs.Store(name, k)
	return k
}

func key(name string) record.PublicKey { return record.KeyOf(private(name)) }

var testNetwork = record.Genesis{Nonce: [32]byte{1}, Admins: []record.PublicKey{key("admin")}}.ID()

// fill replaces $name by the peer ID of name, so that tables stay readable.
func fill(text string) string {
	var b strings.Builder
	for {
		i := strings.IndexByte(text, '$')
		if i < 0 {
			return b.String() + text
		}
		end := i + 1
		for end < len(text) && isAlphanumeric(text[end]) {
			end++
		}
		b.WriteString(text[:i])
		b.WriteString(key(text[i+1 : end]).String())
		text = text[end:]
	}
}

func header(serial int) string {
	return fmt.Sprintf("syncagent-policy 1\nnetwork %s\nserial %d\n", testNetwork, serial)
}

// signed makes a signed policy of a text without header.
func signed(t testing.TB, serial int, text string) *Signed {
	t.Helper()
	s, err := ParseSigned(Sign([]byte(header(serial)+fill(text)), testNetwork, private("admin")))
	if err != nil {
		t.Fatalf("policy: %v", err)
	}
	return s
}

// policy compiles a text without header.
func policy(t testing.TB, text string) *Policy {
	t.Helper()
	s := signed(t, 1, text)
	return Compile(testNetwork, s, []*Signed{s})
}

func mustParse(t testing.TB, text string) *File {
	t.Helper()
	f, err := Parse([]byte(fill(text)))
	if err != nil {
		t.Fatalf("parse: %v", err)
	}
	return f
}

// may tells what k may do at path, as r and w, asked by tags and by path: both must agree.
func may(t testing.TB, p *Policy, k record.PublicKey, path string) string {
	t.Helper()
	tags := testNetwork.Tags(path)
	r, w := p.MayRead(k, tags), p.MayWrite(k, tags)
	if r != p.MayReadPath(k, path) || w != p.MayWritePath(k, path) {
		t.Errorf("%s: judged by tags (read %v, write %v) and by path differently", path, r, w)
	}
	s := ""
	if r {
		s = "r"
	}
	if w {
		s += "w"
	}
	return s
}

func version(ms int64, write string, index uint16) record.Version {
	return record.Version{HLC: record.HLCFromMilli(ms), Write: sha256.Sum256([]byte(write)), Index: index}
}
