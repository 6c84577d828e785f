//go:build faults

package mirror

import (
	"fmt"
	"math/rand/v2"
)

// killPoint draws the step at which a child dies: most of those that matter are too short for a kill by the clock.
func killPoint(r *rand.Rand, kind string) string {
	points := []string{"journal.appended"}
	if kind != "swapping" {
		points = append(points, "mirror.staged", "mirror.noted", "mirror.renamed", "mirror.in-place", "mirror.settled")
	}
	return fmt.Sprintf("%s:%d", points[r.IntN(len(points))], 1+r.IntN(10))
}
