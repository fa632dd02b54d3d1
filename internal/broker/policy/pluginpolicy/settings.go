package pluginpolicy

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	goplugin "github.com/hashicorp/go-plugin"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/internal/fail"
)

// Settings are what the configuration says of a plug-in.
type Settings struct {
	// Command is the program and its arguments. A program without a '/' is looked up in
	// the gateway's PATH; a relative one is not taken.
	Command []string `yaml:"command"`
	// Environment is added to what the program sees, which is PATH, HOME, LANG, TZ and
	// TMPDIR and nothing else of the gateway's.
	Environment map[string]string `yaml:"environment"`
	// SHA256 pins the program's file: 64 hexadecimal digits.
	SHA256 string `yaml:"sha256"`
	// StartTimeout bounds the time from the start until the plug-in is open; 30s.
	StartTimeout time.Duration `yaml:"startTimeout"`
	// Timeout bounds one decision; 200ms. A batch of keys has ten times as long.
	Timeout time.Duration `yaml:"timeout"`
	// Scheduling and Selection are the built-in policies that decide while the plug-in
	// does not, with their parameters; fifo and least-loaded.
	Scheduling string `yaml:"scheduling"`
	Selection  string `yaml:"selection"`
	// Settings are passed on to the plug-in.
	Settings map[string]string `yaml:"settings"`
}

const (
	defaultStart   = 30 * time.Second
	defaultTimeout = 200 * time.Millisecond
	mostTimeout    = 10 * time.Second
)

func (s *Settings) ensureDefaults() {
	s.StartTimeout = cmp.Or(s.StartTimeout, defaultStart)
	s.Timeout = cmp.Or(s.Timeout, defaultTimeout)
	s.Scheduling = cmp.Or(s.Scheduling, policy.Default(policy.Scheduling).Name)
	s.Selection = cmp.Or(s.Selection, policy.Default(policy.Selection).Name)
}

// Validate says what is wrong with the settings, or nil.
func (s *Settings) Validate() error {
	const op = "pluginpolicy.Open"
	if len(s.Command) == 0 || s.Command[0] == "" {
		return fail.Errorf(op, fail.Invalid, "command", "command: name the program of the plug-in and its arguments, as a list")
	}
	if strings.Contains(s.Command[0], "/") && !filepath.IsAbs(s.Command[0]) {
		return fail.Errorf(op, fail.Invalid, "command", "command: %q is relative; write the whole path of the program", s.Command[0])
	}
	for _, a := range s.Command {
		if strings.ContainsRune(a, 0) {
			return fail.Errorf(op, fail.Invalid, "command", "command: %q has a NUL in it", a)
		}
	}
	for k, v := range s.Environment {
		if k == "" || strings.ContainsAny(k, "=\x00") || strings.ContainsRune(v, 0) {
			return fail.Errorf(op, fail.Invalid, "environment", "environment: %q can't be a variable with that value", k)
		}
		if strings.HasPrefix(k, "PLUGIN_") || k == cookieKey {
			return fail.Errorf(op, fail.Invalid, "environment", "environment: %s is the handshake's; leave it out", k)
		}
	}
	if s.StartTimeout < 0 || s.Timeout < 0 || s.Timeout > mostTimeout {
		return fail.Errorf(op, fail.Invalid, "timeout", "startTimeout and timeout: a time can't be negative, and timeout is at most %v, since other jobs wait meanwhile", mostTimeout)
	}
	if s.SHA256 != "" {
		if sum, err := hex.DecodeString(s.SHA256); err != nil || len(sum) != sha256.Size {
			return fail.Errorf(op, fail.Invalid, "sha256", "sha256: it must be the 64 hexadecimal digits that sha256sum prints for the program")
		}
	}
	return nil
}

// fallbacks makes the built-in policies.
func (s *Settings) fallbacks() (policy.Order, policy.Choice, error) {
	set, err := policy.ParseSetting(s.Scheduling)
	if err != nil {
		return nil, nil, err
	}
	order, err := policy.NewOrder(set)
	if err != nil {
		return nil, nil, err
	}
	if set, err = policy.ParseSetting(s.Selection); err != nil {
		return nil, nil, err
	}
	choice, err := policy.NewChoice(set)
	return order, choice, err
}

// find gives the program's file, which must be there, be executable and be the one
// that is pinned.
func (s *Settings) find() (string, error) {
	const op = "pluginpolicy.Open"
	path, err := exec.LookPath(s.Command[0])
	if err != nil {
		return "", fail.Errorf(op, fail.Invalid, "command", "command: there is no program %q that can be executed", s.Command[0]).Because(err)
	}
	if path, err = filepath.Abs(path); err != nil {
		return "", fail.E(op, fail.Internal, "command", err)
	}
	if s.SHA256 == "" {
		return path, nil
	}
	sum, err := hex.DecodeString(s.SHA256)
	if err != nil {
		return "", fail.E(op, fail.Invalid, "sha256", err)
	}
	pin := goplugin.SecureConfig{Checksum: sum, Hash: sha256.New()}
	same, err := pin.Check(path)
	if err != nil {
		return "", fail.Errorf(op, fail.Invalid, "command", "command: %s can't be read to compare it with sha256", path).Because(err)
	}
	if !same {
		return "", fail.Errorf(op, fail.Invalid, "sha256", "sha256: %s is another file than the one that is pinned; if it was changed on purpose, write its new sum", path)
	}
	return path, nil
}

// passed are the variables of the gateway's own that a plug-in sees.
var passed = []string{"PATH", "HOME", "LANG", "TZ", "TMPDIR"}

// environ gives the plug-in's environment, of the one that a child of ours inherits.
func (s *Settings) environ() []string {
	var env []string
	for _, pair := range (&exec.Cmd{}).Environ() {
		name, _, _ := strings.Cut(pair, "=")
		for _, p := range passed {
			if name == p {
				env = append(env, pair)
			}
		}
	}
	for k, v := range s.Environment {
		env = append(env, k+"="+v)
	}
	return env
}
