package agent

import (
	"bytes"
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"syncagent/configs"
)

// WriteConfig writes the settings as Render gives them to a new file; an existing one is never replaced, then the error
// wraps fs.ErrExist.
func WriteConfig(file string, c Config) error {
	if err := createFile(file, c.Render(), 0o644); err != nil {
		return fmt.Errorf("create configuration: %w", err)
	}
	return nil
}

// Render gives the settings as a YAML file with a comment for every key: configs/syncagent.yaml with these values in it.
// LoadConfig reads the same settings from it.
func (c Config) Render() []byte {
	values := map[string]string{}
	eachSetting(reflect.ValueOf(&c).Elem(), "", func(key string, v reflect.Value) { values[key] = yamlText(v) })
	var out bytes.Buffer
	var sections []string // that the line lies in, two spaces each
	for line := range strings.Lines(string(configs.Example)) {
		name, rest, isKey := strings.Cut(strings.TrimLeft(line, " "), ":")
		if !isKey || strings.HasPrefix(name, "#") {
			out.WriteString(line)
			continue
		}
		indent := line[:len(line)-len(strings.TrimLeft(line, " "))]
		sections = sections[:len(indent)/2]
		key := join(strings.Join(sections, "."), name)
		if strings.TrimSpace(rest) == "" {
			sections = append(sections, name)
		}
		switch value, ok := values[key]; {
		case key == "mirrors":
			out.WriteString(renderList(key, c.Mirrors))
		case key == "local_rules":
			out.WriteString(renderList(key, c.LocalRules))
		case key == "triggers":
			out.WriteString(renderList(key, c.Triggers))
		case key == "indexes":
			out.WriteString(renderList(key, c.Indexes))
		case ok:
			fmt.Fprintf(&out, "%s%s: %s\n", indent, name, value)
		default:
			out.WriteString(line)
		}
	}
	return out.Bytes()
}

// renderList writes a list of settings, of each those that are not zero.
func renderList[T any](key string, list []T) string {
	if len(list) == 0 {
		return key + ": []\n"
	}
	var b strings.Builder
	b.WriteString(key + ":\n")
	for i := range list {
		lead, section := "  - ", ""
		eachSetting(reflect.ValueOf(&list[i]).Elem(), "", func(key string, v reflect.Value) {
			if v.IsZero() {
				return
			}
			if head, rest, nested := strings.Cut(key, "."); nested {
				if head != section {
					fmt.Fprintf(&b, "%s%s:\n", lead, head)
				}
				section, key, lead = head, rest, "      "
			}
			fmt.Fprintf(&b, "%s%s: %s\n", lead, key, yamlText(v))
			lead = "    "
		})
	}
	return b.String()
}

// yamlText writes a setting as YAML on one line.
func yamlText(v reflect.Value) string {
	if list, ok := v.Interface().([]string); ok {
		quoted := make([]string, len(list))
		for i, s := range list {
			quoted[i] = strconv.Quote(s)
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	}
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		text, err := m.MarshalText()
		if err != nil {
			panic(err) // ours never fail
		}
		return yamlQuote(string(text))
	}
	if v.Kind() == reflect.String {
		return yamlQuote(v.String())
	}
	return fmt.Sprint(v.Interface())
}

// yamlQuote quotes a string unless every reader takes it for the same plain word.
func yamlQuote(s string) string {
	plain := s != "" && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-:", r))
	}) < 0 && !strings.HasSuffix(s, ":") && !strings.HasPrefix(s, "-") && !strings.HasPrefix(s, ":")
	if _, err := strconv.ParseFloat(s, 64); err == nil || strings.HasPrefix(s, "0") {
		plain = false
	}
	switch strings.ToLower(s) {
	case "true", "false", "yes", "no", "on", "off", "null", "y", "n", "inf", ".inf", ".nan", "nan":
		plain = false
	}
	if plain {
		return s
	}
	return strconv.Quote(s)
}
