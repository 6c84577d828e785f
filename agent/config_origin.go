package agent

import (
	"fmt"
	"os"
	"reflect"

	"github.com/goccy/go-yaml/token"
)

// Setting is one setting in force, as text, and what set it: a place in the file, a variable, or "default".
type Setting struct {
	Key, Value, Origin string
}

// origins says what set each setting.
type origins struct {
	file    string
	places  map[string]*token.Position
	sources map[string]string // those that the environment or a flag set
}

func (o *origins) of(key string) string {
	if source, ok := o.sources[key]; ok {
		return source
	}
	if at, ok := o.places[key]; ok {
		return fmt.Sprintf("%s:%d", o.file, at.Line)
	}
	return "default"
}

// LoadSettings reads a configuration as LoadConfig does, and lists its settings in the order of the example.
func LoadSettings(file string) ([]Setting, error) {
	text, err := readConfigFile(file)
	if err != nil {
		return nil, err
	}
	c, o, err := parseSettings(file, text, os.LookupEnv, nil)
	if err != nil {
		return nil, err
	}
	return listSettings(reflect.ValueOf(c), "", o), nil
}

// listSettings lists the settings below a key, elements of lists one by one.
func listSettings(v reflect.Value, key string, o *origins) (list []Setting) {
	for _, f := range fieldsOf(v.Type()) {
		value, path := v.Field(f.index), join(key, f.name)
		switch {
		case isLeaf(value.Type()) || value.Type() == reflect.TypeFor[[]string]():
			list = append(list, Setting{path, yamlText(value), o.of(path)})
		case value.Kind() == reflect.Struct:
			list = append(list, listSettings(value, path, o)...)
		case value.Len() == 0:
			list = append(list, Setting{path, "[]", o.of(path)})
		}
		for i := 0; value.Kind() == reflect.Slice && value.Type().Elem().Kind() == reflect.Struct && i < value.Len(); i++ {
			list = append(list, listSettings(value.Index(i), fmt.Sprintf("%s[%d]", path, i), o)...)
		}
	}
	return list
}
