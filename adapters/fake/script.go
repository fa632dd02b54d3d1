package fake

import (
	"strconv"
	"strings"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

type step struct {
	verb, arg string
	wait      time.Duration // of sleep
	status    int           // of exit
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
