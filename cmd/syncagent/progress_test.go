package main

import (
	"strings"
	"testing"
	"time"
)

func TestProgress(t *testing.T) {
	for _, c := range []struct {
		done, total int
		took        time.Duration
		want        string
	}{
		{100, 400, 10 * time.Second, "100 of 400 files, 10/s, 30s left"},
		{100, 0, 10 * time.Second, "100 files, 10/s"},
		{5, 4, time.Second, "5 files, 5/s"}, // it grew meanwhile
		{0, 0, 0, "0 of 0 files, 0/s, 0s left"},
	} {
		if got := progressText("files", c.done, c.total, c.took); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	var none *progress
	none.step()
	none.clear()
	var out strings.Builder
	p := &progress{w: &out, start: time.Now().Add(-time.Minute)}
	p.step()
	p.step() // too soon to print again
	if got := strings.Count(out.String(), "\r"); got != 1 {
		t.Errorf("printed %d times: %q", got, out.String())
	}
}
