package boinc

import (
	"bytes"
	"net"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// Type is the adapter's name in a configuration.
const Type = "boinc"

// Settings are a site's entry in the configuration. Times are Go durations ("90s"),
// sizes bytes.
type Settings struct {
	// URL is the project's master URL. It must be https, unless it is of this machine.
	URL string `yaml:"url"`
	// AuthenticatorFile holds the account's authenticator: 32 hexadecimal digits. Only
	// the gateway's account may be able to read it.
	AuthenticatorFile string `yaml:"authenticatorFile"`
	// Wrapper names the application that runs any executable; "" takes no such jobs.
	Wrapper string `yaml:"wrapper"`
	// Applications are those with a program of their own.
	Applications []Application `yaml:"applications"`
	// Prefix begins the names of batches and jobs; "portolan". It must not be that of
	// another gateway at the same project.
	Prefix string `yaml:"prefix"`

	// RequestsPerSecond bounds what is asked of the project; 2.
	RequestsPerSecond float64 `yaml:"requestsPerSecond"`
	// Poll is how often the project is asked for news; 60 s.
	Poll time.Duration `yaml:"poll"`
	// Timeout bounds one request; 2 min.
	Timeout time.Duration `yaml:"timeout"`
	// Settle is how long after a lost answer the project may still be at work on the
	// request; 1 min.
	Settle time.Duration `yaml:"settle"`
	// MaxBatch bounds the jobs of one batch; 1000.
	MaxBatch int `yaml:"maxBatch"`
	// MaxJobs bounds the jobs that are not over; 0 is no bound. (The project's own
	// limit is not enforced by its interface.)
	MaxJobs int `yaml:"maxJobs"`
	// MaxRequest bounds the bytes of one request; 6 MB, as PHP's post_max_size is
	// often 8 MB.
	MaxRequest int `yaml:"maxRequest"`
	// MaxFile bounds the bytes of one input file; 2 MB, PHP's own upload_max_filesize.
	MaxFile int `yaml:"maxFile"`
	// MaxOutput bounds the bytes of each output stream that is kept; 16 MB.
	MaxOutput int64 `yaml:"maxOutput"`

	// Benchmark is the speed in FLOPS of the host for which times are reckoned; 5e9. A
	// job's time limit is counted in floating-point operations.
	Benchmark float64 `yaml:"benchmark"`
	// WallTime is the time limit of jobs that set none; 24 h.
	WallTime time.Duration `yaml:"wallTime"`
	// Memory and Disk are what jobs may need that say nothing; 256 MB and 1 GB. A host
	// that has less is sent none of them.
	Memory int64 `yaml:"memory"`
	Disk   int64 `yaml:"disk"`
	// Return is how long a host may keep a job before it counts as lost (delay_bound);
	// 7 days.
	Return time.Duration `yaml:"return"`
	// Retries is how many more instances a job may have that may be run again, and one
	// whose instances must agree; 3.
	Retries int `yaml:"retries"`
	// Pending is how long a job may wait for a host before it is given up; 7 days. A
	// job that no host can run waits for ever.
	Pending time.Duration `yaml:"pending"`
	// Unproven bounds the jobs of an application of which no host has taken one yet;
	// 90. Jobs that nobody can run fill the project's job cache (100 places by
	// default) and stop all others. 0 is the default, less than 0 is no bound.
	Unproven int `yaml:"unproven"`

	// AbsolutePaths says that the hosts are the site's own and have files that jobs
	// name by absolute paths. Volunteers' hosts have not.
	AbsolutePaths bool `yaml:"absolutePaths"`
	// Capacity says what the hosts offer, which the project does not tell.
	Capacity Capacity `yaml:"capacity"`
}

// Application maps a JSDL ApplicationName to an installed application.
type Application struct {
	Name    string `yaml:"name"`    // jsdl:ApplicationName
	Version string `yaml:"version"` // jsdl:ApplicationVersion; "" takes any
	App     string `yaml:"app"`     // BOINC's name of it; Name when empty
	// AppVersion demands one version (100 is 1.00); 0 takes the newest.
	AppVersion int `yaml:"appVersion"`
	// CommandLine stands before the job's arguments; a wrapper application wants
	// "--passthrough_child".
	CommandLine string `yaml:"commandLine"`
	// Stdout and Stderr are the places of the streams in the application's output
	// template, from 0; absent: it has no such output.
	Stdout *int `yaml:"stdout"`
	Stderr *int `yaml:"stderr"`
}

// Capacity is what an administrator knows of the hosts.
type Capacity struct {
	Hosts  int   `yaml:"hosts"`  // 1
	CPUs   int   `yaml:"cpus"`   // of each; 1
	Memory int64 `yaml:"memory"` // of each; 4 GB
	Disk   int64 `yaml:"disk"`   // of each, for jobs; 10 GB
	Slots  int   `yaml:"slots"`  // jobs at once; hosts × cpus
}

// EnsureDefaults fills in what is not said.
func (s *Settings) EnsureDefaults() {
	def(&s.Prefix, "portolan")
	def(&s.RequestsPerSecond, 2)
	def(&s.Poll, time.Minute)
	def(&s.Timeout, 2*time.Minute)
	def(&s.Settle, time.Minute)
	def(&s.MaxBatch, 1000)
	def(&s.MaxRequest, 6<<20)
	def(&s.MaxFile, 2<<20)
	def(&s.MaxOutput, 16<<20)
	def(&s.Benchmark, 5e9)
	def(&s.WallTime, 24*time.Hour)
	def(&s.Memory, 256<<20)
	def(&s.Disk, 1<<30)
	def(&s.Return, 7*24*time.Hour)
	def(&s.Retries, 3)
	def(&s.Pending, 7*24*time.Hour)
	def(&s.Unproven, 90)
	def(&s.Capacity.Hosts, 1)
	def(&s.Capacity.CPUs, 1)
	def(&s.Capacity.Memory, 4<<30)
	def(&s.Capacity.Disk, 10<<30)
	def(&s.Capacity.Slots, s.Capacity.Hosts*s.Capacity.CPUs)
	for i := range s.Applications {
		def(&s.Applications[i].App, s.Applications[i].Name)
	}
}

func def[T comparable](at *T, value T) {
	var zero T
	if *at == zero {
		*at = value
	}
}

var (
	// safeName are names that pass the project's unescaped ways unharmed.
	safeName   = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)
	secretForm = regexp.MustCompile(`^[0-9a-fA-F]{32}$`)
	safeWords  = regexp.MustCompile(`^[A-Za-z0-9_./:=,+@%-]+( [A-Za-z0-9_./:=,+@%-]+)*$`)
)

// maxName bounds job names; the project's column holds 191 with the instance's suffix.
const maxName = 100

// Validate says what is wrong with the settings: fail.Invalid.
func (s *Settings) Validate() error {
	bad := func(setting, format string, args ...any) error {
		return fail.Errorf("boinc.Settings", fail.Invalid, setting, setting+": "+format, args...)
	}
	u, err := url.Parse(s.URL)
	switch {
	case s.URL == "":
		return bad("url", "the project's master URL is missing")
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return bad("url", "%q is not the http or https URL of a project", s.URL)
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return bad("url", "%q would send the account's secret in the clear; use https", s.URL)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return bad("url", "give the master URL alone, without user, query or fragment")
	case s.AuthenticatorFile == "":
		return bad("authenticatorFile", "the file with the account's authenticator is missing")
	case s.Wrapper == "" && len(s.Applications) == 0:
		return bad("wrapper", "name the application that runs any program, or list applications; with neither no job can run")
	case s.Wrapper != "" && !safeName.MatchString(s.Wrapper):
		return bad("wrapper", "%q can't be the name of an application", s.Wrapper)
	case !safeName.MatchString(s.Prefix) || len(s.Prefix)+1+adapters.MaxTag > maxName:
		return bad("prefix", "%q must be 1 to %d letters, digits, '_', '-' or '.'", s.Prefix, maxName-1-adapters.MaxTag)
	}
	for name, positive := range map[string]bool{
		"requestsPerSecond": s.RequestsPerSecond > 0, "poll": s.Poll > 0, "timeout": s.Timeout > 0, "settle": s.Settle > 0,
		"maxBatch": s.MaxBatch > 0 && s.MaxBatch <= 5000, "maxJobs": s.MaxJobs >= 0, "maxRequest": s.MaxRequest >= 64<<10, "maxFile": s.MaxFile >= 64<<10,
		"maxOutput": s.MaxOutput > 0, "benchmark": s.Benchmark > 0, "wallTime": s.WallTime > 0, "memory": s.Memory > 0, "disk": s.Disk > 0,
		"return": s.Return >= time.Second, "retries": s.Retries >= 0, "pending": s.Pending > 0,
		"capacity": s.Capacity.Hosts > 0 && s.Capacity.CPUs > 0 && s.Capacity.Memory > 0 && s.Capacity.Disk > 0 && s.Capacity.Slots > 0,
	} {
		if !positive {
			return bad(name, "the number is out of range")
		}
	}
	for _, a := range s.Applications {
		if err := a.validate(); err != nil {
			return err
		}
	}
	return nil
}

func (a *Application) validate() error {
	bad := func(format string, args ...any) error {
		return fail.Errorf("boinc.Settings", fail.Invalid, "applications", "applications: "+format, args...)
	}
	switch {
	case a.Name == "":
		return bad("one has no name")
	case !safeName.MatchString(a.App):
		return bad("%q can't be the name of a BOINC application; set app", a.App)
	case a.CommandLine != "" && !safeWords.MatchString(a.CommandLine):
		return bad("the commandLine of %q has characters that the project does not pass on unharmed", a.Name)
	case a.AppVersion < 0 || a.Stdout != nil && *a.Stdout < 0 || a.Stderr != nil && *a.Stderr < 0:
		return bad("a number of %q is negative", a.Name)
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// readSecret reads the authenticator; what the file holds is in no error.
func readSecret(path string) (string, error) {
	bad := func(format string, args ...any) error {
		return fail.Errorf("boinc.Open", fail.Invalid, "authenticatorFile", "authenticatorFile: "+format, args...)
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", bad("%s can't be read: %v", path, err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", bad("%s can be read by others; set its mode to 0600", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", bad("%s can't be read: %v", path, err)
	}
	secret := string(bytes.TrimSpace(data))
	if !secretForm.MatchString(secret) {
		return "", bad("%s must hold 32 hexadecimal digits and nothing else", path)
	}
	return secret, nil
}

// application finds the mapping of a JSDL application.
func (s *Settings) application(name, version string) *Application {
	i := slices.IndexFunc(s.Applications, func(a Application) bool {
		return a.Name == name && (a.Version == "" || version == "" || a.Version == version)
	})
	if i < 0 {
		return nil
	}
	return &s.Applications[i]
}

// names lists what jobs can name.
func (s *Settings) names() string {
	var list []string
	for _, a := range s.Applications {
		list = append(list, a.Name)
	}
	return strings.Join(list, ", ")
}
