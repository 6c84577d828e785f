package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"syncagent/crdtstore/record"
)

// format names what an import reads.
type format string

const (
	formatDir    format = "dir"
	formatTar    format = "tar"    // perhaps gzipped
	formatJSON   format = "json"   // lines as export writes them
	formatConsul format = "consul" // consul kv export
	formatEtcd   format = "etcd"   // etcdctl get --prefix -w json
)

// copyStream imports a file or stream.
func (i *importer) copyStream(ctx context.Context, r io.Reader, as format, prefix string) error {
	in := bufio.NewReaderSize(r, 1<<16)
	if head, _ := in.Peek(2); bytes.Equal(head, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(in)
		if err != nil {
			return badImport("gzip: %v", err)
		}
		in = bufio.NewReaderSize(z, 1<<16)
	}
	if as == "" {
		if as = guessFormat(in); as == "" {
			return usagef("cannot tell the format of the input").withHint("name it with --format: tar, json, consul or etcd")
		}
	}
	switch as {
	case formatTar:
		return i.copyTar(ctx, tar.NewReader(in), prefix)
	case formatJSON:
		return i.copyLines(ctx, bufio.NewReaderSize(in, shortLine), prefix)
	case formatConsul:
		return i.copyConsul(ctx, json.NewDecoder(in), prefix)
	}
	return i.copyEtcd(ctx, json.NewDecoder(in), prefix)
}

// guessFormat looks at the beginning of the input. An array is Consul's; an object is a line of an export if it says "op".
func guessFormat(in *bufio.Reader) format {
	head, _ := in.Peek(4096)
	if len(head) >= 262 && string(head[257:262]) == "ustar" {
		return formatTar
	}
	switch text := bytes.TrimSpace(head); {
	case bytes.HasPrefix(text, []byte("[")):
		return formatConsul
	case bytes.HasPrefix(text, []byte(`{"op"`)):
		return formatJSON
	case bytes.HasPrefix(text, []byte("{")):
		return formatEtcd
	}
	return ""
}

func badImport(text string, args ...any) *failure {
	return failf(exitUsage, "bad_import", "cannot read the input: "+text, args...)
}

// one imports one value under its name below the prefix.
func (i *importer) one(ctx context.Context, prefix, name string, value io.Reader, mode fs.FileMode) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	at := pathBelow(prefix, strings.TrimPrefix(name, "/"))
	if err := checkWritable(at); err != nil {
		i.skip(at, name, err)
		return nil
	}
	if i.kept[at] { // twice in the input: the later one counts, as when a tar file is unpacked
		if err := i.batch.flush(ctx); err != nil {
			return err
		}
	}
	return i.put(ctx, at, name, value, mode)
}

func (i *importer) copyTar(ctx context.Context, t *tar.Reader, prefix string) error {
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return badImport("tar: %v", err)
		}
		name := path.Clean("/" + h.Name)[1:]
		switch {
		case h.Typeflag == tar.TypeDir, h.Typeflag == tar.TypeXGlobalHeader:
			continue
		case strings.HasPrefix(name, mirrorNames), strings.Contains(name, "/"+mirrorNames):
			continue
		case h.Typeflag != tar.TypeReg:
			i.skip(pathBelow(prefix, name), h.Name, errors.New(kindName(h.FileInfo().Mode().Type())))
			continue
		case h.Size > record.MaxValue:
			i.skip(pathBelow(prefix, name), h.Name, fmt.Errorf("%d bytes, no value can have more than %d", h.Size, record.MaxValue))
			continue
		}
		if err := i.one(ctx, prefix, name, inputValue{t, "tar"}, h.FileInfo().Mode()); err != nil {
			return err
		}
	}
}

// inputValue is a value in a larger input. What is wrong with it is wrong with the whole.
type inputValue struct {
	io.Reader
	of string
}

func (v inputValue) Read(p []byte) (int, error) {
	n, err := v.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = badImport("%s: %v", v.of, err)
	}
	return n, err
}

// copyConsul imports an array of objects with key and base64 value. A key that ends in a slash is a folder of Consul's
// user interface, and has no value.
func (i *importer) copyConsul(ctx context.Context, d *json.Decoder, prefix string) error {
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return badImport("want the array that consul kv export writes")
	}
	for d.More() {
		var pair struct {
			Key   string `json:"key"`
			Value []byte `json:"value"`
		}
		if err := d.Decode(&pair); err != nil {
			return badImport("%v", explainJSON(err).message)
		}
		if strings.HasSuffix(pair.Key, "/") && len(pair.Value) == 0 {
			continue
		}
		if err := i.one(ctx, prefix, pair.Key, bytes.NewReader(pair.Value), 0); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return badImport("it ends in the middle")
	}
	return nil
}

// copyEtcd imports the answer of a range request: an object whose kvs have base64 keys and values.
func (i *importer) copyEtcd(ctx context.Context, d *json.Decoder, prefix string) error {
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return badImport("want the object that etcdctl get -w json writes")
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return badImport("it ends in the middle")
		}
		if key != "kvs" {
			var other json.RawMessage
			if err := d.Decode(&other); err != nil {
				return badImport("it ends in the middle")
			}
			if more, _ := strconv.ParseBool(string(other)); key == "more" && more {
				return badImport("it is a part of the range only: etcdctl get was given a limit")
			}
			continue
		}
		if err := i.copyPairs(ctx, d, prefix); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return badImport("it ends in the middle")
	}
	return nil
}

func (i *importer) copyPairs(ctx context.Context, d *json.Decoder, prefix string) error {
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return badImport("kvs is no array")
	}
	for d.More() {
		var pair struct {
			Key   []byte `json:"key"`
			Value []byte `json:"value"`
		}
		if err := d.Decode(&pair); err != nil {
			return badImport("%v", explainJSON(err).message)
		}
		if err := i.one(ctx, prefix, string(pair.Key), bytes.NewReader(pair.Value), 0); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return badImport("it ends in the middle")
	}
	return nil
}

// openImport opens what is to be imported: a directory as a root, anything else as a stream.
func (c *cli) openImport(name string, as format) (root *os.Root, stream io.ReadCloser, err error) {
	if name == "-" {
		return nil, io.NopCloser(c.stdin), nil
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, nil, fileFailure("input", name, err)
	}
	if info.IsDir() != (as == formatDir) && (info.IsDir() || as == formatDir) && as != "" {
		return nil, nil, usagef("%s: --format %s does not fit", name, as)
	}
	if info.IsDir() {
		if root, err = os.OpenRoot(name); err != nil {
			return nil, nil, fileFailure("directory", name, err)
		}
		return root, nil, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, nil, fileFailure("input", name, err)
	}
	return nil, f, nil
}
