package wire

import "strings"

// Trace is the header block that carries the trace of a message: the span that sends it,
// as W3C Trace Context has it. Items that are about a job have their own.
type Trace struct{ Parent string }

func (m *Trace) visit(v *visit) {
	str(v, "traceparent", &m.Parent, 55, 55, word, "W3C traceparent, version 00")
	v.check(validTrace(m.Parent), "@traceparent", "must be of version 00, such as 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
}

// validTrace: W3C Trace Context §3.2, version 00; neither id may be all zeros.
func validTrace(s string) bool {
	p := strings.Split(s, "-")
	if len(p) != 4 || p[0] != "00" || len(p[1]) != 32 || len(p[2]) != 16 || len(p[3]) != 2 {
		return false
	}
	for _, x := range p[1:] {
		if strings.Trim(x, "0123456789abcdef") != "" {
			return false
		}
	}
	return strings.Trim(p[1], "0") != "" && strings.Trim(p[2], "0") != ""
}
