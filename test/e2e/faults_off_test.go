//go:build !faults

package e2e

// The program is built as users get it: nothing can be planted in it.
const buildTags = ""

const faultEnv = ""
