package resourcemodel

import "math"

// code is a number in 15 bits, so that more is never less: nine binary digits of it and
// six of its exponent. Whole numbers up to 1024 have codes of their own.
type code = uint16

const (
	codeUnknown code = 0
	codeNothing code = 1 // 0 and below
	codeLeast   code = 2
	codeMost    code = 0x7fff // what is beyond, and no limit
)

const (
	codeShift = 52 - 9
	codeBase  = (1023 - 14) << 9 // of 2^-14, below which all is as small
)

func codeOf(x float64) code {
	if x <= 0 {
		return codeNothing
	}
	n := int64(math.Float64bits(x)>>codeShift) - codeBase
	return code(min(max(n, 0)+int64(codeLeast), int64(codeMost)))
}

// between gives two numbers between which all are that have the code.
func between(k code) (lo, hi float64) {
	switch k {
	case codeNothing:
		return math.Inf(-1), 0
	case codeLeast:
		return 0, math.Float64frombits(uint64(codeBase+1) << codeShift)
	case codeMost:
		return math.Float64frombits(uint64(int64(codeMost)-int64(codeLeast)+codeBase) << codeShift), math.Inf(1)
	}
	bits := uint64(int64(k)-int64(codeLeast)+codeBase) << codeShift
	return math.Float64frombits(bits), math.Float64frombits(bits + 1<<codeShift)
}
