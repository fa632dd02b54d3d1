package shell

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// Type is the adapter's type in a configuration.
const Type = "shell"

// Settings are the settings of a site of type shell.
type Settings struct {
	// Slots is how many CPUs' worth of jobs run at once on the gateway's machine; 0 is
	// the number of its CPUs. Hosts have their own.
	Slots int `yaml:"slots"`
	// Grace is how long a program has after SIGTERM before SIGKILL: "5s".
	Grace string `yaml:"grace"`
	// Umask of jobs, in octal digits: "022".
	Umask string `yaml:"umask"`
	// Path is the PATH of jobs that set none.
	Path string `yaml:"path"`
	// HostNames are further names that CandidateHosts may give for the machine.
	HostNames []string `yaml:"hostNames"`
	// Track holds process trees together by "cgroup2", "cgroup1" or "process"; "" is
	// the first of these that works.
	Track string `yaml:"track"`
	// EnforceMemory makes the memory that a job requires (IndividualPhysicalMemory,
	// TotalPhysicalMemory) a limit that it is ended for, as MemoryLimit always is.
	EnforceMemory bool `yaml:"enforceMemory"`
	// CPUShares gives each job processor time by the slots that it has, when there is
	// less than all jobs want.
	CPUShares bool `yaml:"cpuShares"`
	// Sandbox is what every job is confined to.
	Sandbox Sandbox `yaml:"sandbox"`
	// Launchers give, for an SPMDVariation (a URI), the command that starts the
	// processes, as a list of its words. In them {processes}, {perhost}, {threads},
	// {hosts} (HOST:COUNT,…) and {hostfile} (a file with a line "HOST slots=COUNT" each)
	// are filled in; the program and its arguments follow.
	Launchers map[string][]string `yaml:"launchers"`
	// Hosts are machines reached by SSH. With any, no job runs on the gateway's own.
	Hosts []Host `yaml:"hosts"`
}

// Host is a machine of the site that is reached by SSH.
type Host struct {
	// Name is what CandidateHosts may give; "" is the address.
	Name    string `yaml:"name"`
	Address string `yaml:"address"` // name or IP address
	Port    int    `yaml:"port"`    // 0 is 22
	User    string `yaml:"user"`    // the account there
	Key     string `yaml:"key"`     // file of the private key, without a pass phrase
	// KnownHosts is the file of host keys (sshd(8)); a key that is not in it is refused.
	KnownHosts string `yaml:"knownHosts"`
	Slots      int    `yaml:"slots"` // 0 is the number of its CPUs
	// Directory is where the site keeps its jobs there, an absolute path; "" is
	// .portolan in the user's home directory.
	Directory string `yaml:"directory"`
	// Program is the path of a portolan there; "" copies this one, for which the host
	// must run the same system on the same kind of processor.
	Program string `yaml:"program"`
	// Environment is added to that of each job there, unless the job sets it itself.
	Environment map[string]string `yaml:"environment"`
	// Labels are further names that CandidateHosts may give.
	Labels []string `yaml:"labels"`
}

// maxHosts bounds the hosts of a site.
const maxHosts = 256

// New makes the adapter of a site: Open for the gateway's own machine, or the
// hosts that the settings name.
func New(c adapters.Config) (adapters.Adapter, error) {
	var s Settings
	if err := c.Settings.Decode(&s); err != nil {
		return nil, err
	}
	o, err := s.options()
	if err != nil {
		return nil, err
	}
	o.Dir, o.Log = c.Dir, c.Log
	if o.Hosts = s.Hosts; len(o.Hosts) > 0 {
		a, err := OpenHosts(o)
		if err != nil {
			return nil, err
		}
		return a, nil
	}
	a, err := Open(o)
	if err != nil {
		return nil, err
	}
	return a, nil
}

func (s *Settings) options() (Options, error) {
	bad := func(field, format string, args ...any) (Options, error) {
		return Options{}, fail.Errorf("shell.New", fail.Invalid, field, "%s: %s", field, fmt.Sprintf(format, args...))
	}
	o := Options{
		Slots: s.Slots, Path: s.Path, HostNames: s.HostNames, Track: s.Track, EnforceMemory: s.EnforceMemory, CPUShares: s.CPUShares,
		Sandbox: s.Sandbox, Launchers: s.Launchers,
	}
	if s.Grace != "" {
		grace, err := time.ParseDuration(s.Grace)
		if err != nil || grace <= 0 {
			return bad("grace", "%q is no time; write it like 5s", s.Grace)
		}
		o.Grace = grace
	}
	if s.Umask != "" {
		n, err := strconv.ParseUint(s.Umask, 8, 16)
		if err != nil || n > 0o777 {
			return bad("umask", "%q is not an octal number of 0 to 0777", s.Umask)
		}
		umask := int(n)
		o.Umask = &umask
	}
	if err := o.Sandbox.validate(); err != nil {
		return Options{}, err
	}
	for _, uri := range slices.Sorted(maps.Keys(s.Launchers)) {
		if !strings.Contains(uri, ":") || len(s.Launchers[uri]) == 0 || s.Launchers[uri][0] == "" {
			return bad("launchers", "%q: give an absolute URI, and a list with the command's words", uri)
		}
	}
	if len(s.Hosts) > maxHosts {
		return bad("hosts", "a site has at most %d hosts, not %d", maxHosts, len(s.Hosts))
	}
	names := map[string]bool{}
	for i := range s.Hosts {
		h := &s.Hosts[i]
		if err := h.ensureDefaults(); err != nil {
			return Options{}, err
		}
		if names[h.Name] {
			return bad("hosts", "there are two hosts named %q; give each a name of its own", h.Name)
		}
		names[h.Name] = true
	}
	return o, nil
}

func (h *Host) ensureDefaults() error {
	if h.Name == "" {
		h.Name = h.Address
	}
	if h.Port == 0 {
		h.Port = 22
	}
	bad := func(format string, args ...any) error {
		return fail.Errorf("shell.New", fail.Invalid, "hosts", "hosts: %s: %s", strconv.Quote(h.Name), fmt.Sprintf(format, args...))
	}
	switch {
	case h.Address == "":
		return bad("address is missing")
	case h.User == "":
		return bad("user is missing: the account that jobs run as there")
	case h.Key == "":
		return bad("key is missing: the file of the private key to log in with")
	case h.KnownHosts == "":
		return bad("knownHosts is missing: the file with the host's public key; ssh-keyscan writes one, to be compared with what the host's administrator says")
	case h.Port < 0 || h.Port > 65535:
		return bad("there is no port %d", h.Port)
	case h.Slots < 0 || h.Slots > maxSlots:
		return bad("a host has 1 to %d slots, not %d", maxSlots, h.Slots)
	case h.Directory != "" && !filepath.IsAbs(h.Directory):
		return bad("directory %q is not an absolute path", h.Directory)
	case h.Program != "" && !filepath.IsAbs(h.Program):
		return bad("program %q is not an absolute path", h.Program)
	case !safeName(h.Name):
		return bad("a name is made of letters, digits, '.', '-', '_' and ':'")
	}
	for name, value := range h.Environment {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.Contains(value, "\x00") {
			return bad("environment: %q can't be a variable", name)
		}
	}
	return nil
}

func safeName(s string) bool {
	return s != "" && len(s) <= 253 && !strings.HasPrefix(s, ".") && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(".-_:", r)
	})
}
