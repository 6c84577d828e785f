package agent

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// decoder puts a YAML file into a Config. It walks the syntax tree itself, because a library's decoder stops at the
// first fault, and a person who mends a file wants to see all of them, each with its place.
type decoder struct {
	faults Faults
	places map[string]*token.Position // key path -> where the file set it
}

// decodeConfig reads YAML strictly into c, over the values already there.
func decodeConfig(text []byte, c *Config) *decoder {
	d := &decoder{places: map[string]*token.Position{}}
	file, err := parser.ParseBytes(text, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		d.syntax(err)
		return d
	}
	var body ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.CommentType {
			continue
		}
		if body != nil {
			d.fault(doc.Body, "", "a second document; the file must have one")
			return d
		}
		body = doc.Body
	}
	if body != nil {
		d.value(body, reflect.ValueOf(c).Elem(), "")
	}
	return d
}

func (d *decoder) syntax(err error) {
	f := Fault{Message: err.Error()}
	if y, ok := errors.AsType[yaml.Error](err); ok {
		f.Message = y.GetMessage()
		if t := y.GetToken(); t != nil && t.Position != nil {
			f.Line, f.Column = t.Position.Line, t.Position.Column
		}
	}
	d.faults = append(d.faults, f)
}

func (d *decoder) fault(at ast.Node, key, format string, args ...any) {
	f := Fault{Key: key, Message: fmt.Sprintf(format, args...)}
	if t := at.GetToken(); t != nil && t.Position != nil {
		f.Line, f.Column = t.Position.Line, t.Position.Column
	}
	d.faults = append(d.faults, f)
}

// value decodes one node into v. An empty value (key without anything) leaves the default.
func (d *decoder) value(n ast.Node, v reflect.Value, key string) {
	if n == nil || n.Type() == ast.NullType {
		return
	}
	if t := n.GetToken(); t != nil && key != "" {
		d.places[key] = t.Position
	}
	switch {
	case isLeaf(v.Type()):
		d.leaf(n, v, key)
	case v.Kind() == reflect.Struct:
		d.mapping(n, v, key)
	case v.Kind() == reflect.Slice:
		d.sequence(n, v, key)
	}
}

func (d *decoder) mapping(n ast.Node, v reflect.Value, key string) {
	m, ok := n.(ast.MapNode)
	if !ok {
		d.fault(n, key, "want keys with values here, not %s", kindOf(n))
		return
	}
	fields := fieldsOf(v.Type())
	seen := map[string]bool{}
	for it := m.MapRange(); it.Next(); {
		name := it.Key().String()
		if t := it.Key().GetToken(); t != nil {
			name = t.Value // without quotes
		}
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == name })
		switch {
		case i < 0:
			d.unknown(it.Key(), name, fields)
		case seen[name]:
			d.fault(it.Key(), "", "field %q is here twice", name)
		default:
			d.value(it.Value(), v.Field(fields[i].index), join(key, name))
		}
		seen[name] = true
	}
}

func (d *decoder) unknown(at ast.Node, name string, fields []field) {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	if near := nearest(name, names); near != "" {
		d.fault(at, "", "unknown field %q (did you mean %q?)", name, near)
		return
	}
	d.fault(at, "", "unknown field %q", name)
}

func (d *decoder) sequence(n ast.Node, v reflect.Value, key string) {
	s, ok := n.(*ast.SequenceNode)
	if !ok {
		d.fault(n, key, "want a list here, not %s", kindOf(n))
		return
	}
	list := reflect.MakeSlice(v.Type(), 0, len(s.Values))
	for i, item := range s.Values {
		element := reflect.New(v.Type().Elem()).Elem()
		element.Set(elementDefault(element.Type()))
		d.value(item, element, fmt.Sprintf("%s[%d]", key, i))
		list = reflect.Append(list, element)
	}
	v.Set(list)
}

func (d *decoder) leaf(n ast.Node, v reflect.Value, key string) {
	text, ok := scalar(n)
	if !ok {
		d.fault(n, key, "want one value here, not %s", kindOf(n))
		return
	}
	if err := setLeaf(v, text); err != nil {
		d.fault(n, key, "%v", err)
	}
}

// scalar gives the text of a plain value as it stands in the file, so that 0660 stays octal digits.
func scalar(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	return "", false
}

func kindOf(n ast.Node) string {
	switch n.Type() {
	case ast.MappingType, ast.MappingValueType:
		return "keys with values"
	case ast.SequenceType:
		return "a list"
	case ast.AnchorType, ast.AliasType, ast.MergeKeyType, ast.TagType:
		return "an anchor, alias or tag: they are not supported"
	}
	return "a single value"
}

type field struct {
	name  string // as in the file
	index int
}

// fieldsOf lists the keys of a struct in the order of its declaration.
func fieldsOf(t reflect.Type) (fields []field) {
	for i := range t.NumField() {
		if name := t.Field(i).Tag.Get("yaml"); name != "-" && name != "" {
			fields = append(fields, field{name, i})
		}
	}
	return fields
}

func join(key, name string) string {
	if key == "" {
		return name
	}
	return key + "." + name
}

var textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()

// isLeaf tells whether values of t are written as one word.
func isLeaf(t reflect.Type) bool {
	return t.Kind() != reflect.Struct && t.Kind() != reflect.Slice || reflect.PointerTo(t).Implements(textUnmarshaler)
}

// setLeaf puts one value, as text, into v. It is the one reader of values, for file, environment and flags.
func setLeaf(v reflect.Value, text string) error {
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(text))
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("want true or false, not %q", text)
		}
		v.SetBool(b)
	case reflect.Int:
		i, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			return fmt.Errorf("want a whole number, not %q", text)
		}
		v.SetInt(i)
	default:
		return fmt.Errorf("cannot be set from text")
	}
	return nil
}

// setText does the same for lists of words too, separated by commas.
func setText(v reflect.Value, text string) error {
	if v.Type() != reflect.TypeFor[[]string]() {
		return setLeaf(v, text)
	}
	var list []string
	for word := range strings.SplitSeq(text, ",") {
		if word = strings.TrimSpace(word); word != "" {
			list = append(list, word)
		}
	}
	v.Set(reflect.ValueOf(list))
	return nil
}

// place finds where the file set a key, or the nearest key above it.
func (d *decoder) place(key string) *token.Position {
	for key != "" {
		if at, ok := d.places[key]; ok {
			return at
		}
		key = key[:max(strings.LastIndexAny(key, ".["), 0)]
	}
	return nil
}
