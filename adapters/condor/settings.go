package condor

import (
	"fmt"
	"math"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

// Type is the adapter's type in a configuration.
const Type = "condor"

// Settings are the settings of a site of type condor. All may be left out where the
// gateway runs beside a schedd, and its nodes share its files.
type Settings struct {
	// Directory is where jobs live: one that the gateway and all nodes see under the
	// same path, unless files are transferred. "" is the site's own directory, or one
	// below /var/tmp where jobs run as another account that may not enter that.
	Directory string `yaml:"directory"`
	// Bin is the directory of HTCondor's commands; "" looks along PATH.
	Bin string `yaml:"bin"`
	// Config is the path of condor_config; "" is what CONDOR_CONFIG says, or HTCondor's own.
	Config string `yaml:"config"`
	// Schedd is the name of the schedd (-name) and Pool that of its collector (-pool); ""
	// is the local one.
	Schedd string `yaml:"schedd"`
	Pool   string `yaml:"pool"`
	// Transfer has HTCondor carry the job's directory to the node and back, where they
	// share no files. A job's program and the files that it names are then the node's.
	Transfer bool `yaml:"transfer"`
	// Spool has the schedd, which may be far away, keep the job's directory (-spool); it
	// means Transfer. The state of jobs is then asked for, as no event log is at hand.
	Spool bool `yaml:"spool"`
	// Poll is how often the state of jobs is asked for with Spool, and whether the schedd
	// answers: "10s".
	Poll string `yaml:"poll"`
	// RequestsPerSecond is how much the schedd and the collector are asked at most; 0 is
	// 5, and -1 is without bound.
	RequestsPerSecond float64 `yaml:"requestsPerSecond"`
	// Runner is the path of a portolan on the nodes; "" is a copy of this one in the
	// directory of jobs, for which nodes must run the same system on the same kind of
	// processor.
	Runner string `yaml:"runner"`
	// Account is the local account that jobs run as if their owner is mapped to none, when
	// the gateway is root; "" is that of HTCondor itself.
	Account string `yaml:"account"`
	// Accounts are local accounts, beside those that owners are mapped to, that a job's
	// UserName may give; the gateway must be root.
	Accounts []string `yaml:"accounts"`
	// Umask of jobs, in octal digits: "022".
	Umask string `yaml:"umask"`
	// ProgramPath is the PATH of jobs that set none.
	ProgramPath string `yaml:"programPath"`
	// Environment is added to that of each job, unless the job sets it itself.
	Environment map[string]string `yaml:"environment"`
	// Grace is how long a program has after SIGTERM before SIGKILL: "5s".
	Grace string `yaml:"grace"`
	// Memory is what a job gets that asks for none, in MiB; 0 leaves it to HTCondor.
	Memory int64 `yaml:"memory"`
	// Holds says what becomes of jobs that HTCondor holds for good: "end", which is the
	// default, or "keep" for an administrator who looks at them.
	Holds string `yaml:"holds"`
	// Projects map the names of JobProject to accounting groups.
	Projects map[string]string `yaml:"projects"`
	// Licences are the concurrency limits that jobs may ask for; without, those that the
	// pool's configuration names here.
	Licences []string `yaml:"licences"`
	// WholeMachines says that a job may have all of a partitionable slot for itself, as
	// ExclusiveExecution asks.
	WholeMachines bool `yaml:"wholeMachines"`
	// Launchers give, for an SPMDVariation (a URI), the command that starts the processes,
	// as a list of its words; {processes}, {perhost} and {threads} are filled in.
	Launchers map[string][]string `yaml:"launchers"`
	// FileSystems are further names of file systems, with where they are on all nodes.
	FileSystems map[string]string `yaml:"fileSystems"`
	// HostNames are further names that CandidateHosts may give for the whole site.
	HostNames []string `yaml:"hostNames"`

	poll, grace time.Duration
	umask       int
}

const (
	defaultRequests = 5
	defaultPoll     = 10 * time.Second
	defaultGrace    = 5 * time.Second
	defaultPath     = "/usr/local/bin:/usr/bin:/bin"
)

// name is what something of HTCondor's may be called where a setting or a job says it.
var name = regexp.MustCompile(`^[\pL\pN_][\pL\pN_.@:+-]{0,199}$`)

func (s *Settings) ensureDefaults() error {
	bad := func(name, format string, args ...any) error {
		return fail.Errorf("condor.Open", fail.Invalid, name, "the setting %s: %s", name, fmt.Sprintf(format, args...))
	}
	for _, p := range []struct{ name, path string }{{"directory", s.Directory}, {"bin", s.Bin}, {"config", s.Config}, {"runner", s.Runner}} {
		if p.path != "" && (!filepath.IsAbs(p.path) || strings.ContainsAny(p.path, "\n\r\"'$")) {
			return bad(p.name, "%q is no absolute path that HTCondor can be told", p.path)
		}
	}
	for _, p := range []struct{ name, value string }{{"schedd", s.Schedd}, {"pool", s.Pool}, {"account", s.Account}} {
		if p.value != "" && !name.MatchString(p.value) {
			return bad(p.name, "%q can't be a name", p.value)
		}
	}
	s.Transfer = s.Transfer || s.Spool
	for _, d := range []struct {
		name, text string
		to         *time.Duration
		def        time.Duration
	}{{"poll", s.Poll, &s.poll, defaultPoll}, {"grace", s.Grace, &s.grace, defaultGrace}} {
		*d.to = d.def
		if d.text != "" {
			v, err := time.ParseDuration(d.text)
			if err != nil || v <= 0 {
				return bad(d.name, "%q is no time; write it like 5s", d.text)
			}
			*d.to = v
		}
	}
	s.umask = 0o022
	if s.Umask != "" {
		n, err := strconv.ParseUint(s.Umask, 8, 16)
		if err != nil || n > 0o777 {
			return bad("umask", "%q is not an octal number of 0 to 0777", s.Umask)
		}
		s.umask = int(n)
	}
	switch r := s.RequestsPerSecond; {
	case r == 0:
		s.RequestsPerSecond = defaultRequests
	case r == -1:
		s.RequestsPerSecond = 0
	case r < 0.01 || math.IsNaN(r) || math.IsInf(r, 0):
		return bad("requestsPerSecond", "%v is no rate; give one of 0.01 or more, or -1 for none", r)
	}
	if s.ProgramPath == "" {
		s.ProgramPath = defaultPath
	}
	switch s.Holds {
	case "":
		s.Holds = "end"
	case "end", "keep":
	default:
		return bad("holds", `%q is neither "end" nor "keep"`, s.Holds)
	}
	if s.Memory < 0 {
		return bad("memory", "it can't be negative")
	}
	for n, v := range s.Environment {
		if n == "" || strings.ContainsAny(n, "=\x00") || strings.Contains(v, "\x00") {
			return bad("environment", "%q can't be a variable", n)
		}
	}
	for p, g := range s.Projects {
		if !name.MatchString(g) {
			return bad("projects", "%q of %q can't be an accounting group", g, p)
		}
	}
	for _, l := range s.Licences {
		if !limitName.MatchString(l) {
			return bad("licences", "%q can't be a concurrency limit", l)
		}
	}
	for uri, command := range s.Launchers {
		if !strings.Contains(uri, ":") || len(command) == 0 || command[0] == "" {
			return bad("launchers", "%q: give an absolute URI, and a list with the command's words", uri)
		}
	}
	for n, path := range s.FileSystems {
		if n == "" || !filepath.IsAbs(path) {
			return bad("fileSystems", "%q: give a name and an absolute path", n)
		}
	}
	return nil
}

// launcher gives the command that starts the processes of a variation.
func (s *Settings) launcher(variation string) ([]string, bool) {
	command, ok := s.Launchers[variation]
	return command, ok || variation == jsdl.VariationMPI
}
