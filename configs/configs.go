// Package configs holds the files that ship with syncagent: the example configuration and whatever else is installed
// beside the program. They are embedded, so that the program can write them, and tested against it.
package configs

import _ "embed"

// Example is syncagent.yaml: every key with its default value and what it is for.
//
//go:embed syncagent.yaml
var Example []byte
