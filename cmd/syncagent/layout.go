package main

import (
	"os"
	"path/filepath"

	"syncagent/agent"
)

// layout says where init and join put things.
type layout struct {
	file    string // the configuration; keys, policy and token lie beside it
	dataDir string // as it is written into the configuration: relative to it in a private folder
	socket  string
	private bool // all in one folder of the user's choice, perhaps with more such folders on the host: ports are picked
}

// newLayout follows --dir or --config, and else what suits the user: the system's folders for root, those of the XDG
// base directory specification for others.
func (c *cli) newLayout(dir string) (layout, error) {
	switch {
	case dir != "" && c.configFile != "" && filepath.Clean(dir) != filepath.Dir(c.configFile):
		return layout{}, usagef("--dir %s and --config %s name different folders", dir, c.configFile)
	case c.configFile != "":
		return privateLayout(c.configFile)
	case dir != "":
		return privateLayout(filepath.Join(dir, "syncagent.yaml"))
	case os.Geteuid() == 0:
		d := agent.DefaultConfig()
		return layout{file: agent.SystemConfig, dataDir: d.DataDir, socket: d.API.Socket}, nil
	}
	return userLayout()
}

// privateLayout writes relative paths, so that the folder can be moved.
func privateLayout(file string) (layout, error) {
	file, err := filepath.Abs(file)
	return layout{file: file, dataDir: "data", socket: "agent.sock", private: true}, err
}

func userLayout() (layout, error) {
	config, err := os.UserConfigDir()
	if err != nil {
		return layout{}, err
	}
	state, err := stateHome()
	if err != nil {
		return layout{}, err
	}
	state = filepath.Join(state, "syncagent")
	l := layout{
		file:    filepath.Join(config, "syncagent", "syncagent.yaml"),
		dataDir: filepath.Join(state, "data"),
		socket:  filepath.Join(state, "agent.sock"),
	}
	if run := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(run) {
		l.socket = filepath.Join(run, "syncagent", "agent.sock")
	}
	return l, nil
}

// beside gives the path of a file that lies beside the configuration.
func (l layout) beside(name string) string { return filepath.Join(filepath.Dir(l.file), name) }

// flag is how the user names this configuration in further commands: not at all if it is found anyway.
func (l layout) flag() string {
	if !l.private {
		return ""
	}
	return " --config " + l.file
}

// makeDirs makes the folders that are missing.
func (l layout) makeDirs(data string) error {
	if err := os.MkdirAll(filepath.Dir(l.file), 0o755); err != nil {
		return makeFailure("folder", filepath.Dir(l.file), err)
	}
	if !filepath.IsAbs(data) {
		data = l.beside(data)
	}
	if err := os.MkdirAll(data, 0o700); err != nil {
		return makeFailure("folder", data, err)
	}
	return nil
}
