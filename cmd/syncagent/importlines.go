package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"syncagent/crdtstore/record"
)

const (
	// shortLine has room for a line with a value that is no large one.
	shortLine = 512 << 10
	// longLine is a line with the largest value that there can be.
	longLine = record.MaxValue/3*4 + shortLine
)

// valueMark stands before a value in base64. It cannot be a part of a JSON string, in which quotes have a backslash.
var valueMark = []byte(`"value_base64":"`)

// copyLines imports what export wrote, a JSON object a line. A long line is imported as it comes if its value stands last.
func (i *importer) copyLines(ctx context.Context, in *bufio.Reader, prefix string) error {
	for n := 1; ; n++ {
		of := fmt.Sprintf("line %d", n)
		line, err := in.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			err = i.copyLongLine(ctx, of, bytes.Clone(line), in, prefix)
		case err != nil && !errors.Is(err, io.EOF):
			return badImport("%s: %v", of, err)
		case len(bytes.TrimSpace(line)) > 0:
			last := err
			if err = i.copyLine(ctx, of, line, prefix); err == nil {
				err = last
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (i *importer) copyLine(ctx context.Context, of string, line []byte, prefix string) error {
	l, mode, err := parseImportLine(of, line)
	if err != nil {
		return err
	}
	value := l.ValueBase64
	if l.Value != nil {
		value = []byte(*l.Value)
	}
	return i.one(ctx, prefix, l.Path, bytes.NewReader(value), mode)
}

// copyLongLine imports a line of which a part was read. All but its value comes before that value as export writes it.
func (i *importer) copyLongLine(ctx context.Context, of string, head []byte, in *bufio.Reader, prefix string) error {
	before, begun, found := bytes.Cut(head, valueMark)
	if !found || !bytes.Contains(before, []byte(`"mode":`)) || bytes.IndexByte(begun, '"') >= 0 {
		return i.copyWholeLine(ctx, of, head, in, prefix)
	}
	l, mode, err := parseImportLine(of, fmt.Appendf(nil, `%s%s"}`, before, valueMark))
	if err != nil {
		return err
	}
	text := &quoted{in: in, rest: begun}
	value := inputValue{base64.NewDecoder(base64.StdEncoding, text), of}
	if err := i.one(ctx, prefix, l.Path, value, mode); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, text); err != nil { // of one that was left out
		return badImport("%s: %v", of, err)
	}
	end, err := in.ReadSlice('\n')
	if err != nil && !errors.Is(err, io.EOF) || string(bytes.TrimSpace(end)) != "}" {
		return badImport("%s: it does not end after the value", of)
	}
	return err
}

func (i *importer) copyWholeLine(ctx context.Context, of string, line []byte, in *bufio.Reader, prefix string) error {
	for {
		more, err := in.ReadSlice('\n')
		if line = append(line, more...); len(line) > longLine {
			return badImport("%s: longer than a line with the largest value", of)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case err != nil && !errors.Is(err, io.EOF):
			return badImport("%s: %v", of, err)
		default:
			if failed := i.copyLine(ctx, of, line, prefix); failed != nil {
				return failed
			}
			return err
		}
	}
}

func parseImportLine(of string, text []byte) (l batchLine, mode fs.FileMode, err error) {
	if err := decodeStrictly(bytes.TrimSpace(text), &l); err != nil {
		return l, 0, badImport("%s: %v", of, err)
	}
	if l.Op != "put" || l.TTL != "" || l.IfVersion != "" || l.IfAbsent || (l.Value == nil) == (l.ValueBase64 == nil) {
		return l, 0, badImport("%s: only puts as export writes them can be imported", of)
	}
	bits, err := parseMode(l.Mode)
	if err != nil {
		return l, 0, badImport("%s: %v", of, err)
	}
	if bits != nil {
		mode = fs.FileMode(*bits)
	}
	return l, mode, nil
}

// quoted reads a JSON string without escapes up to the quote at its end, and nothing beyond.
type quoted struct {
	in    *bufio.Reader
	rest  []byte
	ended bool
}

func (q *quoted) Read(p []byte) (int, error) {
	for len(q.rest) == 0 {
		if q.ended {
			return 0, io.EOF
		}
		part, err := q.in.ReadSlice('"')
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return 0, err
		}
		q.rest, q.ended = bytes.CutSuffix(part, []byte{'"'})
	}
	n := copy(p, q.rest)
	q.rest = q.rest[n:]
	return n, nil
}
