package agreement

import (
	"github.com/portolan-project/portolan/internal/decimal"
)

// Evaluate gives what is known of the expression by what is known of its variables:
// a condition is determined as soon as no value that the variables could still take
// changes it. lookup gives a variable's value; one of another type than was declared
// is not known.
func (e *Expression) Evaluate(lookup func(name string) Value) Value {
	f := forms[e.form]
	switch e.form {
	case "Value":
		return e.value
	case "Variable":
		return e.look(lookup)
	case "atMost":
		return f.compare(e.look(lookup), e.value)
	case "atLeast":
		return f.compare(e.look(lookup), e.value)
	case "And", "Or":
		// One operand that is false (true) settles an And (Or), the others known or not.
		settles, out := e.form == "Or", OfBoolean(e.form == "And")
		for _, o := range e.operands {
			v := o.Evaluate(lookup)
			if is, ok := v.Truth(); ok && is == settles {
				return OfBoolean(settles)
			} else if !ok {
				out = Unknown(Boolean)
			}
		}
		return out
	case "Not":
		is, ok := e.operands[0].Evaluate(lookup).Truth()
		if !ok {
			return Unknown(Boolean)
		}
		return OfBoolean(!is)
	}
	out := e.operands[0].Evaluate(lookup)
	for _, o := range e.operands[1:] {
		v := o.Evaluate(lookup)
		if f.compare != nil {
			return f.compare(out, v)
		}
		out = f.compute(out, v)
	}
	out.Type = e.typ
	return out
}

func (e *Expression) look(lookup func(string) Value) Value {
	v := lookup(e.name)
	if declared := e.variableType(); v.Type != declared {
		return Unknown(declared)
	}
	return v
}

// less reports whether all of a is below all of b.
func less(a, b Value) bool {
	if !a.high.set || !b.low.set {
		return false
	}
	c := a.high.at.Cmp(b.low.at)
	return c < 0 || c == 0 && (a.high.open || b.low.open)
}

// lessOrEqual reports whether nothing of a is above anything of b.
func lessOrEqual(a, b Value) bool {
	return a.high.set && b.low.set && a.high.at.Cmp(b.low.at) <= 0
}

func determined(is, isNot bool) Value {
	switch {
	case is:
		return OfBoolean(true)
	case isNot:
		return OfBoolean(false)
	}
	return Unknown(Boolean)
}

func compareLess(a, b Value) Value           { return determined(less(a, b), lessOrEqual(b, a)) }
func compareLessOrEqual(a, b Value) Value    { return determined(lessOrEqual(a, b), less(b, a)) }
func compareGreater(a, b Value) Value        { return compareLess(b, a) }
func compareGreaterOrEqual(a, b Value) Value { return compareLessOrEqual(b, a) }

func compareEqual(a, b Value) Value {
	if a.Type.ordered() {
		x, xok := a.exact()
		y, yok := b.exact()
		return determined(xok && yok && x == y, less(a, b) || less(b, a))
	}
	same := a.text == b.text && a.truth == b.truth
	known := a.known && b.known
	return determined(known && same, known && !same)
}

func compareNotEqual(a, b Value) Value {
	is, ok := compareEqual(a, b).Truth()
	return determined(ok && !is, ok && is)
}

// plus adds ends; what would be too large to tell is no bound.
func (a end) plus(b end) end {
	at, ok := a.at.Add(b.at)
	if !a.set || !b.set || !ok {
		return end{}
	}
	return end{at, true, a.open || b.open}
}

func (a end) minus(b end) end {
	b.at = b.at.Neg()
	return a.plus(b)
}

func add(a, b Value) Value      { return Value{low: a.low.plus(b.low), high: a.high.plus(b.high)} }
func subtract(a, b Value) Value { return Value{low: a.low.minus(b.high), high: a.high.minus(b.low)} }

// scale applies a rounded operation to both ends. Rounding keeps order, but what was
// just above a number may be the number itself after it: no end stays open.
func (v Value) scale(up bool, op func(decimal.Decimal) (decimal.Decimal, bool)) Value {
	at := func(e end) end {
		d, ok := op(e.at)
		if !e.set || !ok {
			return end{}
		}
		return end{at: d, set: true}
	}
	out := Value{low: at(v.low), high: at(v.high)}
	if !up {
		out.low, out.high = out.high, out.low
	}
	return out
}

func multiply(a, b Value) Value {
	k, ok := b.exact()
	if !ok {
		if k, ok = a.exact(); !ok {
			return Value{}
		}
		a = b
	}
	return a.scale(k.Sign() >= 0, func(d decimal.Decimal) (decimal.Decimal, bool) { return d.Mul(k) })
}

func divide(a, b Value) Value {
	k, ok := b.exact()
	if !ok {
		return Value{}
	}
	return a.scale(k.Sign() >= 0, func(d decimal.Decimal) (decimal.Decimal, bool) { return d.Div(k) })
}

// smaller gives the lesser of two lower or two upper ends; outer says what an end
// that is not set is: true for lower ends, which then go to minus infinity.
func smaller(a, b end, outer bool) end {
	switch c := a.at.Cmp(b.at); {
	case !a.set || !b.set:
		if outer {
			return end{}
		}
		if a.set {
			return a
		}
		return b
	case c < 0:
		return a
	case c > 0:
		return b
	}
	// A lower end is open only if both are; an upper one if either is.
	a.open = outer && a.open && b.open || !outer && (a.open || b.open)
	return a
}

func minimum(a, b Value) Value {
	return Value{low: smaller(a.low, b.low, true), high: smaller(a.high, b.high, false)}
}

func (v Value) negated() Value {
	v.low, v.high = v.high, v.low
	v.low.at, v.high.at = v.low.at.Neg(), v.high.at.Neg()
	return v
}

func maximum(a, b Value) Value { return minimum(a.negated(), b.negated()).negated() }
