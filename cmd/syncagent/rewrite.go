package main

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"syncagent/agent"
)

// saveConfig writes the configuration that init or join made. Old is the one that was there without a network, such as
// a package installs: of it only what init and join decide changes. Its File is empty if there was none.
func saveConfig(old, cfg agent.Config) error {
	if old.File == "" {
		return agent.WriteConfig(cfg.File, cfg)
	}
	return rewriteConfig(cfg, "name", "network", "admins", "listen", "bootstrap")
}

// rewriteConfig gives keys of the file that cfg was read from the values that they have in cfg, line by line, and leaves
// all else, its mode too, as it is. The result must read as it should, or the file stays: then the user's layout is beyond this.
func rewriteConfig(cfg agent.Config, keys ...string) error {
	info, err := os.Stat(cfg.File)
	if err != nil {
		return fileFailure("configuration", cfg.File, err)
	}
	text, err := readFile("configuration", cfg.File, 1<<20)
	if err != nil {
		return err
	}
	lines := slices.Collect(bytes.Lines(text))
	var changed []string
	for _, key := range keys {
		line := yamlLine(key, rewritable(&cfg)[key])
		changed = append(changed, strings.TrimSpace(line))
		lines = setLine(lines, key, line)
	}
	temp := cfg.File + ".syncagent-new"
	if err := writeFile(temp, bytes.Join(lines, nil), info.Mode().Perm()); err != nil {
		return err
	}
	got, err := agent.LoadConfig(temp, nil)
	for _, key := range keys {
		if err == nil && fmt.Sprint(rewritable(&got)[key]) != fmt.Sprint(rewritable(&cfg)[key]) {
			err = fmt.Errorf("%s is set in another way", key)
		}
	}
	if err != nil {
		_ = os.Remove(temp)
		return failf(exitUsage, string(agent.CodeBadConfig), "cannot change %s in %s", strings.Join(keys, ", "), cfg.File).
			withHint("write it by hand, then run this again:\n%s", strings.Join(changed, "\n"))
	}
	return os.Rename(temp, cfg.File)
}

// rewritable are the settings that init and join write into a file of the user.
func rewritable(cfg *agent.Config) map[string]any {
	return map[string]any{
		"name": cfg.Name, "network": cfg.Network, "admins": cfg.Admins, "listen": cfg.Listen, "bootstrap": cfg.Bootstrap,
	}
}

// yamlLine writes a string or a list of strings.
func yamlLine(key string, value any) string {
	list, ok := value.([]string)
	if !ok {
		return fmt.Sprintf("%s: %q\n", key, value)
	}
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = strconv.Quote(s)
	}
	return key + ": [" + strings.Join(quoted, ", ") + "]\n"
}

// setLine replaces the line of a top-level key, or adds one.
func setLine(lines [][]byte, key, line string) [][]byte {
	for i, old := range lines {
		if bytes.HasPrefix(old, []byte(key+":")) {
			lines[i] = []byte(line)
			return lines
		}
	}
	if n := len(lines); n > 0 && !bytes.HasSuffix(lines[n-1], []byte("\n")) {
		lines[n-1] = append(slices.Clone(lines[n-1]), '\n')
	}
	return append(lines, []byte(line))
}
