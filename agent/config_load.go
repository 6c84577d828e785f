package agent

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// SystemConfig is where the configuration of the host's own agent lies.
const SystemConfig = "/etc/syncagent/syncagent.yaml"

const maxConfigBytes = 1 << 20

// FindConfig says which file to read: explicit if not empty, else $SYNCAGENT_CONFIG, else for others than root
// $XDG_CONFIG_HOME/syncagent/syncagent.yaml if it exists, else SystemConfig. Never anything in the working directory.
func FindConfig(explicit string) string {
	if explicit != "" {
		return explicit
	}
	if file := os.Getenv("SYNCAGENT_CONFIG"); file != "" {
		return file
	}
	if os.Geteuid() != 0 {
		if dir, err := os.UserConfigDir(); err == nil {
			file := filepath.Join(dir, "syncagent", "syncagent.yaml")
			if _, err := os.Stat(file); err == nil {
				return file
			}
		}
	}
	return SystemConfig
}

// LoadConfig reads a configuration: overrides (key path -> value, from flags) over environment variables over the file
// over DefaultConfig. The error is an *Error that lists all faults; it wraps fs.ErrNotExist when there is no file.
func LoadConfig(file string, overrides map[string]string) (Config, error) {
	text, err := readConfigFile(file)
	if err != nil {
		return Config{}, err
	}
	return parseConfig(file, text, os.LookupEnv, overrides)
}

func readConfigFile(file string) ([]byte, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &Error{
			Code: CodeBadConfig, Err: err, Message: "no configuration at " + file,
			Hint: "make one with syncagent init or syncagent join, or name it with --config",
		}
	}
	var text []byte
	if err == nil {
		defer f.Close() //nolint:errcheck // read only
		text, err = io.ReadAll(io.LimitReader(f, maxConfigBytes+1))
	}
	if err != nil {
		return nil, &Error{Code: CodeBadConfig, Err: err, Message: fmt.Sprintf("read configuration: %v", err)}
	}
	if len(text) > maxConfigBytes {
		return nil, &Error{Code: CodeBadConfig, Message: fmt.Sprintf("%s: over the limit of %d bytes", file, maxConfigBytes)}
	}
	return text, nil
}

// parseConfig does all of LoadConfig that needs no disk.
func parseConfig(file string, text []byte, lookup func(string) (string, bool), overrides map[string]string) (Config, error) {
	c, _, err := parseSettings(file, text, lookup, overrides)
	return c, err
}

// parseSettings also gives what set each of them.
func parseSettings(file string, text []byte, lookup func(string) (string, bool), overrides map[string]string) (Config, *origins, error) {
	c := DefaultConfig()
	d := decodeConfig(text, &c)
	faults := d.faults
	sources := map[string]string{}
	eachSetting(reflect.ValueOf(&c).Elem(), "", func(key string, v reflect.Value) {
		name := EnvName(key)
		if value, ok := lookup(name); ok {
			sources[key] = name
			if err := setText(v, value); err != nil {
				faults = append(faults, Fault{Source: name, Key: key, Message: err.Error()})
			}
		}
		if value, ok := overrides[key]; ok {
			sources[key] = "flag for " + key
			if err := setText(v, value); err != nil {
				faults = append(faults, Fault{Source: sources[key], Key: key, Message: err.Error()})
			}
		}
	})
	if file != "" {
		absolute, err := filepath.Abs(file)
		if err != nil {
			return c, nil, fmt.Errorf("find configuration: %w", err)
		}
		c.File = absolute
		c.resolvePaths()
	}
	named := map[string]bool{}
	for _, f := range faults {
		named[f.Key] = f.Key != ""
	}
	for _, f := range c.Check() {
		if named[f.Key] {
			continue // a value that could not be read is one fault, not two
		}
		if source, ok := sources[f.Key]; ok {
			f.Source = source
		} else if at := d.place(f.Key); at != nil {
			f.Line, f.Column = at.Line, at.Column
		}
		faults = append(faults, f)
	}
	return c, &origins{c.File, d.places, sources}, faultsError(file, faults)
}

// EnvName gives the environment variable of a key path: SYNCAGENT_API_HTTP for api.http.
func EnvName(key string) string {
	return "SYNCAGENT_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// SettingKeys lists the key paths that environment variables and overrides can set.
func SettingKeys() (keys []string) {
	c := DefaultConfig()
	eachSetting(reflect.ValueOf(&c).Elem(), "", func(key string, _ reflect.Value) { keys = append(keys, key) })
	return keys
}

// eachSetting visits all values that can be set from text, in the order of the file.
func eachSetting(v reflect.Value, key string, visit func(key string, v reflect.Value)) {
	for _, f := range fieldsOf(v.Type()) {
		value, path := v.Field(f.index), join(key, f.name)
		switch {
		case isLeaf(value.Type()) || value.Type() == reflect.TypeFor[[]string]():
			visit(path, value)
		case value.Kind() == reflect.Struct:
			eachSetting(value, path, visit)
		}
	}
}

// resolvePaths makes paths absolute: relative ones start at the directory of the file, so that a folder with an agent
// in it can be moved, and so that the working directory never matters.
func (c *Config) resolvePaths() {
	paths := []*string{&c.DataDir, &c.API.Socket, &c.API.TLS.Cert, &c.API.TLS.Key, &c.API.TLS.ClientCA, &c.API.TokenFile}
	c.Mirrors = slices.Clone(c.Mirrors)
	for i := range c.Mirrors {
		paths = append(paths, &c.Mirrors[i].Dir, &c.Mirrors[i].TriggersDir)
	}
	for _, p := range paths {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = c.beside(*p)
		}
	}
}
