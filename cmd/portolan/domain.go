package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/portolan-project/portolan/internal/broker/modelstore"
	"github.com/portolan-project/portolan/internal/store/etcd"
)

// badDomain says what is wrong with the name of a domain. "" is a gateway without one.
func badDomain(s string) string {
	rule := fmt.Sprintf("a name has 1 to %d lower-case letters, digits, '-' and '.', and begins and ends with a letter or a digit", etcd.MaxDomain)
	if s == modelstore.Nameless {
		return fmt.Sprintf("a domain can't be called %q, which is what others call a gateway without a name", s)
	}
	for i, r := range []byte(s) {
		alnum := r >= 'a' && r <= 'z' || r >= '0' && r <= '9'
		if !alnum && (i == 0 || i == len(s)-1 || r != '-' && r != '.') || i >= etcd.MaxDomain {
			return fmt.Sprintf("a domain can't be called %q: %s", s, rule)
		}
	}
	return ""
}

// oneDomain gives the domain that the flag or the configuration names.
func oneDomain(flag, configured string) (string, error) {
	switch {
	case flag == "":
		return configured, nil
	case configured != "" && configured != flag:
		return "", fmt.Errorf("--domain names %s and the configuration %s: say it once", flag, configured)
	}
	return flag, nil
}

// domainFile remembers of which domain a data directory is, if that has a name.
const domainFile = "domain"

// bindDomain ties a data directory, which the caller has locked, to a domain. Its jobs are
// in the domain's part of the store: under another name they would be forgotten there,
// and go on here.
func bindDomain(data, domain string) error {
	file := filepath.Join(data, domainFile)
	unusable := func(err error) error { return refusedf("the data directory can't be used: %v", err) }
	if _, err := os.Stat(filepath.Join(data, "id")); errors.Is(err, fs.ErrNotExist) { // no job was ever here
		if domain == "" {
			err = os.Remove(file)
		} else {
			err = writeWhole(file, []byte(domain+"\n"))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return unusable(err)
		}
		return nil
	} else if err != nil {
		return unusable(err)
	}
	b, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return unusable(err)
	}
	was := strings.TrimSpace(string(b))
	if was == domain {
		return nil
	}
	return refusedf("%s has jobs of %s, which %s would not find: start it as %s, or choose another directory with --data", data, inWords(plain(was)), inWords(domain), asFlag(plain(was)))
}

// inWords gives a domain as it stands in a sentence.
func inWords(domain string) string {
	if domain == "" {
		return "a gateway without a domain"
	}
	return "the domain " + domain
}

// asFlag says how a gateway of a domain is started.
func asFlag(domain string) string {
	if domain == "" {
		return "before, without --domain"
	}
	return "before, with --domain " + domain
}
