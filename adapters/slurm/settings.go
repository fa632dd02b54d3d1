package slurm

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

// Type is the adapter's type in a configuration.
const Type = "slurm"

// Settings are the settings of a site of type slurm. All may be left out where the
// gateway runs as a user of the cluster on one of its hosts.
type Settings struct {
	// Spool is a directory that the gateway and all nodes see under the same path: a job
	// lives there. "" is the site's own directory, which serves where the nodes share it.
	Spool string `yaml:"spool"`
	// Path is the way to Slurm: "commands", "slurmrestd", or "" for the better of those
	// that work.
	Path string `yaml:"path"`
	// Bin is the directory of Slurm's commands; "" looks along PATH.
	Bin string `yaml:"bin"`
	// Conf is the path of slurm.conf; "" is what SLURM_CONF says, or Slurm's own.
	Conf string `yaml:"conf"`
	// Slurmrestd is where slurmrestd listens: "unix:/run/slurmrestd.sock" or
	// "http://host:port"; "" is nowhere.
	Slurmrestd string `yaml:"slurmrestd"`
	// Token is a file with a JSON web token for slurmrestd, read anew when it changes; ""
	// asks "scontrol token" for one, and "none" uses none, for rest_auth/local.
	Token string `yaml:"token"`
	// RequestsPerSecond is how much the controller is asked at most; 0 is 5, and -1 is
	// without bound.
	RequestsPerSecond float64 `yaml:"requestsPerSecond"`
	// Poll is how often the state of jobs is asked for, "2s", beside what is pushed.
	Poll string `yaml:"poll"`
	// Events is the file to which the hook that the administrator installed in Slurm
	// writes (see the package's documentation); "" is none.
	Events string `yaml:"events"`
	// Runner is the path of a portolan on the nodes; "" copies this one to the spool, for
	// which they must run the same system on the same kind of processor.
	Runner string `yaml:"runner"`
	// Accounts are local accounts, beside those that owners are mapped to, that a job's
	// UserName may give; the gateway must be root.
	Accounts []string `yaml:"accounts"`
	// Share, Account and QualityOfService are those of jobs that ask for none; "" leaves
	// them to Slurm.
	Share            string `yaml:"share"`
	Account          string `yaml:"account"`
	QualityOfService string `yaml:"qualityOfService"`
	// Umask of jobs, in octal digits: "022".
	Umask string `yaml:"umask"`
	// PATH of jobs that set none.
	ProgramPath string `yaml:"programPath"`
	// Environment is added to that of each job, unless the job sets it itself.
	Environment map[string]string `yaml:"environment"`
	// Grace is how long a program has after SIGTERM before SIGKILL at the end of its wall
	// time: "5s".
	Grace string `yaml:"grace"`
	// Fold is how many alike jobs become one array at most; 0 is as many as Slurm takes, 1
	// makes no arrays.
	Fold int `yaml:"fold"`
	// MemoryLimits says whether Slurm keeps jobs to their memory, where it can't be found
	// out: true or false.
	MemoryLimits *bool `yaml:"memoryLimits"`
	// Suspend says whether the gateway may suspend jobs, which Slurm lets operators do: ""
	// finds out.
	Suspend *bool `yaml:"suspend"`
	// Reservations says whether the gateway makes reservations, which Slurm lets root, its
	// own account and its operators do: "on", "off", or "auto", which finds out; "" is auto.
	Reservations string `yaml:"reservations"`
	// Launchers give, for an SPMDVariation (a URI), the command that starts the
	// processes, as a list of its words; {processes}, {perhost} and {threads} are filled in.
	// What is not here is started by srun, where it has the variation.
	Launchers map[string][]string `yaml:"launchers"`
	// Container is the command that runs a program within an image, as a list of its
	// words, {image} among them: ["apptainer", "exec", "{image}"]. Without it jobs that ask
	// for a container are refused.
	Container []string `yaml:"container"`
	// FileSystems are further names of file systems, with where they are on all nodes.
	FileSystems map[string]string `yaml:"fileSystems"`
	// HostNames are further names that CandidateHosts may give for the site.
	HostNames []string `yaml:"hostNames"`

	poll, grace time.Duration
	umask       int
}

const (
	defaultRequests = 5
	defaultPoll     = 2 * time.Second
	defaultGrace    = 5 * time.Second
	defaultPath     = "/usr/local/bin:/usr/bin:/bin"
)

// word is what an option's value may be made of where it names something of Slurm's.
var word = regexp.MustCompile(`^[\pL\pN_][\pL\pN_.@+-]{0,99}$`)

func (s *Settings) ensureDefaults(dir string) error {
	bad := func(name, format string, args ...any) error {
		return fail.Errorf("slurm.Open", fail.Invalid, name, "the setting %s: %s", name, fmt.Sprintf(format, args...))
	}
	if s.Spool == "" {
		s.Spool = filepath.Join(dir, "spool")
	}
	for name, path := range map[string]string{"spool": s.Spool, "bin": s.Bin, "conf": s.Conf, "events": s.Events, "runner": s.Runner} {
		if path != "" && !filepath.IsAbs(path) {
			return bad(name, "%q is not an absolute path", path)
		}
	}
	if strings.ContainsAny(s.Spool, "%\n\\") { // Slurm replaces %j and the like in the paths of logs
		return bad("spool", "the path %q has a character that Slurm reads as something else", s.Spool)
	}
	s.Spool = filepath.Clean(s.Spool)
	switch s.Path {
	case "", "commands":
	case "slurmrestd":
		if s.Slurmrestd == "" {
			return bad("path", "slurmrestd is not to be had without the setting slurmrestd")
		}
	default:
		return bad("path", "%q is neither commands nor slurmrestd", s.Path)
	}
	switch s.Reservations {
	case "", "auto", "on", "off":
	default:
		return bad("reservations", "%q is neither on, off nor auto", s.Reservations)
	}
	if s.Slurmrestd != "" {
		if _, err := parseAddress(s.Slurmrestd); err != nil {
			return bad("slurmrestd", "%v", err)
		}
	}
	if s.Token != "" && s.Token != "none" && !filepath.IsAbs(s.Token) {
		return bad("token", "%q is neither none nor an absolute path", s.Token)
	}
	switch {
	case s.RequestsPerSecond == 0:
		s.RequestsPerSecond = defaultRequests
	case s.RequestsPerSecond == -1:
		s.RequestsPerSecond = 0
	case s.RequestsPerSecond < 0 || s.RequestsPerSecond < 0.1:
		return bad("requestsPerSecond", "%v is too few; it is at least 0.1, or -1 for no bound", s.RequestsPerSecond)
	}
	s.poll, s.grace, s.umask = defaultPoll, defaultGrace, 0o022
	for _, d := range []struct {
		name, text string
		into       *time.Duration
		least      time.Duration
	}{{"poll", s.Poll, &s.poll, 50 * time.Millisecond}, {"grace", s.Grace, &s.grace, 0}} {
		if d.text == "" {
			continue
		}
		v, err := time.ParseDuration(d.text)
		if err != nil || v < d.least || v > time.Hour {
			return bad(d.name, "%q is no time between %v and an hour, such as 2s", d.text, d.least)
		}
		*d.into = v
	}
	if s.Umask != "" {
		n, err := strconv.ParseUint(s.Umask, 8, 16)
		if err != nil || n > 0o777 {
			return bad("umask", "%q is no umask in octal digits", s.Umask)
		}
		s.umask = int(n)
	}
	if s.ProgramPath == "" {
		s.ProgramPath = defaultPath
	}
	for name, value := range map[string]string{"share": s.Share, "account": s.Account, "qualityOfService": s.QualityOfService} {
		if value != "" && !word.MatchString(value) {
			return bad(name, "%q can't be one of Slurm's names", value)
		}
	}
	for name := range s.Environment {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			return bad("environment", "%q can't be the name of a variable", name)
		}
	}
	if s.Fold < 0 {
		return bad("fold", "it can't be negative")
	}
	for variation, command := range s.Launchers {
		if len(command) == 0 || command[0] == "" {
			return bad("launchers", "the launcher of %s has no program", variation)
		}
		if !strings.HasPrefix(variation, jsdl.VariationMPI[:strings.LastIndexByte(jsdl.VariationMPI, '/')+1]) {
			return bad("launchers", "%q is no variation; they are %s and the like", variation, jsdl.VariationMPI)
		}
	}
	if len(s.Container) > 0 && !strings.Contains(strings.Join(s.Container, " "), "{image}") {
		return bad("container", "the command has no word with {image}")
	}
	for name, path := range s.FileSystems {
		if !filepath.IsAbs(path) {
			return bad("fileSystems", "%s: %q is not an absolute path", name, path)
		}
	}
	return nil
}
