package main

import (
	"bytes"
	"testing"

	"syncagent/crdtstore/record"
)

// FuzzBatch: lines of a batch are refused with a message that a person can read, or are changes of distinct paths.
func FuzzBatch(f *testing.F) {
	f.Add([]byte(`{"op":"put","path":"/a","value":"v","mode":"0600","ttl":"1h"}` + "\n" + `{"op":"delete","path":"/b"}`))
	f.Add([]byte(`{"op":"put","path":"/a","value_base64":"AA==","if_absent":true}`))
	f.Add([]byte(`{"op":"put","path":"/a"}`))
	f.Add([]byte("\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		ops, err := parseBatch(bytes.NewReader(data))
		if err != nil {
			return
		}
		if len(ops) == 0 || len(ops) > record.MaxSlots {
			t.Fatalf("%d changes", len(ops))
		}
		seen := map[string]bool{}
		for _, op := range ops {
			path := op.GetPut().GetPath() + op.GetDelete().GetPath()
			if record.CheckPath(path) != nil || seen[path] {
				t.Errorf("path %q", path)
			}
			seen[path] = true
		}
	})
}
