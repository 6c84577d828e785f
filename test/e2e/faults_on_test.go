//go:build faults

package e2e

// The program can die at named steps and have faults planted; the environment says which.
const buildTags = "faults"

const faultEnv = "SYNCAGENT_FAULT"
