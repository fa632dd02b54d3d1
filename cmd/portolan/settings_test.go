package main

import (
	"testing"
	"time"
)

func appWith(env map[string]string) *app {
	return &app{env: func(k string) string { return env[k] }}
}

func TestEndpointURL(t *testing.T) {
	for in, want := range map[string]string{
		"http://h":              "http://h/bes",
		"http://h/":             "http://h/bes",
		"https://h:8443/x/y":    "https://h:8443/x/y",
		"http://[::1]:80":       "http://[::1]:80/bes",
		"h:80":                  "",
		"ftp://h/bes":           "",
		"http://":               "",
		"http://user:pass@h/":   "",
		"http://h/bes?wsdl=yes": "http://h/bes?wsdl=yes",
		"\x1b[31m":              "",
	} {
		got, err := endpointURL(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v; not %q", in, got, err, want)
		}
	}
}

func TestEachSettingComesFromTheFirstThatHasIt(t *testing.T) {
	env := map[string]string{"PORTOLAN_ENDPOINT": "http://127.0.0.1:1/env", "PORTOLAN_TIMEOUT": "5s"}
	s, err := appWith(env).settings(clientFlags{})
	if err != nil || s.Endpoint != "http://127.0.0.1:1/env" || s.Timeout != 5*time.Second || !s.chosen {
		t.Errorf("%+v, %v", s, err)
	}
	s, err = appWith(env).settings(clientFlags{endpoint: "http://127.0.0.1:2", timeout: time.Second})
	if err != nil || s.Endpoint != "http://127.0.0.1:2/bes" || s.Timeout != time.Second {
		t.Errorf("%+v, %v", s, err)
	}
	s, err = appWith(nil).settings(clientFlags{})
	if err != nil || s.Endpoint != defaultEndpoint || s.Timeout != defaultTimeout || s.chosen {
		t.Errorf("%+v, %v", s, err)
	}
	for _, bad := range []map[string]string{
		{"PORTOLAN_TIMEOUT": "soon"},
		{"PORTOLAN_TIMEOUT": "-1s"},
		{"PORTOLAN_TOKEN": "x", "PORTOLAN_ENDPOINT": "http://elsewhere.example/bes"},
	} {
		if _, err := appWith(bad).settings(clientFlags{}); err == nil {
			t.Errorf("%v was taken", bad)
		}
	}
}

func TestLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"127.0.0.1": true, "127.8.9.1": true, "::1": true, "localhost": true, "LocalHost": true,
		"": false, "0.0.0.0": false, "::": false, "10.0.0.1": false, "127.0.0.1.example.org": false, "example.org": false,
	} {
		if loopback(host) != want {
			t.Errorf("%q: not %v", host, want)
		}
	}
}
