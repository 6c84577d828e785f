package agent

import (
	"os"
	"path/filepath"
	"reflect"
	"time"
)

// Config holds the settings of an agent. The zero value is of no use: begin with DefaultConfig.
// The yaml names are the keys of the file; joined by dots they are the key paths of errors and overrides.
type Config struct {
	// File is where the settings were read from. Relative paths in it start at its directory, and identity.key,
	// admin.key and policy.txt lie beside it.
	File string `yaml:"-"`

	Name      string    `yaml:"name"`
	DataDir   string    `yaml:"data_dir"`
	Network   string    `yaml:"network"`
	Admins    []string  `yaml:"admins"`
	Listen    []string  `yaml:"listen"`
	Announce  []string  `yaml:"announce"`
	Bootstrap []string  `yaml:"bootstrap"`
	API       APIConfig `yaml:"api"`

	LocalRules []LocalRuleConfig `yaml:"local_rules"`

	Store    StoreConfig     `yaml:"store"`
	Limits   LimitsConfig    `yaml:"limits"`
	Mirrors  []MirrorConfig  `yaml:"mirrors"`
	Triggers []TriggerConfig `yaml:"triggers"`
	Indexes  []IndexConfig   `yaml:"indexes"`
	Log      LogConfig       `yaml:"log"`
	Metrics  MetricsConfig   `yaml:"metrics"`
}

// APIConfig says where the API is served.
type APIConfig struct {
	Socket      string   `yaml:"socket"`
	SocketMode  FileMode `yaml:"socket_mode"`
	SocketGroup string   `yaml:"socket_group"`
	HTTP        string   `yaml:"http"`

	TLS       TLSConfig `yaml:"tls"`
	TokenFile string    `yaml:"token_file"`
}

// TLSConfig says where and how the API is served by TLS. Nothing is without Listen.
type TLSConfig struct {
	Listen   string `yaml:"listen"`
	Cert     string `yaml:"cert"`
	Key      string `yaml:"key"`
	ClientCA string `yaml:"client_ca"`
}

// StoreConfig sizes the store.
type StoreConfig struct {
	MinFree Size     `yaml:"min_free"`
	History Duration `yaml:"history"`
}

// LimitsConfig bounds what callers of the API can take, and peers.
type LimitsConfig struct {
	Requests    int  `yaml:"requests"`
	Watches     int  `yaml:"watches"`
	PeerBytes   Size `yaml:"peer_bytes"`
	PeerOrigins int  `yaml:"peer_origins"`
	Value       Size `yaml:"value"`
}

// LogConfig says what is logged and how.
type LogConfig struct {
	Level  string       `yaml:"level"`
	Levels LevelsConfig `yaml:"levels"`
	Format string       `yaml:"format"`

	Requests bool `yaml:"requests"`
}

// LevelsConfig gives parts of the agent a level of their own; empty: that of LogConfig.
type LevelsConfig struct {
	Store   string `yaml:"store"`
	Network string `yaml:"network"`
	Libp2p  string `yaml:"libp2p"`
	API     string `yaml:"api"`
	Mirrors string `yaml:"mirrors"`
}

// MetricsConfig switches groups of metrics.
type MetricsConfig struct {
	Libp2p bool `yaml:"libp2p"`
}

// DefaultConfig gives the settings that hold where nothing else is said. configs/syncagent.yaml shows them all.
func DefaultConfig() Config {
	return Config{
		DataDir: "/var/lib/syncagent",
		Listen: []string{
			"/ip4/0.0.0.0/tcp/7424", "/ip4/0.0.0.0/udp/7424/quic-v1",
			"/ip6/::/tcp/7424", "/ip6/::/udp/7424/quic-v1",
		},
		API: APIConfig{
			Socket:     "/run/syncagent/agent.sock",
			SocketMode: 0o660,
			HTTP:       "127.0.0.1:7425",
		},
		Store:   StoreConfig{MinFree: 256 << 20, History: Duration(7 * 24 * time.Hour)},
		Limits:  LimitsConfig{Requests: 1024, Watches: 10000, Value: 64 << 20, PeerBytes: 32 << 20, PeerOrigins: 1024},
		Log:     LogConfig{Level: "info", Format: "auto"},
		Metrics: MetricsConfig{Libp2p: true},
	}
}

// defaultMirror holds what a mirror is when its lines in the file do not say otherwise.
func defaultMirror() MirrorConfig { return MirrorConfig{Mode: "pull"} }

// elementDefault gives the value that a new element of a list starts from.
func elementDefault(t reflect.Type) reflect.Value {
	if t == reflect.TypeFor[MirrorConfig]() {
		return reflect.ValueOf(defaultMirror())
	}
	return reflect.Zero(t)
}

// AgentName is the configured name, or the host's.
func (c *Config) AgentName() string {
	if c.Name != "" {
		return c.Name
	}
	if host, err := os.Hostname(); err == nil && host != "" {
		return host
	}
	return "syncagent"
}

func (c *Config) beside(name string) string { return filepath.Join(filepath.Dir(c.File), name) }

// IdentityFile is where the agent's identity key lies.
func (c *Config) IdentityFile() string { return c.beside("identity.key") }

// AdminKeyFile is where the admin key lies as long as it is kept on this host.
func (c *Config) AdminKeyFile() string { return c.beside("admin.key") }

// TokenFile is where a host keeps the token by which it knows its network: it names the policy that was in force when
// the host joined, and the genesis that further tokens need.
func (c *Config) TokenFile() string { return c.beside("network.token") }

// PolicyFile is the signed policy that an agent without any takes at its start.
func (c *Config) PolicyFile() string { return c.beside("policy.txt") }
