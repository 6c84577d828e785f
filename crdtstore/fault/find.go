//go:build faults

package fault

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

var call = regexp.MustCompile(`\bfault\.(Point|Planted)\("([a-z0-9.-]+)"\)`)

// Find gives the names of all steps and of all faults in the Go source below a folder, without its tests.
func Find(dir string) (points, faults []string, err error) {
	err = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		src, err := os.ReadFile(path)
		for _, m := range call.FindAllStringSubmatch(string(src), -1) {
			if m[1] == "Point" {
				points = append(points, m[2])
			} else {
				faults = append(faults, m[2])
			}
		}
		return err
	})
	slices.Sort(points)
	slices.Sort(faults)
	return slices.Compact(points), slices.Compact(faults), err
}
