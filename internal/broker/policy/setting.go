package policy

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/portolan-project/portolan/internal/fail"
)

// PluginPrefix begins the names of policies that a site brings along as programs of
// their own: "plugin:NAME". What parameters they take is theirs to say.
const PluginPrefix = "plugin:"

// Bounds of what people write as a setting.
const (
	maxSetting    = 1024 // bytes
	maxName       = 64
	maxParameters = 16
)

// ParseSetting reads a setting as people write it, "priority{age=1h}", and checks it
// against the catalogue; String writes it. Durations are like 90s, 30m, 1h30m or 7d,
// or a number of seconds; switches are on or off. What is not said has its default.
// fail.Unsupported is that there is no such policy, fail.Invalid all else.
func ParseSetting(text string) (Setting, error) {
	const op = "policy.ParseSetting"
	if len(text) > maxSetting {
		return Setting{}, fail.Errorf(op, fail.Invalid, "", "the setting has %d bytes; at most %d are taken", len(text), maxSetting)
	}
	name, rest, braced := strings.Cut(strings.TrimSpace(text), "{")
	s := Setting{Name: strings.TrimSpace(name)}
	var all []*Description
	if !s.plugged() {
		if all = named(s.Name); len(all) == 0 {
			return Setting{}, unknown(op, s.Name, Kinds())
		}
	}
	if braced {
		inner, after, closed := strings.Cut(rest, "}")
		if !closed || after != "" {
			return Setting{}, fail.Errorf(op, fail.Invalid, s.Name, "a setting is written NAME{parameter=value,parameter=value}; %q is not", text)
		}
		if strings.TrimSpace(inner) != "" {
			for part := range strings.SplitSeq(inner, ",") {
				k, v, ok := strings.Cut(part, "=")
				k, v = strings.TrimSpace(k), strings.TrimSpace(v)
				if !ok || k == "" || v == "" {
					return Setting{}, fail.Errorf(op, fail.Invalid, s.Name, "%s: a parameter is written name=value; %q is not", s.Name, strings.TrimSpace(part))
				}
				if _, twice := s.Parameters[k]; twice {
					return Setting{}, fail.Errorf(op, fail.Invalid, k, "%s: the parameter %s is given twice", s.Name, k)
				}
				unit := anything
				if len(all) > 0 {
					p := all[0].parameter(k)
					if p == nil {
						return Setting{}, noParameter(op, all[0], k)
					}
					unit = p.Unit
				}
				x, err := unit.parse(v)
				if err != nil {
					return Setting{}, fail.Errorf(op, fail.Invalid, k, "%s: %s=%s: %s", s.Name, k, v, err.Error())
				}
				if s.Parameters == nil {
					s.Parameters = map[string]float64{}
				}
				s.Parameters[k] = x
			}
		}
	}
	if len(all) > 0 {
		return s, all[0].check(op, s)
	}
	return s, s.checkPlugged(op)
}

// String writes the setting: parameters in the order of their names, each in the
// catalogue's unit. Two settings that are equal are written alike.
func (s Setting) String() string {
	if len(s.Parameters) == 0 {
		return s.Name
	}
	var d *Description
	if all := named(s.Name); len(all) > 0 {
		d = all[0]
	}
	var b strings.Builder
	b.WriteString(s.Name)
	sep := byte('{')
	for _, k := range slices.Sorted(maps.Keys(s.Parameters)) {
		unit := Unit("")
		if d != nil {
			if p := d.parameter(k); p != nil {
				unit = p.Unit
			}
		}
		b.WriteByte(sep)
		b.WriteString(k)
		b.WriteByte('=')
		b.WriteString(unit.Format(s.Parameters[k]))
		sep = ','
	}
	b.WriteByte('}')
	return b.String()
}

// Check says what is wrong with a setting as one of the kind, or nil: that there is no
// such policy (fail.Unsupported), or a parameter that it has not or that is out of its
// bounds (fail.Invalid). A plug-in's parameters are only bounded here.
func (s Setting) Check(k Kind) error {
	const op = "policy.Check"
	if s.plugged() {
		if k != Scheduling && k != Selection {
			return fail.Errorf(op, fail.Unsupported, s.Name, "a plug-in can be a policy of scheduling or selection, not of %s", k)
		}
		return s.checkPlugged(op)
	}
	d := Find(k, s.Name)
	if d == nil {
		return unknown(op, s.Name, []Kind{k})
	}
	return d.check(op, s)
}

// Complete gives the setting of a kind with the defaults of all parameters written out:
// what decides, whatever the defaults of another version will be.
func (s Setting) Complete(k Kind) Setting {
	d := Find(k, s.Name)
	if d == nil {
		return s
	}
	return d.Complete(s)
}

// Complete gives the setting with the defaults of all parameters written out.
func (d *Description) Complete(s Setting) Setting {
	out := Setting{Name: s.Name, Parameters: maps.Clone(s.Parameters)}
	for _, p := range d.Parameters {
		if _, said := out.Parameters[p.Name]; !said {
			if out.Parameters == nil {
				out.Parameters = map[string]float64{}
			}
			out.Parameters[p.Name] = p.Default
		}
	}
	return out
}

// Equal reports whether two settings say the same.
func (s Setting) Equal(o Setting) bool {
	return s.Name == o.Name && maps.Equal(s.Parameters, o.Parameters)
}

func (s Setting) plugged() bool { return strings.HasPrefix(s.Name, PluginPrefix) }

// Plugin gives the plug-in's name; false for a built-in policy.
func (s Setting) Plugin() (string, bool) { return strings.CutPrefix(s.Name, PluginPrefix) }

func (s Setting) checkPlugged(op string) error {
	if name, _ := s.Plugin(); !isName(name) {
		return fail.Errorf(op, fail.Invalid, s.Name, "a plug-in's name has letters, digits and '-', at most %d of them; write %sNAME as the configuration names it", maxName, PluginPrefix)
	}
	if len(s.Parameters) > maxParameters {
		return fail.Errorf(op, fail.Invalid, s.Name, "%s has %d parameters; at most %d are passed on", s.Name, len(s.Parameters), maxParameters)
	}
	for _, k := range slices.Sorted(maps.Keys(s.Parameters)) {
		if v := s.Parameters[k]; !isName(k) || math.IsNaN(v) || math.IsInf(v, 0) {
			return fail.Errorf(op, fail.Invalid, k, "%s: a parameter's name has letters, digits and '-', and its value is a number", s.Name)
		}
	}
	return nil
}

// isName reports whether s can be a name.
func isName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || i > 0 && (c >= '0' && c <= '9' || c == '-')) {
			return false
		}
	}
	return s != "" && len(s) <= maxName
}

// Check says what is wrong with the parameters of a setting of this policy, or nil:
// fail.Invalid names the parameter and its bounds.
func (d *Description) Check(s Setting) error { return d.check("policy.Check", s) }

// check holds a setting to the description.
func (d *Description) check(op string, s Setting) error {
	for _, k := range slices.Sorted(maps.Keys(s.Parameters)) {
		p := d.parameter(k)
		if p == nil {
			return noParameter(op, d, k)
		}
		v := s.Parameters[k]
		whole := p.Unit != Count && p.Unit != Switch || v == math.Trunc(v)
		if !(v >= p.Least && v <= p.Most) || !whole {
			what := fmt.Sprintf("it must be %s to %s", p.Unit.Format(p.Least), p.Unit.Format(p.Most))
			if p.Unit == Switch {
				what = "it is on or off"
			} else if p.Unit == Count {
				what += ", without a fraction"
			}
			return fail.Errorf(op, fail.Invalid, k, "%s: %s is %s, and %s: %s", d.Name, k, p.Unit.Format(v), what, p.What)
		}
	}
	return nil
}

func noParameter(op string, d *Description, k string) error {
	if len(d.Parameters) == 0 {
		return fail.Errorf(op, fail.Invalid, clip(k), "%s takes no parameters; leave %q out", d.Name, clip(k))
	}
	var have []string
	for _, p := range d.Parameters {
		have = append(have, fmt.Sprintf("%s (%s to %s)", p.Name, p.Unit.Format(p.Least), p.Unit.Format(p.Most)))
	}
	return fail.Errorf(op, fail.Invalid, clip(k), "%s has no parameter %q: it takes %s", d.Name, clip(k), strings.Join(have, ", "))
}

// unknown says which policies there are instead.
func unknown(op, name string, kinds []Kind) error {
	var have []string
	for _, k := range kinds {
		var names []string
		for _, d := range Offered() {
			if d.Kind == k {
				names = append(names, d.Name)
			}
		}
		have = append(have, fmt.Sprintf("of %s there are %s", k, strings.Join(names, ", ")))
	}
	return fail.Errorf(op, fail.Unsupported, clip(name), "there is no policy %q: %s", clip(name), strings.Join(have, "; "))
}

// clip keeps a stranger's word short in a sentence.
func clip(s string) string {
	if len(s) > maxName {
		return strings.ToValidUTF8(s[:maxName], "") + "…"
	}
	return s
}

// Unit is what a parameter is measured in.
type Unit string

// The units.
const (
	Number   Unit = ""         // any number
	Count    Unit = "count"    // a whole number
	Duration Unit = "duration" // kept in seconds
	Switch   Unit = "switch"   // 1 is on, 0 is off

	anything Unit = "anything" // a plug-in's: durations in seconds
)

var spans = []struct {
	name    string
	seconds float64
}{{"d", 86400}, {"h", 3600}, {"m", 60}, {"s", 1}, {"ms", 1e-3}}

// Format writes a value: "1h30m", "on", "0.5". parse reads it again.
func (u Unit) Format(v float64) string {
	switch {
	case u == Switch && v == 1:
		return "on"
	case u == Switch && v == 0:
		return "off"
	case u == Duration && v == math.Trunc(v) && v > 0 && v < 1e15:
		var b strings.Builder
		for _, s := range spans[:4] {
			if n := math.Floor(v / s.seconds); n > 0 {
				b.WriteString(strconv.FormatFloat(n, 'f', -1, 64) + s.name)
				v -= n * s.seconds
			}
		}
		return b.String()
	case u == Duration:
		return strconv.FormatFloat(v, 'g', -1, 64) + "s"
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

type valueError string

func (e valueError) Error() string { return string(e) }

// parse reads a value. It is finite.
func (u Unit) parse(text string) (float64, error) {
	if u == Switch {
		switch text {
		case "on", "1":
			return 1, nil
		case "off", "0":
			return 0, nil
		}
		return 0, valueError("write on or off")
	}
	if v, err := strconv.ParseFloat(text, 64); err == nil && number(text) {
		if math.IsInf(v, 0) || math.IsNaN(v) {
			return 0, valueError("write a number that is not infinite")
		}
		return v + 0, nil // no -0
	}
	if u == Duration || u == anything {
		if v, ok := parseDuration(text); ok {
			return v, nil
		}
	}
	switch u {
	case Duration:
		return 0, valueError("write a duration like 90s, 30m, 1h30m or 7d")
	case Count:
		return 0, valueError("write a whole number")
	case anything:
		return 0, valueError("write a number, or a duration like 90s, 30m, 1h30m or 7d")
	case Number, Switch:
	}
	return 0, valueError("write a number")
}

// number reports whether a text has nothing but what a decimal number has: no "inf",
// no "0x", no '_'.
func number(text string) bool {
	return text != "" && strings.Trim(text, "0123456789.+-eE") == "" && strings.ContainsAny(text, "0123456789")
}

// parseDuration reads numbers with units, the larger units first, each once.
func parseDuration(text string) (sum float64, ok bool) {
	last := -1
	for text != "" {
		n := len(text) - len(strings.TrimLeft(text, "0123456789.eE+-"))
		v, err := strconv.ParseFloat(text[:n], 64)
		if err != nil {
			return 0, false
		}
		text = text[n:]
		n = len(text) - len(strings.TrimLeft(text, "dhms"))
		at := slices.IndexFunc(spans, func(s struct {
			name    string
			seconds float64
		},
		) bool {
			return s.name == text[:n]
		})
		if at <= last || v < 0 {
			return 0, false
		}
		last = at
		sum += v * spans[at].seconds
		text = text[n:]
	}
	return sum, last >= 0 && !math.IsInf(sum, 0)
}

// named gives the descriptions of a name: of several kinds only for "none".
func named(name string) (out []*Description) {
	for i := range catalogue {
		if catalogue[i].Name == name {
			out = append(out, &catalogue[i].Description)
		}
	}
	return out
}
