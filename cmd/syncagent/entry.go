package main

import (
	"fmt"
	"strconv"
	"time"

	apiv1 "syncagent/agent/api/v1"
)

// timeOf gives the moment that an HLC reading names, or "-" when it is none.
func timeOf(hlc string) string {
	n, err := strconv.ParseUint(hlc, 16, 64)
	if err != nil {
		return "-"
	}
	return time.UnixMilli(int64(n >> 16)).UTC().Format(time.RFC3339)
}

// authorOf is the name by which people know the author of an entry.
func authorOf(e *apiv1.Entry) string {
	switch {
	case e.GetAlias() != "":
		return e.GetAlias()
	case len(e.GetAuthor()) > 8:
		return "…" + e.GetAuthor()[len(e.GetAuthor())-8:]
	}
	return "-"
}

// writeJSON is what put, rm and batch print.
type writeJSON struct {
	Version string `json:"version"`
	HLC     string `json:"hlc"`
	Paths   int64  `json:"paths"`
}

// printWrite tells the version that a write got: to programs, and to people who look.
func (c *cli) printWrite(w *apiv1.WriteResponse, done string) {
	switch {
	case c.json():
		printJSON(c.stdout, writeJSON{Version: w.GetVersion(), HLC: w.GetHlc(), Paths: w.GetPaths()})
	case c.stdout.terminal() && !c.quiet:
		fmt.Fprintf(c.stdout, "%s, version %s\n", done, w.GetVersion())
	}
}
