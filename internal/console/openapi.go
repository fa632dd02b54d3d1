package console

import (
	"encoding"
	"encoding/json"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/internal/agreements/ledger"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/broker/limits"
	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/peers/discovery"
	"github.com/portolan-project/portolan/peers/status"
)

// DescriptionPath has the description of this API, as OpenAPI 3.1.
const DescriptionPath = "/api/v1/openapi.json"

func (a *api) described(*http.Request) (any, error) { return a.description, nil }

// object is a JSON object.
type object = map[string]any

var pathVariable = regexp.MustCompile(`\{(\w+)\}`)

// describe gives the OpenAPI document of operations. The schemas are of the very types
// that answers are written from.
func describe(ops []operation, version string) object {
	s := &schemas{components: object{}, names: map[string]reflect.Type{}}
	if version == "" {
		version = "unknown"
	}
	problem := object{
		"description": "The request is refused; the answer says why.",
		"content":     object{"application/json": object{"schema": s.of(reflect.TypeFor[Problem]())}},
	}
	paths := object{}
	for _, op := range ops {
		of, _ := paths[op.path].(object)
		if of == nil {
			of = object{}
			paths[op.path] = of
		}
		d := object{
			"operationId": op.name, "summary": op.what,
			"responses": object{"200": object{"description": "It is done.", "content": s.contents(op.gives)}, "default": problem},
		}
		if p := s.parameters(&op); len(p) > 0 {
			d["parameters"] = p
		}
		if op.takes != nil {
			d["requestBody"] = object{"required": true, "content": s.contents([]content{*op.takes})}
		}
		of[strings.ToLower(op.method)] = d
		if op.method == http.MethodGet {
			head := object{"operationId": op.name + "Head", "summary": "Like GET, with no body.", "responses": object{
				"200": object{"description": "GET would be answered."}, "default": object{"description": "GET would be refused."},
			}}
			if p, ok := d["parameters"]; ok {
				head["parameters"] = p
			}
			of["head"] = head
		}
	}
	return object{
		"openapi": "3.1.0",
		"info": object{
			"title": "Portolan", "version": version,
			"description": "What a Portolan gateway answers in JSON, beside its BES endpoint. Activities are created and steered over BES. " +
				"Times of the schemas without a unit are nanoseconds where they are integers, and RFC 3339 where they are strings.",
			"license": object{"name": "see the file LICENSE of the program"},
		},
		"servers":    []any{object{"url": "/"}},
		"paths":      paths,
		"components": object{"schemas": s.components},
	}
}

// schemas makes JSON Schemas of Go types, as encoding/json writes them.
type schemas struct {
	components object
	names      map[string]reflect.Type
}

func (s *schemas) contents(all []content) object {
	out := object{}
	for _, c := range all {
		schema := object{"type": "string"}
		if c.of != nil {
			schema = s.of(reflect.TypeOf(c.of))
		}
		out[c.mediaType] = object{"schema": schema}
	}
	return out
}

func (s *schemas) parameters(op *operation) []any {
	var out []any
	for _, m := range pathVariable.FindAllStringSubmatch(op.path, -1) {
		schema := object{"type": "string"}
		if m[1] == "id" {
			schema["format"] = "uuid"
		}
		out = append(out, object{"name": m[1], "in": "path", "required": true, "schema": schema})
	}
	for _, p := range op.query {
		schema := s.of(reflect.TypeOf(p.of))
		if p.several {
			schema = object{"type": "array", "items": schema}
		}
		out = append(out, object{"name": p.name, "in": "query", "description": p.what, "schema": schema})
	}
	return out
}

// words are the types of text that has one of a few values.
var words = map[reflect.Type]func() []string{
	reflect.TypeFor[policy.Kind]():      func() []string { return texts(policy.Kinds()) },
	reflect.TypeFor[limits.Scope]():     func() []string { return texts(limits.Scopes()) },
	reflect.TypeFor[broker.SiteState](): func() []string { return texts(broker.SiteStates()) },
	reflect.TypeFor[status.State]():     func() []string { return texts(status.States()) },
	reflect.TypeFor[status.Source]():    func() []string { return texts(status.Sources()) },
	reflect.TypeFor[discovery.Source](): func() []string { return texts(discovery.Sources()) },
	reflect.TypeFor[ledger.Kind]():      func() []string { return texts(ledger.Kinds()) },
}

func texts[T ~string](all []T) []string {
	out := make([]string, len(all))
	for i, x := range all {
		out[i] = string(x)
	}
	return out
}

// of gives the schema of a type; those of structs with a name are components.
func (s *schemas) of(t reflect.Type) object {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case t == reflect.TypeFor[time.Duration]():
		return object{"type": "integer", "format": "int64", "description": "nanoseconds"}
	case t.Kind() == reflect.Pointer:
		return s.of(t.Elem())
	case t.Implements(reflect.TypeFor[json.Marshaler]()), t.Implements(reflect.TypeFor[encoding.TextMarshaler]()):
		panic("console: " + t.String() + " writes its own JSON, which has no schema here")
	}
	switch t.Kind() { //nolint:exhaustive // what JSON has no form for is told below
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int, reflect.Int64:
		return object{"type": "integer", "format": "int64"}
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return object{"type": "integer"}
	case reflect.Uint, reflect.Uint64:
		return object{"type": "integer", "minimum": 0}
	case reflect.Float32, reflect.Float64:
		return object{"type": "number"}
	case reflect.String:
		out := object{"type": "string"}
		if all, ok := words[t]; ok {
			out["enum"] = all()
		}
		return out
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return object{"type": "string", "contentEncoding": "base64"}
		}
		return object{"type": "array", "items": s.of(t.Elem())}
	case reflect.Map:
		if t.Elem().Kind() == reflect.Interface {
			return object{"type": "object"}
		}
		return object{"type": "object", "additionalProperties": s.of(t.Elem())}
	case reflect.Struct:
		return s.component(t)
	}
	panic("console: " + t.String() + " has no schema")
}

// component gives a reference to the schema of a struct, which it makes where it is new.
func (s *schemas) component(t reflect.Type) object {
	if t.Name() == "" {
		return s.properties(t)
	}
	name := t.Name()
	if pkg := t.PkgPath()[strings.LastIndexByte(t.PkgPath(), '/')+1:]; pkg != "console" {
		name = pkg + "." + name
	}
	switch known := s.names[name]; known {
	case t:
	case nil:
		s.names[name] = t
		s.components[name] = s.properties(t)
	default:
		panic("console: " + known.String() + " and " + t.String() + " are both " + name)
	}
	return object{"$ref": "#/components/schemas/" + name}
}

func (s *schemas) properties(t reflect.Type) object {
	all := object{}
	var required []string
	var add func(reflect.Type)
	add = func(t reflect.Type) {
		for f := range t.Fields() {
			name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.Anonymous && name == "" {
				add(f.Type)
				continue
			}
			if !f.IsExported() || f.Tag.Get("json") == "-" {
				continue
			}
			if name == "" {
				name = f.Name
			}
			if _, twice := all[name]; twice { // encoding/json has a rule for it, which nobody should need
				panic("console: " + t.String() + " has " + name + " twice")
			}
			schema := s.of(f.Type)
			if optional := strings.Split(options, ","); !slices.Contains(optional, "omitempty") && !slices.Contains(optional, "omitzero") {
				required = append(required, name)
				if k := f.Type.Kind(); k == reflect.Pointer || k == reflect.Slice || k == reflect.Map {
					schema = object{"anyOf": []any{schema, object{"type": "null"}}}
				}
			}
			all[name] = schema
		}
	}
	add(t)
	out := object{"type": "object", "properties": all}
	if len(required) > 0 {
		slices.Sort(required)
		out["required"] = required
	}
	return out
}
