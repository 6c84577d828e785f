// Package agent is the running syncagent: its configuration and key files, the wiring of store, network, mirrors and
// API, and a client of that API.
//
// LoadConfig reads the settings, New makes an Agent and Agent.Run runs it until its context ends: one errgroup holds
// every long-lived part, so the first that fails stops all others. The API is one HTTP handler that speaks Connect
// (gRPC, gRPC-Web, JSON) and raw values at /v1/kv; it listens on a unix socket, whose callers act as this agent. The
// TCP port has health and metrics and never a key.
//
// Everything that a user did wrong, and everything that the API answers, is an *Error: a stable code, a message and
// where there is one a hint.
package agent
