package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"
)

const (
	defaultListen   = "127.0.0.1:8700"
	defaultEndpoint = "http://" + defaultListen + "/bes"
	configHelp      = "~/.config/portolan"
	defaultTimeout  = time.Minute
)

// settings are where the client verbs look and how. In client.yaml each has the
// name of its flag.
type settings struct {
	Endpoint string        `yaml:"endpoint"`
	Token    string        `yaml:"token"`
	Timeout  time.Duration `yaml:"timeout"`

	chosen bool // the endpoint is somebody's choice, and not the default
}

// clientFlags are the settings as flags; what is not given is looked for
// elsewhere.
type clientFlags struct {
	endpoint string
	timeout  time.Duration
}

func (f *clientFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.endpoint, "endpoint", "", "URL of the BES service; /bes is added to one without a path (default "+defaultEndpoint+")")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 0, "how long one request may take (default "+defaultTimeout.String()+")")
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("endpoint", cobra.NoFileCompletions))
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("timeout", cobra.NoFileCompletions))
}

// settings gives the flags, then the environment, then client.yaml, then the
// defaults; for each setting the first that has it.
func (a *app) settings(f clientFlags) (settings, error) {
	s, err := a.configFile()
	if err != nil {
		return s, err
	}
	if v := a.env("PORTOLAN_ENDPOINT"); v != "" {
		s.Endpoint = v
	}
	if v := a.env("PORTOLAN_TOKEN"); v != "" {
		s.Token = v
	}
	if v := a.env("PORTOLAN_TIMEOUT"); v != "" {
		if s.Timeout, err = time.ParseDuration(v); err != nil {
			return s, usagef("PORTOLAN_TIMEOUT is %q; write a time like 30s", v)
		}
	}
	if f.endpoint != "" {
		s.Endpoint = f.endpoint
	}
	if f.timeout != 0 {
		s.Timeout = f.timeout
	}
	if s.Timeout < 0 {
		return s, usagef("the timeout is negative; write a time like 30s")
	}
	if s.Timeout == 0 {
		s.Timeout = defaultTimeout
	}
	s.chosen = s.Endpoint != ""
	if !s.chosen {
		s.Endpoint = defaultEndpoint
	}
	if s.Endpoint, err = endpointURL(s.Endpoint); err != nil {
		return s, err
	}
	if u, err := url.Parse(s.Endpoint); s.Token != "" && err == nil && u.Scheme != "https" && !loopback(u.Hostname()) {
		return s, usagef("the token would be readable on the way to %s: use https, or leave the token out", s.Endpoint)
	}
	return s, nil
}

// endpointURL checks the URL of an endpoint and completes it.
func endpointURL(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return "", usagef("the endpoint %q is no URL: write one like %s", s, defaultEndpoint)
	}
	if u.User != nil {
		return "", usagef("the endpoint holds a user name, which would end up in logs: leave it out")
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/bes"
	}
	return u.String(), nil
}

// loopback reports whether a host is this machine, by its address or as
// "localhost" (RFC 6761 §6.3).
func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// configFile reads client.yaml, which need not be there.
func (a *app) configFile() (settings, error) {
	var s settings
	dir, err := a.dir("XDG_CONFIG_HOME", ".config")
	if err != nil {
		return s, nil //nolint:nilerr // without a home there is no file in it
	}
	path := filepath.Join(dir, "client.yaml")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, usagef("the settings could not be read: %v", err)
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&s); err != nil && !errors.Is(err, io.EOF) {
		if e, ok := errors.AsType[*yaml.TypeError](err); ok {
			return s, usagef("%s: %s", path, strings.ReplaceAll(strings.Join(e.Errors, "; "), " not found in type main.settings", " is no setting; there are endpoint, token and timeout"))
		}
		return s, usagef("%s: %s", path, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	return s, nil
}

// dir gives this program's folder of a kind, by the XDG base directories.
func (a *app) dir(variable, fallback string) (string, error) {
	// A relative path there is to be ignored (XDG Base Directory Specification).
	if base := a.env(variable); filepath.IsAbs(base) {
		return filepath.Join(base, "portolan"), nil
	}
	home := a.env("HOME")
	if home == "" {
		return "", fmt.Errorf("neither HOME nor %s is set", variable)
	}
	return filepath.Join(home, fallback, "portolan"), nil
}
