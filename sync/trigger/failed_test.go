package trigger

import (
	"context"
	"strings"
	"testing"
)

// TestFailedIsOfTheChangesThatARunSaw holds that a failure counts for what the run was for and for what came before it,
// not for a later change or another path, until a run succeeds.
func TestFailedIsOfTheChangesThatARunSaw(t *testing.T) {
	b := newBench(t, Options{}, Spec{Path: "/p", Command: "test -e OUT"})
	b.r.Notify(1, []Change{{"/p/a", "5"}})
	failed := func(path, write string, want bool) {
		t.Helper()
		if got := b.r.Failed(Change{path, write}); (got != "") != want || want && !strings.Contains(got, "exit status 1") {
			t.Errorf("%s at %s: %q", path, write, got)
		}
	}
	failed("/p/a", "5", false)
	if b.r.RunPending(context.Background(), nil) == nil {
		t.Fatal("it succeeded")
	}
	failed("/p/a", "5", true)
	failed("/p/a", "4", true)
	failed("/p/a", "6", false)
	failed("/p/b", "5", false)
	b.r.Notify(2, []Change{{"/p/a", "6"}})
	failed("/p/a", "6", false) // no run has seen it
	if b.r.RunPending(context.Background(), nil) == nil {
		t.Fatal("it succeeded")
	}
	failed("/p/a", "6", true)
}
