package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"syncagent/agent"
	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore/record"
)

// readFile reads a file that the user named, up to limit bytes.
func readFile(what, name string, limit int) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fileFailure(what, name, err)
	}
	defer f.Close() //nolint:errcheck // read only
	b, err := readLimited(f, what+" "+name, limit)
	if _, ok := errors.AsType[*failure](err); err != nil && !ok {
		return nil, fileFailure(what, name, err)
	}
	return b, err
}

// readLimited reads all of r and fails when that is more than limit bytes.
func readLimited(r io.Reader, what string, limit int) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	if len(b) > limit {
		return nil, tooLarge(what, limit)
	}
	return b, nil
}

func tooLarge(what string, limit int) *failure {
	return failf(exitUsage, string(agent.CodeTooLarge), "%s is over the limit of %d bytes", what, limit)
}

// parseMode reads permission bits such as 0600. Empty means none.
func parseMode(s string) (*uint32, error) {
	if s == "" {
		return nil, nil
	}
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n == 0 || n > record.MaxMode {
		return nil, usagef("mode %q: want permission bits in octal such as 0600, at most 0777", s)
	}
	mode := uint32(n)
	return &mode, nil
}

// setTTL sets how long an entry lives. Empty means for ever.
func setTTL(r *apiv1.PutRequest, s string) error {
	if s == "" {
		return nil
	}
	d, err := parsePositive("ttl", s)
	if err == nil {
		r.Expiry = &apiv1.PutRequest_Ttl{Ttl: durationpb.New(d)}
	}
	return err
}

// parsePositive reads a duration above zero such as 90s, 12h or 30d.
func parsePositive(what, s string) (time.Duration, error) {
	d, err := agent.ParseDuration(s)
	if err != nil {
		return 0, usagef("%s: %v", what, err)
	}
	if d <= 0 {
		return 0, usagef("%s %s: it must be above zero", what, s)
	}
	return d, nil
}

// prefixOf checks the one optional PREFIX argument.
func prefixOf(args []string) (string, error) {
	if len(args) == 0 {
		return "/", nil
	}
	return record.CleanPrefix(args[0])
}
