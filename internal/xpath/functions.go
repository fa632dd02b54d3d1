package xpath

import (
	"math"
	"strings"
	"unicode/utf8"
)

// function is one of the core library (§4).
type function struct {
	t           Type
	least, most int  // arguments; most -1 is any number
	nodes       bool // the arguments are node sets
	do          func(c focus, args []value) value
}

type call struct {
	f    *function
	args []expr
}

func (e *call) typ() Type { return e.f.t }

func (e *call) eval(c focus) value {
	c.spend(1)
	args := make([]value, len(e.args))
	for i, a := range e.args {
		args[i] = a.eval(c)
	}
	return e.f.do(c, args)
}

// or gives the argument, or the context node where there is none.
func or(c focus, args []value) value {
	if len(args) > 0 {
		return args[0]
	}
	return value{set: []int32{c.node}}
}

// first gives the first node of a set; nil where it is empty.
func (ev *evaluation) first(v value) *node {
	if len(v.set) == 0 {
		return nil
	}
	return &ev.tree.nodes[v.set[0]]
}

// text1 is a function of one string, the context node's by default.
func text1(t Type, do func(c focus, s string) value) *function {
	return &function{t, 0, 1, false, func(c focus, args []value) value { return do(c, c.text(or(c, args))) }}
}

// text2 is a function of two strings.
func text2(t Type, do func(c focus, a, b string) value) *function {
	return &function{t, 2, 2, false, func(c focus, args []value) value {
		return do(c, c.made(c.text(args[0])), c.made(c.text(args[1])))
	}}
}

func number1(do func(float64) float64) *function {
	return &function{Number, 1, 1, false, func(c focus, args []value) value { return numberValue(do(c.number(args[0]))) }}
}

// functions are those of §4 but for id() and lang().
var functions = map[string]*function{
	"last":     {Number, 0, 0, false, func(c focus, _ []value) value { return numberValue(float64(c.size)) }},
	"position": {Number, 0, 0, false, func(c focus, _ []value) value { return numberValue(float64(c.position)) }},
	"count":    {Number, 1, 1, true, func(_ focus, args []value) value { return numberValue(float64(len(args[0].set))) }},
	"local-name": {String, 0, 1, true, func(c focus, args []value) value {
		if n := c.first(or(c, args)); n != nil {
			return textValue(n.name.Local)
		}
		return textValue("")
	}},
	"namespace-uri": {String, 0, 1, true, func(c focus, args []value) value {
		if n := c.first(or(c, args)); n != nil {
			return textValue(n.name.Space)
		}
		return textValue("")
	}},
	"name": {String, 0, 1, true, func(c focus, args []value) value {
		if n := c.first(or(c, args)); n != nil {
			return textValue(qualified(n))
		}
		return textValue("")
	}},
	"string": text1(String, func(_ focus, s string) value { return textValue(s) }),
	"concat": {String, 2, -1, false, func(c focus, args []value) value {
		parts := make([]string, len(args))
		for i, a := range args {
			parts[i] = c.made(c.text(a))
		}
		return textValue(strings.Join(parts, ""))
	}},
	"starts-with": text2(Boolean, func(_ focus, a, b string) value { return boolValue(strings.HasPrefix(a, b)) }),
	"contains":    text2(Boolean, func(_ focus, a, b string) value { return boolValue(strings.Contains(a, b)) }),
	"substring-before": text2(String, func(_ focus, a, b string) value {
		before, _, found := strings.Cut(a, b)
		if !found {
			before = ""
		}
		return textValue(before)
	}),
	"substring-after": text2(String, func(_ focus, a, b string) value {
		_, after, _ := strings.Cut(a, b)
		return textValue(after)
	}),
	"substring": {String, 2, 3, false, func(c focus, args []value) value {
		s, from, to := c.made(c.text(args[0])), round(c.number(args[1])), math.Inf(1)
		if len(args) == 3 {
			to = from + round(c.number(args[2]))
		}
		begin, end, at := -1, len(s), 0.0
		for i := range s { // positions are characters, counted from 1
			at++
			if begin < 0 && at >= from && at < to {
				begin = i
			} else if begin >= 0 && !(at < to) {
				end = i
				break
			}
		}
		if begin < 0 {
			return textValue("")
		}
		return textValue(s[begin:end])
	}},
	"string-length": text1(Number, func(c focus, s string) value {
		return numberValue(float64(utf8.RuneCountInString(c.made(s))))
	}),
	"normalize-space": text1(String, func(c focus, s string) value {
		return textValue(strings.Join(strings.FieldsFunc(c.made(s), func(r rune) bool { return strings.ContainsRune(white, r) }), " "))
	}),
	"translate": {String, 3, 3, false, func(c focus, args []value) value {
		s, from, to := c.made(c.text(args[0])), c.made(c.text(args[1])), []rune(c.made(c.text(args[2])))
		table := map[rune]rune{}
		at := 0
		for _, r := range from {
			if _, known := table[r]; !known { // the first of a character counts
				table[r] = -1
				if at < len(to) {
					table[r] = to[at]
				}
			}
			at++
		}
		return textValue(strings.Map(func(r rune) rune {
			if n, ok := table[r]; ok {
				return n
			}
			return r
		}, s))
	}},
	"boolean": {Boolean, 1, 1, false, func(c focus, args []value) value { return boolValue(c.boolean(args[0])) }},
	"not":     {Boolean, 1, 1, false, func(c focus, args []value) value { return boolValue(!c.boolean(args[0])) }},
	"true":    {Boolean, 0, 0, false, func(focus, []value) value { return boolValue(true) }},
	"false":   {Boolean, 0, 0, false, func(focus, []value) value { return boolValue(false) }},
	"number":  {Number, 0, 1, false, func(c focus, args []value) value { return numberValue(c.number(or(c, args))) }},
	"sum": {Number, 1, 1, true, func(c focus, args []value) value {
		total := 0.0
		for _, n := range args[0].set {
			total += parseNumber(c.textOf(n))
		}
		return numberValue(total)
	}},
	"floor":   number1(math.Floor),
	"ceiling": number1(math.Ceil),
	"round":   number1(round),
}

// round is §4.4's: halves go up, and what is not finite stays.
func round(n float64) float64 {
	if math.IsNaN(n) || math.IsInf(n, 0) || math.Trunc(n) == n {
		return n
	}
	below := math.Floor(n)
	if n-below >= 0.5 {
		return below + 1
	}
	return below
}
