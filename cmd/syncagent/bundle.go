package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"syncagent/agent"
)

// part is one file of a bundle. What cannot be had is said in its place: a bundle is made when something is wrong.
type part struct {
	name string
	make func(ctx context.Context, w io.Writer) error
}

// bundle writes what somebody who helps needs into a .tar.gz for its owner only. No value, key or policy is in it, and no
// command, whose arguments could be secrets.
func (c *cli) bundle(ctx context.Context, name string, cfg agent.Config, client *agent.Client) error {
	f, err := createFile(name, 0o600)
	if err != nil {
		return makeFailure("bundle", name, err)
	}
	z := gzip.NewWriter(f)
	t := tar.NewWriter(z)
	err = errors.Join(addParts(ctx, t, c.bundleParts(cfg, client)), t.Close(), z.Close())
	if err = f.finish(err); err != nil {
		return makeFailure("bundle", name, err)
	}
	c.note("wrote %s; look into it before you send it: it names hosts, paths and settings. The agent's log goes with it (journalctl -u syncagent)", name)
	return nil
}

func addParts(ctx context.Context, t *tar.Writer, parts []part) error {
	for _, p := range parts {
		var content bytes.Buffer
		if err := p.make(ctx, &content); err != nil {
			fmt.Fprintf(&content, "error: %v\n", err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		h := &tar.Header{Name: "syncagent-bundle/" + p.name, Mode: 0o600, Size: int64(content.Len()), ModTime: time.Now()}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := t.Write(content.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

func (c *cli) bundleParts(cfg agent.Config, client *agent.Client) []part {
	answer := func(path string) func(context.Context, io.Writer) error {
		return func(ctx context.Context, w io.Writer) error { return client.Fetch(ctx, path, w) }
	}
	return []part{
		{"version.json", func(_ context.Context, w io.Writer) error { printJSON(w, readBuildInfo()); return nil }},
		{"settings.txt", func(_ context.Context, w io.Writer) error { return writeSettings(w, cfg.File) }},
		{"doctor.jsonl", func(ctx context.Context, w io.Writer) error {
			for _, f := range agent.Diagnose(ctx, cfg, client, readBuildInfo().Version) {
				printJSON(w, f)
			}
			return nil
		}},
		{"status.json", func(ctx context.Context, w io.Writer) error {
			s, err := c.status(ctx)
			if err != nil {
				return agent.ErrorOf(err)
			}
			for _, m := range s.GetMirrors() {
				m.LastOutput = ""
			}
			for _, t := range s.GetTriggers() {
				t.Command, t.LastOutput = "", ""
			}
			printJSON(w, newStatusJSON(s))
			return nil
		}},
		{"metrics.txt", answer("/metrics")},
		{"goroutines.txt", answer("/debug/pprof/goroutine?debug=1")},
	}
}

// writeSettings is config show --origin without commands.
func writeSettings(w io.Writer, file string) error {
	settings, err := agent.LoadSettings(file)
	if err != nil {
		return err
	}
	for i, s := range settings {
		word := s.Key[strings.LastIndexByte(s.Key, '.')+1:]
		if (word == "check" || word == "on_change" || word == "command") && s.Value != "[]" {
			settings[i].Value = "(a command)"
		}
	}
	printSettings(w, settings)
	return nil
}
