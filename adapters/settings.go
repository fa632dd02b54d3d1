package adapters

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/portolan-project/portolan/internal/fail"
)

// Settings are the settings of one site as they stand in the configuration. The
// zero value has none.
type Settings struct {
	node *yaml.Node
}

// UnmarshalYAML keeps what stands there until the adapter asks for it.
func (s *Settings) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: settings are names with values", node.Line)
	}
	s.node = node
	return nil
}

// MarshalYAML gives them back.
func (s Settings) MarshalYAML() (any, error) { return s.node, nil }

// ParseSettings reads settings that stand alone, in YAML.
func ParseSettings(text string) (Settings, error) {
	var s Settings
	if strings.TrimSpace(text) == "" {
		return s, nil
	}
	if err := yaml.Unmarshal([]byte(text), &s); err != nil {
		return Settings{}, fail.Errorf("adapters.ParseSettings", fail.Invalid, "", "%v", err)
	}
	return s, nil
}

// Equal says whether both say the same, wherever they stand.
func (s Settings) Equal(o Settings) bool {
	a, errA := yaml.Marshal(s.node)
	b, errB := yaml.Marshal(o.node)
	return errA == nil && errB == nil && string(a) == string(b)
}

// Decode fills a struct with yaml tags. A key that the struct does not know, or one
// that is there twice, is fail.Invalid and names its line.
func (s Settings) Decode(into any) error {
	if s.node == nil {
		return nil
	}
	if err := unknownKeys(s.node, reflect.TypeOf(into)); err != nil {
		return fail.Errorf("adapters.Settings", fail.Invalid, "", "%v", err)
	}
	if err := s.node.Decode(into); err != nil {
		if te, ok := errors.AsType[*yaml.TypeError](err); ok {
			return fail.Errorf("adapters.Settings", fail.Invalid, "", "%s", strings.Join(te.Errors, "; "))
		}
		return fail.Errorf("adapters.Settings", fail.Invalid, "", "%v", err)
	}
	return nil
}

// unknownKeys walks a mapping beside the struct that it is for: the decoder of a
// node, unlike that of a stream, takes keys that nobody reads.
func unknownKeys(node *yaml.Node, t reflect.Type) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	if reflect.PointerTo(t).Implements(unmarshaler) {
		return nil // what it reads is its own affair
	}
	switch {
	case t.Kind() == reflect.Struct && node.Kind == yaml.MappingNode:
		fields, rest := yamlFields(t)
		for i := 0; i+1 < len(node.Content); i += 2 {
			key := node.Content[i]
			ft, ok := fields[key.Value]
			if !ok && rest != nil {
				ft, ok = rest, true
			}
			if !ok {
				return fmt.Errorf("line %d: there is no setting %q here; the settings are %s", key.Line, key.Value, names(fields))
			}
			if err := unknownKeys(node.Content[i+1], ft); err != nil {
				return err
			}
		}
	case (t.Kind() == reflect.Slice || t.Kind() == reflect.Array) && node.Kind == yaml.SequenceNode:
		for _, item := range node.Content {
			if err := unknownKeys(item, t.Elem()); err != nil {
				return err
			}
		}
	case t.Kind() == reflect.Map && node.Kind == yaml.MappingNode:
		for i := 1; i < len(node.Content); i += 2 {
			if err := unknownKeys(node.Content[i], t.Elem()); err != nil {
				return err
			}
		}
	}
	return nil
}

var unmarshaler = reflect.TypeFor[yaml.Unmarshaler]()

// yamlFields gives the types of a struct's fields by the names that stand in YAML,
// and that of any other key when the struct has a map for them.
func yamlFields(t reflect.Type) (fields map[string]reflect.Type, rest reflect.Type) {
	fields = map[string]reflect.Type{}
	for f := range t.Fields() {
		tag := strings.Split(f.Tag.Get("yaml"), ",")
		switch name := tag[0]; {
		case !f.IsExported() && !f.Anonymous || name == "-":
		case slices.Contains(tag[1:], "inline"):
			in := f.Type
			for in.Kind() == reflect.Pointer {
				in = in.Elem()
			}
			if in.Kind() == reflect.Map {
				rest = in.Elem()
				continue
			}
			more, r := yamlFields(in)
			maps.Copy(fields, more)
			if r != nil {
				rest = r
			}
		case name == "":
			fields[strings.ToLower(f.Name)] = f.Type
		default:
			fields[name] = f.Type
		}
	}
	return fields, rest
}

func names(fields map[string]reflect.Type) string {
	out := slices.Sorted(maps.Keys(fields))
	return strings.Join(out, ", ")
}
