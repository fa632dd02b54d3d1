package plugin

import (
	"crypto/sha256"
	"encoding/hex"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	goplugin "github.com/hashicorp/go-plugin"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// Settings are the settings of a site of type plugin.
type Settings struct {
	// Command is the program and its arguments. A program without a '/' is looked up
	// in the gateway's PATH; a relative one is not taken.
	Command []string `yaml:"command"`
	// Environment is added to what the program sees, which is PATH, HOME, LANG and TZ
	// and nothing else of the gateway's.
	Environment map[string]string `yaml:"environment"`
	// Directory is where the program works; "" is the site's own.
	Directory string `yaml:"directory"`
	// SHA256 pins the program's file: 64 hexadecimal digits. A script is pinned by
	// being the command itself (with a "#!" line), not an argument of its interpreter.
	SHA256 string `yaml:"sha256"`
	// StartTimeout bounds the time from the start until the plug-in is open; 30s.
	StartTimeout time.Duration `yaml:"startTimeout"`
	// CallTimeout bounds every call; a plug-in that takes longer is ended and started
	// again. 2m.
	CallTimeout time.Duration `yaml:"callTimeout"`
	// TLS false does without encryption, for languages that can't: the plug-in then
	// listens on the socket in the directory that only the gateway's account can enter.
	TLS *bool `yaml:"tls"`
	// Settings are passed on to the plug-in.
	Settings adapters.Settings `yaml:"settings"`
}

// ensureDefaults fills in what is not said.
func (s *Settings) ensureDefaults() {
	if s.StartTimeout == 0 {
		s.StartTimeout = defaultStart
	}
	if s.CallTimeout == 0 {
		s.CallTimeout = defaultCall
	}
	if s.TLS == nil {
		yes := true
		s.TLS = &yes
	}
}

// Validate says what is wrong with the settings, or nil.
func (s *Settings) Validate() error {
	const op = "plugin.Open"
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
	if s.StartTimeout < 0 || s.CallTimeout < 0 {
		return fail.Errorf(op, fail.Invalid, "startTimeout", "startTimeout and callTimeout: a time can't be negative")
	}
	if s.SHA256 != "" {
		if sum, err := hex.DecodeString(s.SHA256); err != nil || len(sum) != sha256.Size {
			return fail.Errorf(op, fail.Invalid, "sha256", "sha256: it must be the 64 hexadecimal digits that sha256sum prints for the program")
		}
	}
	return nil
}

// find gives the program's file, which must be there, be executable and be the one
// that is pinned.
func (s *Settings) find() (string, error) {
	const op = "plugin.Open"
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
		return "", fail.Errorf(op, fail.Invalid, "sha256",
			"sha256: %s is another file than the one that is pinned; if it was changed on purpose, write its new sum", path)
	}
	return path, nil
}

// passed are the variables of the gateway's own that a plug-in sees.
var passed = []string{"PATH", "HOME", "LANG", "TZ", "TMPDIR"}

// environ gives the plug-in's environment, of the one that a child of ours inherits.
func (s *Settings) environ(inherited []string) []string {
	var env []string
	for _, pair := range inherited {
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
