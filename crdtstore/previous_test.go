package crdtstore

import (
	"archive/tar"
	"compress/gzip"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestStoreOfThePreviousVersion holds that a data directory of the version before this one opens, shows what it showed,
// and takes part: an upgrade is a restart. The name is part of the network ID in testdata.
func TestStoreOfThePreviousVersion(t *testing.T) {
	dir := t.TempDir()
	unpack(t, "testdata/store-0.tar.gz", dir)
	n := newTestNet(t, 1)
	a := n.startOn("a", nil, dir)
	const tree = "/certs/ca= /certs/web/tls.crt=crt /certs/web/tls.key=key /config/app=second /expires=e /from/b=b /large="
	if got := a.tree(); got != tree+strings.Repeat("0123456789abcdef", 15000)+" " {
		t.Errorf("shows %.200q", got)
	}
	st := a.Stats()
	const digest = "e8f8e48fed81ec4d8fd57eccb3062f0dfab24ecd6afde8512a67b047ced1d43e"
	if got := hex.EncodeToString(st.ViewDigest[:]); got != digest || st.Blocks != 9 || st.Serial != 2 {
		t.Errorf("view digest %s, %d blocks, policy %d", got, st.Blocks, st.Serial)
	}
	a.put("/config/app", "third")
	b := n.start("b", nil)
	b.apply(a.Policies()[0])
	meet(a, b)
	if b.tree() != a.tree() || b.get("/config/app") != "third" {
		t.Errorf("a new agent shows %.200q", b.tree())
	}
}

// TestStoreOfALaterVersionIsRefused holds that a downgrade is refused with words, and touches nothing.
func TestStoreOfALaterVersionIsRefused(t *testing.T) {
	n := newTestNet(t, 1)
	disk := newMemKV()
	a := n.start("a", disk)
	a.stop()
	v := disk.View()
	id, _, err := v.Get(identityKey)
	v.Close()
	if err != nil {
		t.Fatal(err)
	}
	later := newRows()
	later.set(identityKey, append([]byte{0, 0, 0, storeVersion + 1}, id[4:]...))
	if err := disk.Commit(later); err != nil {
		t.Fatal(err)
	}
	o := n.options("a")
	o.kv, o.chunks = disk, disk.chunks
	_, err = Open(o)
	if !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), "it has version 3, this program knows versions 1 to 2") {
		t.Errorf("opening a store of a later version: %v", err)
	}
}

// unpack writes the files of a .tar.gz below dir.
func unpack(t *testing.T, archive, dir string) {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, filepath.FromSlash(h.Name))
		if h.Typeflag == tar.TypeDir {
			err = os.MkdirAll(name, 0o700)
		} else {
			var data []byte
			if data, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(name, data, 0o600)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
