package agent

import (
	"strings"
	"testing"
)

// A password in an address is refused, and not repeated.
func TestTargetKeepsAPasswordToItself(t *testing.T) {
	for _, address := range []string{"https://user:s3cret@host:7426", "https://user:s3cret@host:port"} {
		_, err := DialTargets(Target{Address: address})
		if err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%v", err)
		}
	}
}
