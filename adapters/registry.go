package adapters

import (
	"slices"
	"strings"

	"github.com/portolan-project/portolan/internal/fail"
)

// MaxTag is the most bytes a Tag may have.
const MaxTag = 64

// Validate says what is wrong with a tag, or nil. Adapters make file names,
// comments and attributes of tags, so nothing else may be in them.
func (t Tag) Validate() error {
	if t == "" || len(t) > MaxTag {
		return fail.Errorf("adapters.Tag", fail.Invalid, string(t), "a tag has 1 to %d bytes; this one has %d", MaxTag, len(t))
	}
	for i := range len(t) {
		c := t[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' {
			return fail.Errorf("adapters.Tag", fail.Invalid, "", "a tag is made of letters, digits and '-'; byte %d of %q is not", i, string(t))
		}
	}
	return nil
}

// Registry says how an adapter of each type is made. It is a value that the
// program fills: nothing registers itself by being imported.
type Registry map[string]func(Config) (Adapter, error)

// Open makes an adapter of the type.
func (r Registry) Open(kind string, config Config) (Adapter, error) {
	factory, ok := r[kind]
	if !ok {
		return nil, fail.Errorf("adapters.Open", fail.Invalid, kind, "there is no adapter of type %q; the types are %s", kind, strings.Join(r.Types(), ", "))
	}
	return factory(config)
}

// Types lists the types in order.
func (r Registry) Types() []string {
	types := make([]string, 0, len(r))
	for kind := range r {
		types = append(types, kind)
	}
	slices.Sort(types)
	return types
}
