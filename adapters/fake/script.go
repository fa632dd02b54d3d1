package fake

import (
	"strconv"
	"strings"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

type step struct {
	verb, arg string
	wait      time.Duration // of sleep
	status    int           // of exit
	tell      func(*adapters.Evidence)
}

// parse reads the script of a definition.
func parse(d *jsdl.JobDefinition) ([]step, error) {
	if d == nil {
		return nil, fail.Errorf("fake.Check", fail.Invalid, "", "there is no job definition")
	}
	program := d.Program()
	script, ok := strings.CutPrefix(program.Executable.Value, "fake:")
	if !ok {
		return nil, nil
	}
	for _, a := range program.Arguments {
		script += " " + a.Value
	}
	var steps []step
	for text := range strings.SplitSeq(script, ";") {
		text = strings.TrimSpace(text)
		if text == "" {
			continue
		}
		s := step{}
		s.verb, s.arg, _ = strings.Cut(text, " ")
		s.arg = strings.TrimSpace(s.arg)
		if err := s.check(); err != nil {
			return nil, err
		}
		steps = append(steps, s)
	}
	return steps, nil
}

func (s *step) check() error {
	bad := func(want string) error {
		return fail.Errorf("fake.Check", fail.Unsupported, "Executable", "the step %q of a fake job wants %s, not %q", s.verb, want, s.arg)
	}
	switch s.verb {
	case "out", "err", "signal", "stop", "missing", "lose", "hang", "hold", "reject", "unsupported":
		if s.verb == "signal" && !strings.HasPrefix(s.arg, "SIG") {
			return bad("the name of a signal")
		}
	case "sleep":
		if n, err := strconv.ParseFloat(s.arg, 64); err == nil {
			s.wait = time.Duration(n * float64(time.Second))
		} else if d, err := time.ParseDuration(s.arg); err == nil {
			s.wait = d
		} else {
			return bad("a time in seconds")
		}
	case "progress":
		f, err := strconv.ParseFloat(s.arg, 64)
		if err != nil || f < 0 || f > 1 {
			return bad("a number from 0 to 1")
		}
		s.tell = func(e *adapters.Evidence) { e.Progress = f }
	case "hosts":
		names := strings.Fields(s.arg)
		s.tell = func(e *adapters.Evidence) { e.Hosts = names }
	case "usage":
		cpu, memory, _ := strings.Cut(s.arg, " ")
		d, err := time.ParseDuration(cpu)
		n, err2 := strconv.ParseInt(strings.TrimSpace(memory), 10, 64)
		if err != nil || err2 != nil {
			return bad("a time of processors and a number of bytes")
		}
		s.tell = func(e *adapters.Evidence) { e.Usage = adapters.Usage{CPU: d, Memory: n} }
	case "attribute":
		name, value, _ := strings.Cut(s.arg, " ")
		if name == "" {
			return bad("a name and a value")
		}
		s.tell = func(e *adapters.Evidence) {
			if e.Attributes == nil {
				e.Attributes = map[string]string{}
			}
			e.Attributes[name] = value
		}
	case "exit":
		n, err := strconv.Atoi(s.arg)
		if err != nil || n < 0 || n > 255 {
			return bad("a status from 0 to 255")
		}
		s.status = n
	default:
		return fail.Errorf("fake.Check", fail.Unsupported, "Executable", "a fake job has no step %q", s.verb)
	}
	return nil
}
